//! A log that nobody has touched: whatever was appended, and whatever is being appended meanwhile,
//! there is nothing to find.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use event_log::generation::{GenerationFilter, Operator, generations, rewind};
use event_log::verify::{Applied, Progress, beyond, verify};
use event_log::{Batch, StreamWriter};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use run_events::{EventType, Micros, Reason, Rejection, RunEvent};
use serde_json::{Map, Value, json};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::support::database::{Database, with_database};
use crate::support::events::{batch, event, record};
use crate::{lines, verified};

/// JSON of every form that survives decoding.
fn value(random: &mut StdRng, depth: u32) -> Value {
    match random.random_range(0..if depth == 0 { 6 } else { 8 }) {
        0 => Value::Null,
        1 => random.random::<bool>().into(),
        2 => random.random::<i64>().into(),
        3 => random.random::<u64>().into(),
        // Any double that is finite.
        4 => {
            let double = f64::from_bits(random.random());
            serde_json::Number::from_f64(double).map_or(json!(-0.0), Value::Number)
        }
        5 => text(random).into(),
        6 => (0..random.random_range(0..4))
            .map(|_| value(random, depth - 1))
            .collect(),
        _ => Value::Object(object(random, depth - 1)),
    }
}

fn object(random: &mut StdRng, depth: u32) -> Map<String, Value> {
    let fields = 0..random.random_range(0..5);
    fields
        .map(|_| (text(random), value(random, depth)))
        .collect()
}

fn text(random: &mut StdRng) -> String {
    let length = random.random_range(0..12);
    let char = |_| random.random_range('\u{1}'..=char::MAX);
    (0..length).map(char).collect()
}

fn random_event(random: &mut StdRng) -> RunEvent {
    let tenant = ["acme", "umbrella"][random.random_range(0..2)];
    let run = format!("run {}", random.random_range(0..40));
    let step = format!("step {}", random.random_range(0..30));
    let payload = random.random::<bool>().then(|| object(random, 3));
    RunEvent {
        event_type: EventType::from_name("Anything".to_owned()),
        engine_attempt_id: random.random_range(1..=i32::MAX),
        emitted_at: Micros(random.random_range(-60_000_000_000_000_000..250_000_000_000_000_000)),
        step_id: random.random::<bool>().then(|| step.clone()),
        payload,
        ..event(tenant, &run, &step)
    }
}

/// Events, duplicates, conflicts, rejected records, reused ids and skipped offsets.
fn random_batch(random: &mut StdRng, start: i64, used: Uuid) -> Batch {
    let mut batch = batch(start, (0..30).map(|_| random_event(random)));
    for record in &mut batch.records {
        match random.random_range(0..10) {
            0 => record.verdict = Err(Rejection::new(Reason::InvalidJson, "for this test")),
            1 => {
                let refused = event("acme", &format!("refused {}", record.offset), "a");
                record.verdict = Ok(RunEvent {
                    event_id: used,
                    ..refused
                });
            }
            _ => {}
        }
    }
    batch.end += 2;
    batch.skipped = 2;
    batch
}

/// Appends a random batch behind what the writer's stream has.
async fn append(
    database: &Database,
    writer: &mut StreamWriter,
    random: &mut StdRng,
    next: &mut i64,
) {
    let used = Uuid::nil();
    let batch = random_batch(random, *next, used);
    writer.append(&database.pool, &batch).await.unwrap();
    *next = batch.end;
}

