//! What a seal covers, and when it is made.

use std::collections::BTreeSet;
use std::time::Duration;

use event_log::fault::sqlstate;
use event_log::seal::{self, DayHeads, Progress, SealError};
use run_events::Digest;
use run_events::seal::{Head, Seal, merkle};
use sqlx::{Connection, PgConnection};

use crate::support::database::{Database, WAITING_FOR_A_LOCK, pool, with_database};
use crate::{DAYS, Log, day, heads, log, run, seal_days, tamper};

/// (run, runSeq, events) of each head of a day.
async fn shape(database: &Database, heads: &DayHeads) -> BTreeSet<(String, i64, u64)> {
    let mut shape = BTreeSet::new();
    for head in &heads.heads {
        let run: String = sqlx::query_scalar("SELECT run_id FROM event_log.run WHERE run_no = $1")
            .bind(head.run_no)
            .fetch_one(&database.pool)
            .await
            .unwrap();
        shape.insert((run, head.run_seq, head.events));
    }
    shape
}

#[tokio::test]
async fn a_day_has_the_highest_event_of_each_of_its_runs_wherever_it_came_through() {
    with_database(async |database| {
        log(&database).await;
        let expected: [&[(&str, i64, u64)]; 4] = [
            &[("moved", 3, 2), ("target", 2, 2)],
            &[
                ("gone", 1, 1),
                ("moved", 2, 1),
                ("other", 1, 1),
                ("target", 4, 2),
            ],
            &[],
            &[("other", 2, 1), ("target", 5, 1)],
        ];
        for (of, expected) in DAYS.iter().zip(expected) {
            let expected = expected
                .iter()
                .map(|(run, seq, events)| ((*run).to_owned(), *seq, *events));
            let heads = heads(&database, of).await;
            assert_eq!(shape(&database, &heads).await, expected.collect(), "{of}");
            assert!(heads.heads.is_sorted_by_key(|head| head.leaf.0));
        }
        let mut connection = database.pool.acquire().await.unwrap();
        assert_eq!(
            seal::first_day(&mut connection).await.unwrap(),
            Some(day(DAYS[0]))
        );
        // The leaf is that of the event, and the seal that of the leaves.
        let moved = heads(&database, DAYS[1]).await;
        let (run_no, chain): (i64, Vec<u8>) = sqlx::query_as(
            "SELECT run_no, chain_digest FROM event_log.event JOIN event_log.run USING (run_no)
             WHERE run_id = 'moved' AND run_seq = 2",
        )
        .fetch_one(&database.pool)
        .await
        .unwrap();
        let chain = Digest(chain.try_into().unwrap());
        let leaf = Head {
            tenant_id: "acme",
            run_id: "moved",
            run_seq: 2,
            events: 1,
            chain,
        }
        .leaf();
        let of_run = moved
            .heads
            .iter()
            .find(|head| head.run_no == run_no)
            .unwrap();
        assert_eq!(of_run.leaf, leaf);
        let leaves: Vec<Digest> = moved.heads.iter().map(|head| head.leaf).collect();
        let seal = moved.seal(Seal::FIRST);
        assert_eq!(
            (seal.runs, seal.events, seal.root),
            (4, 5, merkle::root(&leaves))
        );
    })
    .await;
}

#[tokio::test]
async fn a_later_stream_s_lower_event_of_the_same_day_is_not_the_head() {
    with_database(async |database| {
        let mut log = Log {
            database: &database,
            next: [0, 0],
        };
        log.append(0, "acme", "crossed", 1, "2001-01-05 01:00:00")
            .await;
        log.append(1, "acme", "crossed", 2, "2001-01-05 03:00:00")
            .await;
        log.append(0, "acme", "crossed", 3, "2001-01-05 02:00:00")
            .await;
        let heads = heads(&database, "2001-01-05").await;
        let expected = BTreeSet::from([("crossed".to_owned(), 3, 3)]);
        assert_eq!(shape(&database, &heads).await, expected);
    })
    .await;
}

