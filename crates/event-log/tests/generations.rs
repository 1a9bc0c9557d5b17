//! Resume and rewind: the next generation of a partition, on a real PostgreSQL.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

use std::time::Duration;

use event_log::generation::{
    Generation, GenerationError, GenerationFilter, Opened, Operator, generations, resume, rewind,
};
use event_log::{AppendError, Claim, Halt, Outcome, StreamWriter, stream};
use run_events::{Reason, Rejection};
use serde_json::{Value, json};
use sqlx::Row;

use crate::support::database::{Database, WAITING_FOR_A_LOCK, with_database};
use crate::support::events::{batch, event, record};

mod support;

const BY: Operator<'_> = Operator {
    name: "ops@host",
    reason: "the brokers lost a disk",
};

async fn list(database: &Database, filter: GenerationFilter<'_>) -> Vec<Generation> {
    let mut connection = database.pool.acquire().await.unwrap();
    generations(&mut connection, filter).await.unwrap()
}

/// The open generation of t/0.
async fn open(database: &Database) -> Generation {
    let filter = GenerationFilter {
        topic: Some("t"),
        partition: Some(0),
        closed: false,
    };
    let mut open = list(database, filter).await;
    assert_eq!(open.len(), 1, "{open:?}");
    open.remove(0)
}

/// Appends events of one run at offsets 0, 1, 2 ... of t/0.
async fn append(database: &Database, steps: &[&str]) -> StreamWriter {
    let mut writer = database.writer(0).await;
    let events = steps.iter().map(|step| event("t", "run", step));
    writer
        .append(&database.pool, &batch(0, events))
        .await
        .unwrap();
    writer
}

async fn halt(database: &Database, claim: &Claim, code: &str) {
    let halted = stream::halt(&database.pool, claim, code, "for people").await;
    assert!(halted.unwrap());
}

async fn audit_rows(database: &Database) -> i64 {
    database
        .number("SELECT count(*) FROM event_log.audit")
        .await
}

fn is_changed(result: &Result<Opened, GenerationError>) -> bool {
    matches!(result, Err(GenerationError::Changed { .. }))
}

