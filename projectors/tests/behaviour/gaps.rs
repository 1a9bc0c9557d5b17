//! Runs whose events come through two streams: each projected once, in order, whoever comes first.
//! The interleavings are made by hand, transaction by transaction.

use event_log::read::{Payloads, StreamEvent, stream_events};
use runlog_projectors::RunStatusProjection;
use runlog_projectors::projection::{Projection, ProjectionError};
use sqlx::{PgConnection, PgPool};

use crate::support::{Database, Log, Running, Settings, page, run, settings, step};
use crate::tables::as_written;
use crate::whole_fold::assert_equals_whole_fold;

async fn all_events(connection: &mut PgConnection, stream: i64) -> Vec<StreamEvent> {
    stream_events(connection, stream, 0, i64::MAX, page(10_000), Payloads::All)
        .await
        .unwrap()
}

/// Applies a whole stream in a transaction of its own, as the runner does: again where another worker was
/// first at a new run. Returns how often that was so.
async fn apply_in_time(pool: &PgPool, stream: i64) -> u32 {
    for met in 0.. {
        let mut transaction = pool.begin().await.unwrap();
        let events = all_events(&mut transaction, stream).await;
        match RunStatusProjection.apply(&mut transaction, &events).await {
            Err(ProjectionError::Met) => transaction.rollback().await.unwrap(),
            applied => {
                applied.unwrap();
                transaction.commit().await.unwrap();
                return met;
            }
        }
    }
    unreachable!("a worker meets others for ever")
}

/// Applies a whole stream in a transaction of its own.
async fn apply_stream(database: &Database, stream: i64) -> Result<(), ProjectionError> {
    let mut transaction = database.pool.begin().await.unwrap();
    let events = all_events(&mut transaction, stream).await;
    RunStatusProjection.apply(&mut transaction, &events).await?;
    transaction.commit().await.unwrap();
    Ok(())
}

#[tokio::test]
async fn the_later_stream_first_fills_the_gap_from_the_log_and_the_earlier_one_changes_nothing() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let (first, second) = (log.stream(0, 1, 0).await, log.stream(1, 1, 0).await);
    log.append(first, "r", run("RunQueued")).await;
    log.append(first, "r", run("RunStarted")).await;
    log.append(first, "r", step("StepStarted", "a", 1)).await;
    log.append(second, "r", step("StepCompleted", "a", 1)).await;
    log.append(first, "r", step("StepStarted", "a", 2)).await;
    log.append(second, "r", run("RunCompleted")).await;
    apply_stream(&database, second).await.unwrap();
    assert_equals_whole_fold(&database, "after the later stream").await;
    let rows = as_written(&database, "run_status_1").await;
    apply_stream(&database, first).await.unwrap();
    assert_eq!(as_written(&database, "run_status_1").await, rows);
}

#[tokio::test]
async fn a_gap_in_a_known_run_finds_the_attempts_that_it_goes_on_with() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let (first, second) = (log.stream(0, 1, 0).await, log.stream(1, 1, 0).await);
    log.append(first, "r", step("StepStarted", "a", 1)).await;
    apply_stream(&database, first).await.unwrap();
    log.append(first, "r", step("StepCompleted", "a", 1)).await;
    log.append(second, "r", run("RunStarted")).await;
    apply_stream(&database, second).await.unwrap();
    assert_equals_whole_fold(&database, "a step begun before the gap").await;
}

#[tokio::test]
async fn a_gap_of_many_pages_is_filled_and_the_first_event_names_the_project() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let (first, second) = (log.stream(0, 1, 0).await, log.stream(1, 1, 0).await);
    log.append(first, "r", run("RunStarted")).await;
    for n in 0..600 {
        let step_id = format!("step-{}", n % 40);
        log.append(first, "r", step("StepStarted", &step_id, 1 + n / 40))
            .await;
        log.append(first, "r", step("StepFailed", &step_id, 1 + n / 40))
            .await;
    }
    let late = crate::support::Event {
        project: "late",
        ..run("RunCompleted")
    };
    log.append(second, "r", late).await;
    apply_stream(&database, second).await.unwrap();
    assert_equals_whole_fold(&database, "a gap of 1201 events").await;
    let project = "SELECT count(*) FROM read_model.run_current WHERE project_id = 'shop' AND last_event_seq = 1202";
    assert_eq!(database.number(project).await, 1);
}

#[tokio::test]
async fn a_gap_that_the_log_cannot_fill_is_an_error_that_names_the_run() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    log.append(stream, "broken", run("RunStarted")).await;
    log.lose_one("broken");
    log.append(stream, "broken", run("RunCompleted")).await;
    let error = apply_stream(&database, stream)
        .await
        .unwrap_err()
        .to_string();
    for part in ["\"broken\"", "\"acme\"", "runSeq 3", "runSeq 2"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(
        database
            .number("SELECT count(*) FROM read_model.run_current")
            .await,
        0
    );
}

