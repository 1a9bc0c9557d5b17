//! More events, runs and days than fit in a page, against what one statement over the whole log says.

use std::collections::BTreeMap;

use event_log::seal::{self, Progress};
use run_events::seal::proof::ProofCheck;

use crate::support::database::{Database, with_database};
use crate::{day, heads, run, seal_days};

/// `events` events of `runs` runs in `streams` streams, with two offsets of three unused, spread over
/// `seconds` from 2001-01-01 on. Their digests are made up, which a seal does not look at.
async fn bulk(database: &Database, events: i64, runs: i64, streams: i64, seconds: i64) {
    run(database, &format!(
        "INSERT INTO event_log.run (tenant_id, run_id) SELECT 'acme', 'run ' || n FROM generate_series(0, {runs} - 1) n;
         INSERT INTO event_log.stream (topic, partition, group_id, start_offset, next_offset, appended, skipped, last_persisted_at)
         SELECT 't', p, 'g', 0, {events} * 3, {events}, {events} * 2, '2001-06-01Z' FROM generate_series(0, {streams} - 1) p;
         INSERT INTO event_log.event
         SELECT r.run_no, e / {runs} + 1, s.stream_id, (e / {streams}) * 3 + 1, 'epoch',
                '2001-01-01Z'::timestamptz + make_interval(secs => e * {seconds}::float8 / {events}), gen_random_uuid(), 1, 1,
                sha256(e::text::bytea), sha256('c'), sha256(('chain ' || e)::bytea), 'acme', 'StepStarted', 'p', 'e', 'pl', 'v', 's', NULL
         FROM generate_series(0, {events} - 1) e
         JOIN event_log.run r ON r.run_id = 'run ' || e % {runs}
         JOIN event_log.stream s ON s.partition = e % {streams};
         ANALYZE event_log.event")).await;
}

#[tokio::test]
async fn each_of_many_days_is_what_a_reading_of_the_whole_log_gives() {
    with_database(async |database| {
        bulk(&database, 3_000, 170, 3, 30 * 86_400 + 43_207).await;
        type Row = (chrono::NaiveDate, i64, i64, i64);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT (persisted_at AT TIME ZONE 'UTC')::date, run_no, max(run_seq), count(*) FROM event_log.event GROUP BY 1, 2",
        )
        .fetch_all(&database.pool)
        .await
        .unwrap();
        let mut expected: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (of, run_no, run_seq, events) in rows {
            expected.entry(of).or_default().push((run_no, run_seq, events.unsigned_abs()));
        }
        assert_eq!(expected.len(), 31);
        for (of, mut expected) in expected {
            let found = heads(&database, &of.to_string()).await;
            let mut found: Vec<_> = found.heads.iter().map(|head| (head.run_no, head.run_seq, head.events)).collect();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{of}");
        }
        for outside in ["2000-12-31", "2001-02-05"] {
            assert_eq!(heads(&database, outside).await.heads, []);
        }
    })
    .await;
}

#[tokio::test]
async fn a_day_of_many_runs_is_sealed_compared_and_proved_in_pages() {
    with_database(async |database| {
        bulk(&database, 45_000, 22_500, 1, 3_600).await;
        let sealed = seal_days(&database, &["2001-01-01"]).await;
        assert_eq!((sealed[0].runs, sealed[0].events), (22_500, 45_000));
        let mut connection = database.pool.acquire().await.unwrap();
        let read = Progress::default();
        let findings = seal::day(&mut connection, &sealed[0], &read).await.unwrap();
        assert_eq!((findings, read.events()), (vec![], 45_000));
        for run in ["run 0", "run 9999", "run 22499"] {
            let proof = seal::proof(&mut connection, "acme", run, Some(day("2001-01-01")))
                .await
                .unwrap();
            assert_eq!(proof.head.path.len(), 15, "{run}");
            // The made-up chain is no chain, and is what was sealed.
            let mut check = ProofCheck::begin(&proof.head.line()).unwrap();
            let mut proof = proof;
            for line in proof.lines(&mut connection).await.unwrap() {
                check.event(&line).unwrap();
            }
            let problems = check.end().told.problems;
            assert!(
                problems.iter().all(|what| !what.starts_with("path")),
                "{problems:?}"
            );
        }
    })
    .await;
}