#[tokio::test]
async fn a_resume_closes_opens_and_audits_in_one_transaction() {
    with_database(|database| async move {
        let writer = append(&database, &["a", "b"]).await;
        database
            .run("UPDATE event_log.stream SET topic_id = gen_random_uuid()")
            .await
            .unwrap();
        halt(&database, writer.claim(), "expired").await;
        let shown = open(&database).await;
        let opened = resume(&database.pool, &shown, 10, BY).await.unwrap();
        assert_eq!(opened.generation, 2);

        let all = GenerationFilter {
            closed: true,
            ..GenerationFilter::default()
        };
        let rows = list(&database, all).await;
        let [old, new] = rows.as_slice() else {
            panic!("{rows:?}")
        };
        assert_eq!((old.generation, old.next_offset), (1, 2));
        assert!(old.closed_at.is_some());
        assert_eq!(old.halted.as_ref().unwrap().code, "expired", "history");
        let counts = [new.appended, new.duplicates, new.dead_lettered, new.skipped];
        assert_eq!((new.start_offset, new.next_offset, counts), (10, 10, [0; 4]));
        assert_eq!((&new.group_id, &new.owner), (&old.group_id, &None));
        assert_eq!((&new.halted, new.halted_at, new.closed_at), (&None, None, None));
        assert_eq!((old.gap, new.gap), (None, Some(8)));
        let rest = sqlx::query(
            "SELECT n.claim IS NULL AND n.topic_id IS NULL AND n.last_record_offset IS NULL
                    AND n.last_record_digest IS NULL AND n.last_persisted_at = o.last_persisted_at
                    AND o.last_record_offset = 1 AND o.topic_id IS NOT NULL AND a.xmin = n.xmin,
                    a.login = session_user, a.audit_id, a.operator, a.action, a.subject, a.reason, a.detail
             FROM event_log.stream o, event_log.stream n, event_log.audit a
             WHERE o.generation = 1 AND n.generation = 2",
        )
        .fetch_all(&database.pool)
        .await
        .unwrap();
        assert_eq!(rest.len(), 1);
        assert!(rest[0].get::<bool, _>(0) && rest[0].get::<bool, _>(1));
        assert_eq!(rest[0].get::<i64, _>(2), opened.audit_id);
        let texts = [3, 4, 5, 6].map(|at| rest[0].get::<String, _>(at));
        assert_eq!(texts, ["ops@host", "stream.resume", "t/0", "the brokers lost a disk"]);
        assert_eq!(
            rest[0].get::<Value, _>(7),
            json!({"closed_generation": 1, "opened_generation": 2, "next_offset": 2, "start_offset": 10,
                   "halted_code": "expired", "halted_reason": "for people"})
        );
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_audited_is_not_done() {
    with_database(|database| async move {
        let writer = append(&database, &["a"]).await;
        halt(&database, writer.claim(), "expired").await;
        let shown = open(&database).await;
        let endless = "x".repeat(2_000);
        let unaudited = Operator {
            reason: &endless,
            ..BY
        };
        let result = resume(&database.pool, &shown, 5, unaudited).await;
        assert!(
            matches!(result, Err(GenerationError::Database(_))),
            "{result:?}"
        );
        let result = rewind(&database.pool, &shown, 0, unaudited).await;
        assert!(
            matches!(result, Err(GenerationError::Database(_))),
            "{result:?}"
        );
        assert_eq!(open(&database).await, shown);
        assert_eq!(audit_rows(&database).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_partition_that_is_not_as_it_was_shown_is_left_alone() {
    with_database(|database| async move {
        let writer = append(&database, &["a", "b"]).await;
        let healthy = open(&database).await;
        halt(&database, writer.claim(), "expired").await;
        let shown = open(&database).await;
        // Shown healthy, and halted since; shown with another reason, or at another place.
        assert!(is_changed(&rewind(&database.pool, &healthy, 0, BY).await));
        let otherwise = |change: fn(&mut Generation)| {
            let mut shown = shown.clone();
            change(&mut shown);
            shown
        };
        for other in [
            otherwise(|shown| shown.halted.as_mut().unwrap().code = "recreated".to_owned()),
            otherwise(|shown| shown.generation = 2),
            otherwise(|shown| shown.next_offset = 3),
        ] {
            assert!(
                is_changed(&resume(&database.pool, &other, 5, BY).await),
                "{other:?}"
            );
            assert!(
                is_changed(&rewind(&database.pool, &other, 0, BY).await),
                "{other:?}"
            );
        }
        // A halted partition does not read on; one that is rewound may.
        let behind = otherwise(|shown| shown.next_offset = 1);
        let result = resume(&database.pool, &behind, 5, BY).await;
        assert!(is_changed(&result));
        let text = result.unwrap_err().to_string();
        for part in [
            "t/0",
            "offset 1 of generation 1",
            "offset 2 of generation 1",
            "expired",
        ] {
            assert!(text.contains(part), "{text} lacks {part}");
        }
        assert_eq!(audit_rows(&database).await, 0);
        assert_eq!(open(&database).await, shown);
        rewind(&database.pool, &behind, 0, BY).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn only_a_halted_partition_is_resumed_and_a_rewind_never_goes_forward() {
    with_database(|database| async move {
        append(&database, &["a", "b"]).await;
        let shown = open(&database).await;
        let result = resume(&database.pool, &shown, 2, BY).await;
        assert!(
            matches!(result, Err(GenerationError::NotHalted { .. })),
            "{result:?}"
        );
        let result = rewind(&database.pool, &shown, 3, BY).await;
        assert!(
            matches!(
                result,
                Err(GenerationError::Forward {
                    next_offset: 2,
                    start: 3,
                    ..
                })
            ),
            "{result:?}"
        );
        assert_eq!(open(&database).await, shown);
        assert_eq!(audit_rows(&database).await, 0);
    })
    .await;
}

#[tokio::test]
async fn the_writer_of_the_old_generation_is_fenced_and_the_next_claim_gets_the_new_one() {
    with_database(|database| async move {
        let mut old = append(&database, &["a", "b", "c"]).await;
        let shown = open(&database).await;
        rewind(&database.pool, &shown, 1, BY).await.unwrap();
        for start in [3, 1] {
            let late = batch(start, [event("t", "run", "d")]);
            let result = old.append(&database.pool, &late).await;
            assert!(matches!(result, Err(AppendError::Fenced)), "{result:?}");
        }
        assert!(
            !stream::halt(&database.pool, old.claim(), "panic", "late")
                .await
                .unwrap(),
            "nor does it halt the new one"
        );
        assert_eq!(
            database
                .number("SELECT count(*) FROM event_log.event")
                .await,
            3
        );
        let claim = database.claim(0).await;
        assert_eq!(
            (claim.generation, claim.next_offset, claim.halted),
            (2, 1, None)
        );
    })
    .await;
}

#[tokio::test]
async fn a_second_reading_makes_duplicates_and_appends_only_what_was_refused() {
    with_database(|database| async move {
        let events = ["a", "b", "c"].map(|step| event("t", "run", step));
        let mut first = batch(0, events.clone());
        let refusal = Rejection::new(Reason::TenantNotAllowed, "not yet");
        first.records[1] = record(1, Err(refusal));
        let mut writer = database.writer(0).await;
        writer.append(&database.pool, &first).await.unwrap();
        rewind(&database.pool, &open(&database).await, 0, BY)
            .await
            .unwrap();

        let mut writer = database.writer(0).await;
        let appended = writer
            .append(&database.pool, &batch(0, events))
            .await
            .unwrap();
        let [
            Outcome::Duplicate(a),
            Outcome::Appended { run_seq: 3 },
            Outcome::Duplicate(c),
        ] = appended.outcomes.as_slice()
        else {
            panic!("{:?}", appended.outcomes)
        };
        assert_eq!((a.run_seq, c.run_seq), (1, 2));
        let ledger = open(&database).await;
        assert_eq!(
            (ledger.appended, ledger.duplicates, ledger.gap),
            (1, 2, Some(-3))
        );
        assert_eq!(database.run_seqs("t", "run").await, [1, 3, 2]);
    })
    .await;
}

#[tokio::test]
async fn persisted_at_does_not_fall_from_one_generation_to_the_next() {
    with_database(|database| async move {
        append(&database, &["a"]).await;
        // The clock of the server that appended it was ahead: a failover can do that.
        database
            .run("UPDATE event_log.stream SET last_persisted_at = now() + interval '1 hour'")
            .await
            .unwrap();
        for start in [0, 0] {
            rewind(&database.pool, &open(&database).await, start, BY).await.unwrap();
        }
        let mut writer = database.writer(0).await;
        let batch = batch(0, [event("t", "run", "b")]);
        writer.append(&database.pool, &batch).await.unwrap();
        let fallen = "SELECT count(*) FROM event_log.run_events e, event_log.stream s
                      WHERE e.run_seq = 2 AND s.generation = 1 AND e.persisted_at < s.last_persisted_at";
        assert_eq!(database.number(fallen).await, 0);
        assert_eq!(database.run_seqs("t", "run").await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn of_two_rewinds_at_once_one_is_done_and_the_other_is_told() {
    with_database(|database| async move {
        append(&database, &["a", "b"]).await;
        let shown = open(&database).await;
        let mut held = database.pool.begin().await.unwrap();
        sqlx::query("SELECT FROM event_log.stream FOR UPDATE")
            .execute(&mut *held)
            .await
            .unwrap();
        let rewinds = [0, 1].map(|start| {
            let (pool, shown) = (database.pool.clone(), shown.clone());
            tokio::spawn(async move { rewind(&pool, &shown, start, BY).await })
        });
        let both_wait = "SELECT (SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock') / 2";
        database.wait_until(true, both_wait).await;
        held.commit().await.unwrap();
        let mut results = Vec::new();
        for rewind in rewinds {
            results.push(rewind.await.unwrap());
        }
        let done = results.iter().filter(|result| result.is_ok()).count();
        let told = results.iter().filter(|result| is_changed(result)).count();
        assert_eq!((done, told), (1, 1), "{results:?}");
        assert_eq!(open(&database).await.generation, 2);
        assert_eq!(audit_rows(&database).await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_rewind_waits_for_the_batch_that_is_being_committed() {
    with_database(|database| async move {
        append(&database, &["a", "b"]).await;
        let shown = open(&database).await;
        let mut held = database.pool.begin().await.unwrap();
        sqlx::query("UPDATE event_log.stream SET next_offset = 5, skipped = 3")
            .execute(&mut *held)
            .await
            .unwrap();
        let pool = database.pool.clone();
        let rewind = tokio::spawn(async move { rewind(&pool, &shown, 1, BY).await });
        database.wait_until(true, WAITING_FOR_A_LOCK).await;
        held.commit().await.unwrap();
        rewind.await.unwrap().unwrap();
        assert_eq!(open(&database).await.gap, Some(-4), "behind that batch");
    })
    .await;
}

#[tokio::test]
async fn a_row_that_stays_locked_is_not_waited_for_without_end() {
    with_database(|database| async move {
        append(&database, &["a"]).await;
        let shown = open(&database).await;
        let mut held = database.pool.begin().await.unwrap();
        sqlx::query("SELECT FROM event_log.stream FOR UPDATE")
            .execute(&mut *held)
            .await
            .unwrap();
        // A session without any limit of its own.
        let pool = sqlx::PgPool::connect_with(database.options.clone())
            .await
            .unwrap();
        let rewind = rewind(&pool, &shown, 0, BY);
        let result = tokio::time::timeout(Duration::from_secs(60), rewind).await;
        assert!(
            matches!(result, Ok(Err(GenerationError::Busy { .. }))),
            "{result:?}"
        );
        held.rollback().await.unwrap();
        assert_eq!(open(&database).await, shown);
    })
    .await;
}

#[tokio::test]
async fn a_partition_that_halts_again_keeps_since_when_and_an_older_versions_halt_is_a_halt() {
    with_database(|database| async move {
        let claim = database.claim(0).await;
        halt(&database, &claim, "expired").await;
        let first = open(&database).await;
        let claim = database.claim(0).await;
        halt(&database, &claim, "recreated").await;
        let second = open(&database).await;
        assert_eq!(second.halted_at, first.halted_at);
        assert!(second.halted_at.is_some());
        assert_eq!(second.halted.unwrap().code, "recreated");
        database
            .run("UPDATE event_log.stream SET halted_code = NULL, halted_at = NULL")
            .await
            .unwrap();
        let halted = open(&database).await.halted.unwrap();
        assert_eq!(
            (halted.code.as_str(), halted.reason.as_str()),
            (Halt::STORED, "for people")
        );
        let claim = database.claim(0).await;
        assert_eq!(claim.halted, Some(halted));
        // A database that went back may lack the generation.
        let asked = [claim.stream_id, claim.stream_id + 1];
        let waiting_no_longer = stream::no_longer_halted(&database.pool, &asked).await;
        assert_eq!(waiting_no_longer.unwrap(), [claim.stream_id + 1]);
    })
    .await;
}

#[tokio::test]
async fn generations_are_listed_by_topic_partition_and_state() {
    with_database(|database| async move {
        append(&database, &["a", "b"]).await;
        database.claim(1).await;
        rewind(&database.pool, &open(&database).await, 1, BY)
            .await
            .unwrap();
        let places = async |filter| {
            let rows = list(&database, filter).await;
            let place = |row: &Generation| (row.partition, row.generation, row.gap);
            rows.iter().map(place).collect::<Vec<_>>()
        };
        let all = GenerationFilter {
            closed: true,
            ..GenerationFilter::default()
        };
        assert_eq!(
            places(all).await,
            [(0, 1, None), (0, 2, Some(-1)), (1, 1, None)]
        );
        assert_eq!(
            places(GenerationFilter::default()).await,
            [(0, 2, Some(-1)), (1, 1, None)]
        );
        let one = GenerationFilter {
            partition: Some(1),
            ..GenerationFilter::default()
        };
        assert_eq!(places(one).await, [(1, 1, None)]);
        let elsewhere = GenerationFilter {
            topic: Some("other"),
            ..all
        };
        assert_eq!(places(elsewhere).await, []);
    })
    .await;
}
