//! Errors: what goes on, what waits, and who is told.

use std::sync::Arc;

use event_log::read::StreamEvent;
use runlog_projectors::projection::{ApplyFuture, Effects, Projection};
use serde_json::json;
use sqlx::PgConnection;

use crate::support::{Database, Log, Running, Settings, project, run, settings, step, until};
use crate::whole_fold::assert_equals_whole_fold;

#[tokio::test]
async fn a_run_that_cannot_be_applied_is_parked_and_the_others_go_on_until_it_is_released() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let (bad, good) = (log.stream(0, 1, 0).await, log.stream(1, 1, 0).await);
    for n in 0..20 {
        log.append(bad, &format!("fine-{n}"), run("RunStarted"))
            .await;
    }
    // A rule of the read model that the fold knows nothing of: a bug, as far as this row goes.
    database
        .execute("ALTER TABLE run_status_1.run_current ADD CONSTRAINT bug CHECK (run_id <> 'poison' OR last_event_seq < 2)")
        .await;
    log.append(bad, "poison", run("RunQueued")).await;
    log.append(bad, "poison", run("RunStarted")).await;
    log.append(bad, "behind", run("RunStarted")).await;
    log.append(good, "other", run("RunStarted")).await;
    // The same run through another stream is parked with it.
    log.append(good, "poison", run("RunPaused")).await;
    let running = Running::start(&database, "one", settings());
    database.caught_up().await;
    let parked = "SELECT count(*) FROM read_model.parked_run WHERE tenant_id = 'acme' AND run_id = 'poison'
                  AND projection = 'run_status' AND version = 1 AND run_seq = 2 AND error LIKE '%bug%'
                  AND released_at IS NULL";
    assert_eq!(database.number(parked).await, 1);
    let there = "SELECT count(*) FROM read_model.run_current WHERE run_id IN ('behind', 'other')";
    assert_eq!(database.number(there).await, 2);
    let count = running
        .metrics
        .parked_runs
        .with_label_values(&["run_status"]);
    until("the metric counts it", || count.get() == 1).await;
    until("the process is ready", || running.health.is_ready()).await;

    // What comes after it waits with it; a release without a repair changes nothing.
    log.append(bad, "poison", run("RunResumed")).await;
    let release =
        "UPDATE read_model.parked_run SET released_at = clock_timestamp(), error = 'asked again'";
    database.execute(release).await;
    database
        .holds("SELECT error LIKE '%bug%' AND released_at IS NULL FROM read_model.parked_run")
        .await;
    database.caught_up().await;
    let untouched = "SELECT last_event_seq FROM read_model.run_current WHERE run_id = 'poison'";
    assert_eq!(database.number(untouched).await, 1);

    database
        .execute("ALTER TABLE run_status_1.run_current DROP CONSTRAINT bug")
        .await;
    database.execute(release).await;
    database
        .holds("SELECT count(*) = 0 FROM read_model.parked_run")
        .await;
    until("the metric forgets it", || count.get() == 0).await;
    log.append(good, "poison", run("RunCompleted")).await;
    database.caught_up().await;
    assert_equals_whole_fold(&database, "after the repair").await;
    running.stop().await;
}

#[tokio::test]
async fn connections_that_die_again_and_again_lose_nothing() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let streams = [log.stream(0, 1, 0).await, log.stream(1, 1, 0).await];
    let running = Running::start(
        &database,
        "one",
        Settings {
            batch_events: 4,
            ..settings()
        },
    );
    for n in 0..200_usize {
        let event_type = ["StepStarted", "StepCompleted"][n / 8 % 2];
        let step_id = format!("step-{}", n / 16);
        log.append(
            streams[n % 2],
            &format!("run-{}", n % 8),
            step(event_type, &step_id, 1),
        )
        .await;
        if n % 20 == 0 {
            database
                .execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name = 'runner'",
                )
                .await;
        }
    }
    database.caught_up().await;
    until("the process is ready again", || running.health.is_ready()).await;
    assert_equals_whole_fold(&database, "after the kills").await;
    let mismatches = running
        .metrics
        .ledger_mismatches
        .with_label_values(&["run_status"])
        .get();
    assert_eq!(mismatches, 0);
    running.stop().await;
}

