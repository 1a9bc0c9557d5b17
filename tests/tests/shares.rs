//! One partition's poison takes no more than its share: not of the writers' time, and not of the
//! database's room for dead letters.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use anyhow::ensure;
use runlog_tests::generator::{Intent, Record};
use runlog_tests::{Pipeline, Process, wait_until};
use sha2::{Digest, Sha256};
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(120);
/// The partition with the poison, and one without.
const POISONED: i32 = 0;
const OTHER: i32 = 1;

/// A valid event of this type and tenant; each has a key of its own.
fn event(partition: i32, event_type: &str, tenant: &str) -> Record {
    let id = Uuid::new_v4();
    let key = hex::encode(Sha256::digest(id));
    let value = format!(
        r#"{{"eventId":"{id}","eventType":"{event_type}","tenantId":"{tenant}","projectId":"p","environmentId":"e",
        "runId":"run-{partition}","planId":"plan","planVersion":"v1","engineAttemptId":1,"logicalAttemptId":1,
        "idempotencyKey":"{key}","emittedAt":"2026-01-01T00:00:00Z"}}"#
    );
    raw(partition, value)
}

fn raw(partition: i32, value: impl Into<Vec<u8>>) -> Record {
    Record {
        partition,
        hash: 0,
        key: Some(format!("run-{partition}").into_bytes()),
        value: Some(value.into()),
        content_type: None,
        intent: Intent::Append,
    }
}

fn many(number: usize, partition: i32, event_type: &str) -> Vec<Record> {
    let one = |_| event(partition, event_type, "acme");
    (0..number).map(one).collect()
}

/// Makes the database refuse events of the type `Poison`, each after it has thought about it for a
/// while, so that they cost many times what others do, on any machine.
async fn refuse_poison(pipeline: &Pipeline) {
    let trigger = "CREATE FUNCTION refuse_poison() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           PERFORM pg_sleep(0.1);
           RAISE EXCEPTION 'poison' USING ERRCODE = '22023';
         END $$;
         CREATE TRIGGER refuse_poison BEFORE INSERT ON event_log.event
           FOR EACH ROW WHEN (NEW.event_type = 'Poison') EXECUTE FUNCTION refuse_poison()";
    sqlx::raw_sql(trigger)
        .execute(&pipeline.database.pool)
        .await
        .unwrap();
}

fn ingest(pipeline: &Pipeline, settings: &[(&str, &str)]) -> Process {
    let mut program = pipeline.program("runlog-ingest");
    program.envs(settings.iter().copied());
    Process::spawn(&pipeline.environment, "runlog-ingest", program).unwrap()
}

async fn stored(pipeline: &Pipeline, partition: i32) -> i64 {
    let query = "SELECT coalesce(max(next_offset), 0) FROM event_log.streams WHERE partition = $1";
    sqlx::query_scalar(query)
        .bind(partition)
        .fetch_one(&pipeline.database.pool)
        .await
        .unwrap()
}

async fn wait_stored(pipeline: &Pipeline, partition: i32, at_least: i64) {
    wait_until("a stored offset", SOON, async || {
        let stored = stored(pipeline, partition).await;
        ensure!(stored >= at_least, "{partition}: {stored} of {at_least}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_poison_lets_others_write_before_it_is_done() {
    let pipeline = Pipeline::fresh(2).await.unwrap();
    refuse_poison(&pipeline).await;
    // One batch, of a minute or more.
    let poison = many(400, POISONED, "Poison");
    pipeline.topic.send(&poison).await.unwrap();
    let ingest = ingest(
        &pipeline,
        &[
            ("RUNLOG_INGEST__WRITERS", "1"),
            ("RUNLOG_INGEST__BATCH__MAX_EVENTS", "400"),
        ],
    );
    // It is under way, and the one writer has it.
    wait_stored(&pipeline, POISONED, 1).await;
    pipeline
        .topic
        .send(&many(40, OTHER, "RunStarted"))
        .await
        .unwrap();
    wait_stored(&pipeline, OTHER, 40).await;
    let poison = stored(&pipeline, POISONED).await;
    assert!(poison < 400, "the whole batch was written before");
    // What is committed of it is in the ledger, record by record.
    let (letters, booked): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM event_log.dead_letters WHERE reason = 'unstorable'),
                (SELECT dead_lettered FROM event_log.streams WHERE partition = 0)",
    )
    .fetch_one(&pipeline.database.pool)
    .await
    .unwrap();
    assert_eq!(letters, booked);
    // In the middle of it, too, it ends in order and goes on where it was.
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
    sqlx::raw_sql("DROP TRIGGER refuse_poison ON event_log.event")
        .execute(&pipeline.database.pool)
        .await
        .unwrap();
    let ended_at = stored(&pipeline, POISONED).await;
    let ingest = pipeline.ingest().unwrap();
    pipeline.wait_ingested(SOON).await.unwrap();
    let (letters, events): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM event_log.dead_letters),
                (SELECT count(*) FROM event_log.run_events WHERE partition = 0)",
    )
    .fetch_one(&pipeline.database.pool)
    .await
    .unwrap();
    assert_eq!((letters, events), (ended_at, 400 - ended_at));
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_has_its_share_of_the_writers_time_and_not_of_their_turns() {
    let pipeline = Pipeline::fresh(2).await.unwrap();
    refuse_poison(&pipeline).await;
    // Both have batches waiting all the time.
    let (batches, events) = (60, 10);
    let poison = many(batches * events, POISONED, "Poison");
    pipeline.topic.send(&poison).await.unwrap();
    let good = many(batches * events, OTHER, "RunStarted");
    pipeline.topic.send(&good).await.unwrap();
    let ingest = ingest(
        &pipeline,
        &[
            ("RUNLOG_INGEST__WRITERS", "1"),
            ("RUNLOG_INGEST__BATCH__MAX_EVENTS", "10"),
        ],
    );
    wait_stored(&pipeline, OTHER, (batches * events) as i64).await;
    // Each transaction has a time of its own, and so each turn. Those of the poison last 0.2 s at least,
    // by the database's own delay, and the others not half of that on the slowest machine.
    let (of_poison, of_good): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(DISTINCT received_at) FROM event_log.dead_letters),
                (SELECT count(DISTINCT persisted_at) FROM event_log.run_events)",
    )
    .fetch_one(&pipeline.database.pool)
    .await
    .unwrap();
    eprintln!("turns: {of_poison} of poison, {of_good} of good records");
    assert!(of_poison > 0, "the poison has its share, too");
    assert!(of_good >= batches as i64, "{of_good}");
    assert!(
        2 * of_poison <= of_good,
        "{of_poison} turns of poison, {of_good} of others"
    );
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
}