#[tokio::test]
async fn a_log_of_random_runs_through_several_streams_and_generations_has_no_findings() {
    let given = std::env::var("RUNLOG_VERIFY_SEED").ok();
    let seed = given.map_or_else(rand::random, |seed| seed.parse().unwrap());
    eprintln!("RUNLOG_VERIFY_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    with_database(async move |database| {
        let mut streams = Vec::new();
        for partition in 0..3 {
            let mut writer = database.writer(partition).await;
            let mut first = event("acme", "first", &format!("of {partition}"));
            first.event_id = if partition == 0 {
                Uuid::nil()
            } else {
                first.event_id
            };
            writer
                .append(&database.pool, &batch(0, [first]))
                .await
                .unwrap();
            streams.push((writer, 1));
        }
        for round in 0..24 {
            let (writer, next) = &mut streams[round % 3];
            append(&database, writer, &mut random, next).await;
        }
        // Partition 1 is read again, as an operator has it done.
        let mut connection = database.pool.acquire().await.unwrap();
        let open = generations(&mut connection, GenerationFilter::default())
            .await
            .unwrap();
        let of_it = open.iter().find(|open| open.partition == 1).unwrap();
        let by = Operator {
            name: "ops@host",
            reason: "this test",
        };
        rewind(&database.pool, of_it, 10, by).await.unwrap();
        let mut writer = database.writer(1).await;
        append(&database, &mut writer, &mut random, &mut 10).await;

        let found = verified(&database).await;
        assert_eq!(lines(&found), [""; 0]);
        let events = database
            .number("SELECT count(*) FROM event_log.event")
            .await;
        let runs = database
            .number("SELECT count(DISTINCT run_no) FROM event_log.event")
            .await;
        assert_eq!(
            (found.events as i64, found.runs as i64, found.streams),
            (events, runs, 4)
        );
        let empty = "SELECT count(*) FROM event_log.run r
                     WHERE NOT EXISTS (SELECT FROM event_log.event e WHERE e.run_no = r.run_no)";
        assert!(
            database.number(empty).await > 0,
            "no record was refused in a run of its own"
        );

        // The digest is a function of the log, and of all of it.
        let again = verify(&database.options, 5, &Arc::new(Progress::default()))
            .await
            .unwrap();
        assert_eq!(again.heads, found.heads);
        let (writer, next) = &mut streams[0];
        let more = batch(*next, [event("acme", "first", "one more")]);
        writer.append(&database.pool, &more).await.unwrap();
        assert_ne!(verified(&database).await.heads, found.heads);
    })
    .await;
}

/// What a reader would have applied by now: every run to its end.
async fn applied(database: &Database) -> Vec<Applied> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT r.tenant_id, r.run_id, max(e.run_seq)
         FROM event_log.run r JOIN event_log.event e USING (run_no) GROUP BY 1, 2",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    let applied = |(tenant_id, run_id, run_seq)| Applied {
        tenant_id,
        run_id,
        run_seq,
    };
    rows.into_iter().map(applied).collect()
}