async fn assert_noticed(database: &Database, mut log: Log<'_>, stream: i64) {
    log.append(stream, "r", run("RunPaused")).await;
    log.append(stream, "s", run("RunStarted")).await;
    let running = Running::start(database, "one", settings());
    let mismatches = running
        .metrics
        .ledger_mismatches
        .with_label_values(&["run_status"]);
    until("the mismatch is counted", || mismatches.get() > 0).await;
    running.stop().await;
}

/// One event is applied, and counted without a mismatch.
async fn one_applied<'a>(database: &'a Database) -> (Log<'a>, i64) {
    let mut log = Log::new(database);
    let stream = log.stream(0, 1, 0).await;
    log.append(stream, "r", run("RunStarted")).await;
    let metrics = project(database, 10).await;
    let mismatches = metrics.ledger_mismatches.with_label_values(&["run_status"]);
    assert_eq!(mismatches.get(), 0);
    (log, stream)
}

#[tokio::test]
async fn events_that_were_skipped_are_noticed_at_the_head() {
    let database = Database::new().await;
    let (log, stream) = one_applied(&database).await;
    database
        .execute("UPDATE read_model.projection_checkpoint SET next_offset = 2")
        .await;
    assert_noticed(&database, log, stream).await;
}

#[tokio::test]
async fn events_that_were_counted_twice_are_noticed_at_the_head() {
    let database = Database::new().await;
    let (log, stream) = one_applied(&database).await;
    database
        .execute("UPDATE read_model.projection_checkpoint SET next_offset = 0")
        .await;
    assert_noticed(&database, log, stream).await;
}

#[tokio::test]
async fn a_login_that_may_not_write_ends_the_process_with_a_message() {
    let database = Database::new().await;
    let log = Log::new(&database);
    log.stream(0, 1, 0).await;
    database
        .execute("ALTER TABLE read_model.projection_checkpoint RENAME TO gone")
        .await;
    let running = Running::start(&database, "one", settings());
    let error = running.ended().await.unwrap_err();
    assert!(error.to_string().contains("runlog migrate"), "{error}");
}

/// Remembers the bytes of each batch.
#[derive(Default)]
struct Scales(std::sync::Mutex<Vec<usize>>);

impl Projection for Scales {
    fn name(&self) -> &'static str {
        "scales"
    }

    fn apply<'a>(&'a self, _: &'a mut PgConnection, events: &'a [StreamEvent]) -> ApplyFuture<'a> {
        let size = |event: &StreamEvent| {
            serde_json::to_vec(&event.logged.event.payload)
                .unwrap()
                .len()
        };
        self.0.lock().unwrap().push(events.iter().map(size).sum());
        Box::pin(std::future::ready(Ok(Effects::default())))
    }
}

#[tokio::test]
async fn large_events_are_read_in_batches_of_bounded_size() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    for _ in 0..24 {
        // Hardly compressible.
        let text: String = (0..20_000)
            .map(|_| uuid::Uuid::new_v4().simple().to_string())
            .collect();
        log.append(stream, "r", run("Note").payload(json!({ "text": text })))
            .await;
    }
    let scales = Arc::new(Scales::default());
    database.add_projection("scales").await;
    let running = Running::start_with(&database, "one", settings(), scales.clone());
    database.caught_up().await;
    running.stop().await;
    let batches = scales.0.lock().unwrap();
    assert_eq!(batches.iter().sum::<usize>() / 640_000, 24);
    // 8 MiB in memory, where each payload counts four times; the last one may go beyond.
    assert!(batches.iter().all(|bytes| *bytes < 3 << 20), "{batches:?}");
}

#[tokio::test]
async fn events_that_storage_compresses_well_do_not_fill_the_memory() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    let text = "x".repeat(1 << 20);
    for _ in 0..100 {
        log.append(stream, "r", run("Note").payload(json!({ "text": text })))
            .await;
    }
    let stored = "SELECT sum(pg_column_size(payload))::bigint FROM event_log.event";
    assert!(database.number(stored).await < 2 << 20);
    let scales = Arc::new(Scales::default());
    database.add_projection("scales").await;
    let running = Running::start_with(&database, "one", settings(), scales.clone());
    database.caught_up().await;
    running.stop().await;
    let batches = scales.0.lock().unwrap();
    assert_eq!(batches.iter().sum::<usize>() >> 20, 100);
    assert!(batches.iter().all(|bytes| *bytes < 4 << 20), "{batches:?}");
}