/// Reason, tenant, run, whether it was cut, bytes kept and bytes of the whole value, and whether the digest
/// is that of what is kept.
type Letter = (String, Option<String>, Option<String>, bool, i32, i64, bool);

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_foreign_tenants_count_for_their_topic_and_belong_to_nobody() {
    let pipeline = Pipeline::fresh(2).await.unwrap();
    let topics = format!("[{{name=\"{}\",tenants=[\"acme\"]}}]", pipeline.topic.name);
    let mut ingest = ingest(
        &pipeline,
        &[
            ("RUNLOG_INGEST__TOPICS", topics.as_str()),
            ("RUNLOG_INGEST__DEAD_LETTERS__MAX_BYTES_PER_TENANT", "10000"),
            ("RUNLOG_INGEST__BATCH__LINGER", "0ms"),
        ],
    );
    ingest.wait_ready().await.unwrap();
    let padded = |partition, tenant: &str, event_type: &str| {
        let record = event(partition, event_type, tenant);
        let mut value = record.value.unwrap();
        value.resize(4_000, b' ');
        raw(partition, value)
    };
    let sent = [
        // The topic's 10,000 bytes: two letters fit, one of each kind.
        padded(0, "globex", "RunStarted"),
        raw(0, vec![b'x'; 4_000]),
        // Beyond it, however the producer goes about it.
        padded(1, "initech", "RunStarted"),
        raw(1, vec![b'y'; 4_000]),
        padded(0, "globex", ""),
        // The tenant that the topic speaks for has its own.
        padded(1, "acme", ""),
        event(1, "RunStarted", "acme"),
    ];
    for record in sent {
        // One after the other, so that each finds what the others take.
        pipeline.topic.send(&[record]).await.unwrap();
        pipeline.wait_ingested(SOON).await.unwrap();
    }
    let rows: Vec<Letter> = sqlx::query_as(
        "SELECT reason, tenant_id, run_id, truncated, length(value), value_bytes,
                value_digest = sha256(value) FROM event_log.dead_letters ORDER BY dead_letter_id",
    )
    .fetch_all(&pipeline.database.pool)
    .await
    .unwrap();
    let letter = |reason: &str, tenant: Option<&str>, cut: bool| {
        let run = tenant.map(|_| "run-1".to_owned());
        let length = if cut { 1_024 } else { 4_000 };
        let tenant = tenant.map(str::to_owned);
        (reason.to_owned(), tenant, run, cut, length, 4_000, !cut)
    };
    let expected = [
        letter("tenant_not_allowed", None, false),
        letter("invalid_json", None, false),
        letter("tenant_not_allowed", None, true),
        letter("invalid_json", None, true),
        letter("invalid_event", None, true),
        letter("invalid_event", Some("acme"), false),
    ];
    assert_eq!(rows, expected);
    let metrics = ingest.get("/metrics").await.unwrap();
    let name = &pipeline.topic.name;
    let truncated = format!("runlog_dead_letters_truncated_total{{topic=\"{name}\"}} 3\n");
    assert!(metrics.contains(&truncated), "{metrics}");
    let kept = 3 * (4_000 + 5) + 3 * (1_024 + 5);
    let kept = format!("runlog_dead_letter_bytes{{topic=\"{name}\"}} {kept}\n");
    wait_until("the bytes to be counted", SOON, async || {
        let metrics = ingest.get("/metrics").await?;
        ensure!(metrics.contains(&kept), "{metrics}");
        Ok(())
    })
    .await
    .unwrap();
    let log = ingest.written().unwrap();
    let said = log.lines().filter(|line| line.contains("first KiB"));
    // Once for each partition, not for each letter.
    assert_eq!(said.count(), 2, "{log}");
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
}