/// Ends the writers, also where the test fails.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn what_is_appended_meanwhile_makes_no_finding() {
    with_database(async |database| {
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Stop(Arc::clone(&stop));
        let mut writers = Vec::new();
        for partition in 0..3 {
            let (database, stop) = (database.clone(), Arc::clone(&stop));
            writers.push(tokio::spawn(async move {
                let mut writer = database.writer(partition).await;
                let mut next = 0;
                while !stop.load(Ordering::Relaxed) {
                    // All partitions write to the same runs, and to new ones.
                    let events = (0..20).map(|n| {
                        let run = if n % 4 == 0 { next + n } else { n };
                        event(
                            "acme",
                            &format!("run {run}"),
                            &format!("{partition} {next} {n}"),
                        )
                    });
                    let batch = batch(next, events);
                    // The others may be faster each time: the same batch again.
                    if writer.append(&database.pool, &batch).await.is_ok() {
                        next = batch.end;
                    }
                }
            }));
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        let mut grown = 0;
        while grown < 5 {
            assert!(
                Instant::now() < deadline,
                "the log grew in only {grown} verifications"
            );
            let applied = applied(&database).await;
            let before = database
                .number("SELECT count(*) FROM event_log.event")
                .await;
            let found = verified(&database).await;
            assert_eq!(lines(&found), [""; 0]);
            let mut connection = database.pool.acquire().await.unwrap();
            let findings = beyond(&mut connection, &applied).await.unwrap();
            assert_eq!(findings.count(), 0, "{findings:?}");
            let after = database
                .number("SELECT count(*) FROM event_log.event")
                .await;
            grown += u32::from(before > 0 && after > before);
        }
        drop(stopping);
        for writer in writers {
            writer.await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn run_numbers_with_wide_gaps_are_passed_over() {
    with_database(async |database| {
        let mut writer = database.writer(0).await;
        let mut next = 0;
        for restart in [1_000_000_i64, 1_000_000_000_000, 9_000_000_000_000_000_000] {
            let restart =
                format!("ALTER TABLE event_log.run ALTER COLUMN run_no RESTART WITH {restart}");
            sqlx::raw_sql(AssertSqlSafe(restart))
                .execute(&database.pool)
                .await
                .unwrap();
            let batch = batch(next, [event("acme", &format!("run {next}"), "a")]);
            writer.append(&database.pool, &batch).await.unwrap();
            next = batch.end;
        }
        // Number by number it would take for ever.
        let found = tokio::time::timeout(Duration::from_secs(30), verified(&database)).await;
        let found = found.unwrap();
        assert_eq!(lines(&found), [""; 0]);
        assert_eq!((found.runs, found.events), (3, 3));
    })
    .await;
}

#[tokio::test]
async fn pages_that_take_too_long_are_read_in_parts() {
    with_database(async |database| {
        let mut writer = database.writer(0).await;
        let events = (0..300).map(|n| event("acme", "run", &format!("{n}")));
        writer
            .append(&database.pool, &batch(0, events))
            .await
            .unwrap();
        // Reading a payload takes 5 ms, so a page of 250 more than a second.
        let role = format!("slow_{}", Uuid::new_v4().simple());
        let slow = format!(
            "CREATE ROLE {role};
             GRANT USAGE ON SCHEMA event_log TO {role};
             GRANT SELECT ON ALL TABLES IN SCHEMA event_log TO {role};
             CREATE POLICY all_of_it ON event_log.run TO {role} USING (true);
             CREATE POLICY all_of_it ON event_log.stream TO {role} USING (true);
             CREATE POLICY all_of_it ON event_log.dead_letter TO {role} USING (true);
             CREATE POLICY slow ON event_log.event TO {role} USING (
               current_query() NOT LIKE '%e.payload::text%' OR pg_sleep(0.005) IS NOT NULL)"
        );
        sqlx::raw_sql(AssertSqlSafe(slow))
            .execute(&database.pool)
            .await
            .unwrap();
        let options = database.options.clone();
        let options = options.options([("role", role.as_str()), ("statement_timeout", "1s")]);
        let found = verify(&options, 1, &Arc::new(Progress::default())).await;
        let drop = format!("DROP OWNED BY {role}; DROP ROLE {role}");
        sqlx::raw_sql(AssertSqlSafe(drop))
            .execute(&database.pool)
            .await
            .unwrap();
        let found = found.unwrap();
        assert_eq!(lines(&found), [""; 0]);
        assert_eq!((found.runs, found.events), (1, 300));
    })
    .await;
}

#[tokio::test]
async fn what_was_applied_beyond_the_log_is_a_missing_tail() {
    with_database(async |database| {
        let mut writer = database.writer(0).await;
        let events = ["a", "b"].map(|step| event("acme", "run", step));
        writer.append(&database.pool, &batch(0, events)).await.unwrap();
        let wrong = record(2, Ok(RunEvent { event_id: Uuid::nil(), ..event("acme", "run", "c") }));
        let again = record(3, Ok(RunEvent { event_id: Uuid::nil(), ..event("acme", "empty", "c") }));
        let refused = Batch { start: 2, end: 4, skipped: 0, records: vec![wrong, again] };
        writer.append(&database.pool, &refused).await.unwrap();
        let applied = [("run", 3), ("run", 7), ("run", 4), ("empty", 1), ("gone", 2)];
        let applied = applied.map(|(run_id, run_seq)| Applied {
            tenant_id: "acme".to_owned(),
            run_id: run_id.to_owned(),
            run_seq,
        });
        let mut connection = database.pool.acquire().await.unwrap();
        let findings = beyond(&mut connection, &applied).await.unwrap();
        let lines: BTreeSet<String> = findings
            .by_kind()
            .flat_map(|(_, _, first)| first)
            .map(ToString::to_string)
            .collect();
        let expected = [
            r#"tenant "acme" run "empty": runSeq 1 is missing at the end: the read model has applied runSeq 1, and the log has no event of the run"#,
            r#"tenant "acme" run "gone": runSeq 1 to 2 are missing at the end: the read model has applied runSeq 2, and the log does not have the run"#,
            r#"tenant "acme" run "run": runSeq 4 is missing at the end: the read model has applied runSeq 4, and the log ends at 3"#,
            r#"tenant "acme" run "run": runSeq 4 to 7 are missing at the end: the read model has applied runSeq 7, and the log ends at 3"#,
        ];
        assert_eq!(lines, expected.map(str::to_owned).into());
    })
    .await;
}
