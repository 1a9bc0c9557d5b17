//! Projectors that die or stand still in the middle of a batch, as real processes: others take over,
//! nothing is applied twice, nothing is missed.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use anyhow::ensure;
use runlog_tests::generator::{Record, generate};
use runlog_tests::oracle::Produced;
use runlog_tests::oracle::table::report;
use runlog_tests::{Pipeline, Process, wait_until};
use sqlx::{Postgres, Transaction};

const SOON: Duration = Duration::from_secs(60);

fn records(seed: u64, count: usize, partitions: i32) -> Vec<Record> {
    let mut records = generate(seed, count, partitions);
    records.truncate(count);
    records
}

/// The records are in the log, and ingest has ended.
async fn append(pipeline: &Pipeline, records: &[Record]) -> Vec<Produced> {
    let produced = pipeline.topic.send(records).await.unwrap();
    let ingest = pipeline.ingest().unwrap();
    pipeline.wait_ingested(SOON).await.unwrap();
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
    produced
}

/// Keeps every batch in its middle: the runs' rows are written, and the steps' wait for this lock.
async fn hold_batches(pipeline: &Pipeline) -> Transaction<'static, Postgres> {
    let mut transaction = pipeline.database.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE read_model.step_attempt IN EXCLUSIVE MODE")
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction
}

/// Waits until so many batches wait in their middle.
async fn wait_held(pipeline: &Pipeline, batches: i64) {
    wait_until("batches to wait in their middle", SOON, async || {
        let held: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity
              WHERE datname = current_database() AND application_name LIKE 'runlog-projectors%'
                AND wait_event_type = 'Lock' AND query LIKE '%step_attempt%'",
        )
        .fetch_one(&pipeline.database.pool)
        .await?;
        ensure!(held == batches, "{held} of {batches}");
        Ok(())
    })
    .await
    .unwrap();
}

async fn assert_as_sent(pipeline: &Pipeline, produced: &[Produced]) {
    pipeline.wait_projected(SOON).await.unwrap();
    let differences = pipeline.differences(produced).await.unwrap();
    assert!(differences.is_empty(), "{}", report(&differences, 20));
}

/// Every head was reached with as many events as were appended.
async fn assert_no_mismatch(process: &Process) {
    let metrics = process.get("/metrics").await.unwrap();
    let mismatch = metrics.lines().find(|line| {
        line.starts_with("runlog_projection_ledger_mismatch_total") && !line.ends_with(" 0")
    });
    assert_eq!(mismatch, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_are_killed_in_the_middle_of_a_batch_leave_nothing_half_done() {
    let pipeline = Pipeline::fresh(2).await.unwrap();
    let mut produced = Vec::new();
    for round in 0..3 {
        produced.extend(append(&pipeline, &records(70 + round, 300, 2)).await);
        let held = hold_batches(&pipeline).await;
        let projectors = pipeline.projectors().unwrap();
        wait_held(&pipeline, 2).await;
        projectors.kill9().unwrap();
        held.rollback().await.unwrap();
    }
    let heir = pipeline.projectors().unwrap();
    assert_as_sent(&pipeline, &produced).await;
    assert_no_mismatch(&heir).await;
    assert_eq!(heir.terminate().await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stood_still_in_a_batch_past_its_lease_changes_nothing_and_works_again() {
    let pipeline = Pipeline::fresh(2).await.unwrap();
    let mut produced = append(&pipeline, &records(80, 300, 2)).await;
    let start = || {
        let mut program = pipeline.program("runlog-projectors");
        // What it holds in the database is freed, as with the default, only sooner.
        program.env("RUNLOG_DATABASE__IDLE_IN_TRANSACTION_TIMEOUT", "2s");
        Process::spawn(&pipeline.environment, "runlog-projectors", program).unwrap()
    };
    let held = hold_batches(&pipeline).await;
    let mut still = start();
    wait_held(&pipeline, 2).await;
    let owner = "SELECT max(owner) FROM read_model.projection_checkpoints";
    let before: String = sqlx::query_scalar(owner)
        .fetch_one(&pipeline.database.pool)
        .await
        .unwrap();
    still.signal("STOP").unwrap();
    held.rollback().await.unwrap();
    let mut heir = start();
    assert_as_sent(&pipeline, &produced).await;
    let heirs: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM read_model.projection_checkpoints
          WHERE owner <> $1 AND projection = 'run_status'",
    )
    .bind(before)
    .fetch_one(&pipeline.database.pool)
    .await
    .unwrap();
    assert_eq!(heirs, 2, "streams that another process took over");

    // It wakes up inside its batches, whose answers are there.
    still.signal("CONT").unwrap();
    produced.extend(append(&pipeline, &records(81, 300, 2)).await);
    assert_as_sent(&pipeline, &produced).await;
    for process in [&mut still, &mut heir] {
        process.wait_ready().await.unwrap();
        assert_no_mismatch(process).await;
    }
    // Once the heir goes, the work is its own again.
    assert_eq!(heir.terminate().await.unwrap().code(), Some(0));
    produced.extend(append(&pipeline, &records(82, 300, 2)).await);
    assert_as_sent(&pipeline, &produced).await;
    assert_eq!(still.terminate().await.unwrap().code(), Some(0));
}