/// One worker holds a run's row in its open transaction and the other waits for it: both orders of the
/// two, with a run that has no row yet and with one that has.
async fn meet_at_a_run(is_known: bool, is_later_first: bool) {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let (first, second) = (log.stream(0, 1, 0).await, log.stream(1, 1, 0).await);
    log.append(first, "r", run("RunStarted")).await;
    if is_known {
        apply_stream(&database, first).await.unwrap();
    }
    log.append(first, "r", step("StepStarted", "a", 1)).await;
    log.append(second, "r", step("StepCompleted", "a", 1)).await;
    log.append(first, "r", step("StepStarted", "b", 1)).await;
    log.append(second, "r", step("StepFailed", "b", 1)).await;
    log.append(first, "r", run("RunPaused")).await;
    let (holds, waits) = if is_later_first {
        (second, first)
    } else {
        (first, second)
    };

    let mut early = database.pool.begin().await.unwrap();
    let events = all_events(&mut early, holds).await;
    RunStatusProjection
        .apply(&mut early, &events)
        .await
        .unwrap();
    let pool = database.pool.clone();
    let late = tokio::spawn(async move { apply_in_time(&pool, waits).await });
    database
        .holds(
            "SELECT EXISTS (SELECT FROM pg_stat_activity
              WHERE datname = current_database() AND wait_event_type = 'Lock')",
        )
        .await;
    early.commit().await.unwrap();
    let met = late.await.unwrap();
    assert_eq!(met, u32::from(!is_known), "only a new run is met");
    let when = format!("known before: {is_known}, the later stream first: {is_later_first}");
    assert_equals_whole_fold(&database, &when).await;
}

#[tokio::test]
async fn two_workers_that_meet_at_a_known_run_wait_for_each_other_and_lose_no_update() {
    for is_later_first in [false, true] {
        meet_at_a_run(true, is_later_first).await;
    }
}

#[tokio::test]
async fn two_workers_that_meet_at_a_run_without_a_row_wait_for_each_other_and_lose_no_update() {
    for is_later_first in [false, true] {
        meet_at_a_run(false, is_later_first).await;
    }
}

#[tokio::test]
async fn a_worker_that_waits_for_one_that_rolls_back_folds_all_of_the_run_itself() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let (first, second) = (log.stream(0, 1, 0).await, log.stream(1, 1, 0).await);
    log.append(first, "r", run("RunStarted")).await;
    log.append(second, "r", run("RunCompleted")).await;
    let mut early = database.pool.begin().await.unwrap();
    let events = all_events(&mut early, first).await;
    RunStatusProjection
        .apply(&mut early, &events)
        .await
        .unwrap();
    let late = apply_stream(&database, second);
    let undo = async {
        database
            .holds(
                "SELECT EXISTS (SELECT FROM pg_stat_activity
                  WHERE datname = current_database() AND wait_event_type = 'Lock')",
            )
            .await;
        early.rollback().await.unwrap();
    };
    let (applied, ()) = tokio::join!(late, undo);
    applied.unwrap();
    assert_equals_whole_fold(&database, "after the rollback").await;
    apply_stream(&database, first).await.unwrap();
    assert_equals_whole_fold(&database, "after both").await;
}

#[tokio::test]
async fn two_processes_that_fold_the_same_runs_from_two_streams_lose_nothing() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let streams = [log.stream(0, 1, 0).await, log.stream(1, 1, 0).await];
    let settings = Settings {
        batch_events: 3,
        ..settings()
    };
    let one = Running::start(&database, "one", settings.clone());
    let two = Running::start(&database, "two", settings);
    database
        .holds("SELECT count(DISTINCT owner) = 2 FROM read_model.projection_checkpoints")
        .await;
    // Neither gets anywhere until all the events are there.
    let mut barrier = database.pool.begin().await.unwrap();
    let lock = "LOCK TABLE read_model.run_current IN EXCLUSIVE MODE";
    sqlx::raw_sql(lock).execute(&mut *barrier).await.unwrap();
    for n in 0..400_usize {
        let (run_id, step_id) = (format!("run-{}", n % 3), format!("step-{}", n / 12));
        let event_type = ["StepStarted", "StepFailed"][n / 6 % 2];
        log.append(streams[n % 2], &run_id, step(event_type, &step_id, 1))
            .await;
    }
    barrier.commit().await.unwrap();
    database.caught_up().await;
    assert_equals_whole_fold(&database, "two processes").await;
    assert_eq!(
        database
            .number("SELECT sum(applied)::bigint FROM read_model.projection_checkpoints")
            .await,
        400
    );
    one.stop().await;
    two.stop().await;
}