#[tokio::test]
async fn days_are_sealed_one_after_the_other_without_a_day_left_out() {
    with_database(async |database| {
        log(&database).await;
        let sealed = seal_days(&database, &DAYS).await;
        assert_eq!(sealed[2].runs, 0);
        let mut connection = database.pool.acquire().await.unwrap();
        let stored = seal::seals(&mut connection, None).await.unwrap();
        let seals: Vec<Seal> = stored.iter().map(|stored| stored.written.seal).collect();
        assert_eq!(seals, sealed);
        assert_eq!(seal::chain(&stored), []);
        for seal in &seals {
            let findings = seal::day(&mut connection, seal, &Progress::default()).await.unwrap();
            assert_eq!(findings, []);
        }
        let audited: Vec<(String, String, String)> = sqlx::query_as(
            "SELECT operator, subject, detail->>'digest' FROM event_log.audit WHERE action = 'audit.seal' ORDER BY audit_id",
        )
        .fetch_all(&database.pool)
        .await
        .unwrap();
        let expected = seals.iter().map(|seal| ("a test".to_owned(), seal.day.to_string(), seal.digest().to_string()));
        assert_eq!(audited, expected.collect::<Vec<_>>());

        // Another one of a day, one that leaves a day out, and one that follows on another seal.
        let last = sealed[3].digest();
        for (of, previous) in [("2001-01-04", last), ("2001-01-06", last), ("2001-01-05", sealed[2].digest())] {
            let heads = heads(&database, of).await;
            let refused = seal::store(&database.pool, &heads, &heads.seal(previous), "a test").await;
            assert!(matches!(refused, Err(SealError::Meanwhile { .. })), "{of}: {refused:?}");
        }
        assert_eq!(database.number("SELECT count(*) FROM event_log.seal").await, 4);
        assert_eq!(database.number("SELECT count(*) FROM event_log.audit").await, 4);
        seal_days(&database, &["2001-01-05"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_damaged_run_is_not_sealed() {
    with_database(async |database| {
        log(&database).await;
        tamper(
            &database,
            "DELETE FROM event_log.run WHERE run_id = 'target'",
        )
        .await;
        let heads = heads(&database, DAYS[0]).await;
        let refused = seal::store(&database.pool, &heads, &heads.seal(Seal::FIRST), "a test").await;
        assert!(
            matches!(refused, Err(SealError::Damaged { .. })),
            "{refused:?}"
        );
        assert_eq!(
            database.number("SELECT count(*) FROM event_log.seal").await,
            0
        );
    })
    .await;
}

#[tokio::test]
async fn a_day_that_is_not_over_is_not_sealed_and_it_is_said_when_it_can_be() {
    with_database(async |database| {
        let mut connection = database.pool.acquire().await.unwrap();
        assert_eq!(seal::first_day(&mut connection).await.unwrap(), None);
        let last = seal::last_day(&mut connection).await.unwrap();
        seal::ended(&mut connection, last, Duration::from_secs(1))
            .await
            .unwrap();
        // Whatever the clock says while this runs: the day after tomorrow is not over.
        let later = last + chrono::Days::new(3);
        let refused = seal::ended(&mut connection, later, Duration::from_secs(1)).await;
        let expected = format!(
            "{later} can be sealed from {}T00:10:00Z on",
            later + chrono::Days::new(1)
        );
        assert_eq!(refused.unwrap_err().to_string(), expected);
        // Nor does the database itself take it.
        let heads = heads(&database, &later.to_string()).await;
        let refused = seal::store(&database.pool, &heads, &heads.seal(Seal::FIRST), "a test").await;
        assert!(
            matches!(refused, Err(SealError::Meanwhile { .. })),
            "{refused:?}"
        );
    })
    .await;
}

/// A batch that began on the first day, and has inserted an event of it.
async fn open_batch(database: &Database) -> PgConnection {
    let mut batch = PgConnection::connect_with(&database.options).await.unwrap();
    let statements = "BEGIN;
        SELECT 1 FROM event_log.stream WHERE partition = 0 FOR UPDATE;
        INSERT INTO event_log.event SELECT run_no, 3, stream_id, 100, emitted_at, '2001-01-01 23:59:59.999999Z'::timestamptz,
          gen_random_uuid(), 1, 1, sha256('x'), content_digest, sha256('y'), tenant_id, event_type, project_id,
          environment_id, plan_id, plan_version, step_id, payload
        FROM event_log.event JOIN event_log.run r USING (run_no, tenant_id) WHERE run_id = 'target' AND run_seq = 2";
    sqlx::raw_sql(statements).execute(&mut batch).await.unwrap();
    batch
}

const COMMIT: &str = "UPDATE event_log.stream SET next_offset = 101, appended = appended + 1,
    skipped = 101 - appended - 1 - duplicates - dead_lettered WHERE partition = 0; COMMIT";

#[tokio::test]
async fn a_batch_that_began_before_the_end_of_the_day_is_waited_for_and_sealed() {
    with_database(async |database| {
        let mut first = Log {
            database: &database,
            next: [0, 0],
        };
        first.append(0, "acme", "target", 1, "2001-01-01 12:00:00").await;
        first.append(0, "acme", "target", 2, "2001-01-01 12:00:01").await;
        let mut batch = open_batch(&database).await;
        let mut connection = database.pool.acquire().await.unwrap();
        let refused = seal::ended(&mut connection, day(DAYS[0]), Duration::from_millis(200)).await;
        assert_eq!(
            refused.unwrap_err().to_string(),
            "a batch of t/0 is still being appended, and it may belong to a day that is to be sealed"
        );
        let sealing = tokio::spawn({
            let database = database.clone();
            async move { seal_days(&database, &DAYS[..1]).await }
        });
        database.wait_until(true, WAITING_FOR_A_LOCK).await;
        sqlx::raw_sql(COMMIT).execute(&mut batch).await.unwrap();
        let sealed = sealing.await.unwrap();
        assert_eq!((sealed[0].runs, sealed[0].events), (1, 3));
        let findings = seal::day(&mut connection, &sealed[0], &Progress::default()).await.unwrap();
        assert_eq!(findings, []);
        // Nothing is held: the next batch goes on.
        database.run("BEGIN; SET LOCAL lock_timeout = '1s'; SELECT 1 FROM event_log.stream FOR UPDATE; ROLLBACK").await.unwrap();
    })
    .await;
}

/// The SQLSTATE that a statement is refused with.
async fn refusal(database: &Database, settings: &'static str, statement: &'static str) -> String {
    let mut connection = PgConnection::connect_with(&database.options).await.unwrap();
    sqlx::raw_sql(settings)
        .execute(&mut connection)
        .await
        .unwrap();
    match sqlx::raw_sql(statement).execute(&mut connection).await {
        Ok(_) => panic!("{statement} was not refused ({settings})"),
        Err(error) => sqlstate(&error).unwrap(),
    }
}

#[tokio::test]
async fn seals_are_append_only_and_leaves_come_with_their_seal() {
    with_database(async |database| {
        // A day without events: the helper that makes some of another day would leave the triggers off for replication.
        seal_days(&database, &DAYS[..1]).await;
        for settings in ["SELECT 1", "SET session_replication_role = replica"] {
            for statement in [
                "UPDATE event_log.seal SET events = events",
                "DELETE FROM event_log.seal",
                "TRUNCATE event_log.seal",
                "UPDATE event_log.sealed_head SET leaf = leaf",
                "DELETE FROM event_log.sealed_head",
                "TRUNCATE event_log.sealed_head",
            ] {
                assert_eq!(
                    refusal(&database, settings, statement).await,
                    "42501",
                    "{statement}"
                );
            }
        }
        let leaf =
            "SELECT event_log.seal_heads('2001-01-01', '{1}', '{1}', '{1}', ARRAY[sha256('x')])";
        assert_eq!(refusal(&database, "SELECT 1", leaf).await, "55000");
    })
    .await;
}

#[tokio::test]
async fn operators_seal_and_nobody_else_does() {
    with_database(async |database| {
        log(&database).await;
        let as_role = |role: &'static str| Database {
            options: database.options.clone().options([("role", role)]),
            pool: database.pool.clone(),
        };
        let operator = as_role("runlog_operator");
        let operator = Database { pool: pool(&operator.options, 4).await, ..operator };
        let sealed = seal_days(&operator, &DAYS).await;
        let mut connection = operator.pool.acquire().await.unwrap();
        let findings = seal::day(&mut connection, &sealed[1], &Progress::default()).await.unwrap();
        assert_eq!(findings, []);
        event_log::seal::proof(&mut connection, "acme", "target", None).await.unwrap();
        drop(connection);
        operator.pool.close().await;

        const READ: [&str; 2] = ["SELECT FROM event_log.seal", "SELECT FROM event_log.sealed_head"];
        const WRITE: [&str; 4] = [
            "SELECT event_log.seal_day('2001-01-05', 0, 0, sha256(''), sha256(''), sha256(''), 1::smallint, 'x')",
            "SELECT event_log.seal_heads('2001-01-05', '{}', '{}', '{}', '{}')",
            "INSERT INTO event_log.seal (day) VALUES ('2001-01-05')",
            "INSERT INTO event_log.sealed_head (day) VALUES ('2001-01-05')",
        ];
        for role in ["runlog_ingest", "runlog_projector", "runlog_analyst"] {
            for statement in READ.into_iter().chain(WRITE) {
                assert_eq!(refusal(&as_role(role), "SELECT 1", statement).await, "42501", "{role}: {statement}");
            }
        }
        for statement in WRITE {
            assert_eq!(refusal(&as_role("runlog_backup"), "SELECT 1", statement).await, "42501", "{statement}");
        }
        for statement in &WRITE[2..] {
            assert_eq!(refusal(&as_role("runlog_operator"), "SELECT 1", statement).await, "42501", "{statement}");
        }
        run(&database, "SET ROLE runlog_backup; TABLE event_log.seal; TABLE event_log.sealed_head").await;
    })
    .await;
}
