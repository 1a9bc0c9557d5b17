//! Projectors that die or stand still in the middle of a batch, as real processes: others take over,
//! nothing is applied twice, nothing is missed.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use anyhow::ensure;
use runlog_tests::environment::{run_to_end, said};
use runlog_tests::generator::{Record, generate};
use runlog_tests::observe::observe;
use runlog_tests::oracle::table::{Cell, Row, report};
use runlog_tests::oracle::{Produced, witness};
use runlog_tests::pipeline::compare;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_cannot_be_applied_is_shown_and_released_by_command() {
    let pipeline = Pipeline::fresh(2).await.unwrap();
    let produced = append(&pipeline, &records(79, 300, 2)).await;
    let (tenant, run): (String, String) = sqlx::query_as(
        "SELECT tenant_id, run_id FROM event_log.run_events WHERE run_seq = 3 ORDER BY 1, 2 LIMIT 1",
    )
    .fetch_one(&pipeline.database.pool)
    .await
    .unwrap();
    let rule = format!(
        "ALTER TABLE run_status_1.run_current ADD CONSTRAINT bug
         CHECK (tenant_id <> '{tenant}' OR run_id <> '{run}' OR last_event_seq < 2)"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(rule))
        .execute(&pipeline.database.pool)
        .await
        .unwrap();
    let projectors = pipeline.projectors().unwrap();
    pipeline.wait_projected(SOON).await.unwrap();
    let runlog = async |arguments: &[&str]| {
        let mut command = pipeline.program("runlog");
        command.arg("runs").args(arguments);
        let output = run_to_end(command).await.unwrap();
        (output.status.code(), said(&output))
    };
    let (exit, words) = runlog(&["parked", "--tenant", &tenant, "-o", "json"]).await;
    assert_eq!(exit, Some(1), "{words}");
    for part in [
        run.as_str(),
        "\"run_status\"",
        "bug",
        "\"released_at\":null",
    ] {
        assert!(words.contains(part), "no {part} in {words}");
    }
    let (exit, words) = runlog(&["parked", "--tenant", "nobody-else"]).await;
    assert_eq!(exit, Some(0), "{words}");
    let (exit, words) = runlog(&["release", &run, "--tenant", "nobody-else"]).await;
    assert_eq!(exit, Some(1), "{words}");
    assert!(words.contains("no such run is parked"), "{words}");

    sqlx::raw_sql("ALTER TABLE run_status_1.run_current DROP CONSTRAINT bug")
        .execute(&pipeline.database.pool)
        .await
        .unwrap();
    let (exit, words) = runlog(&["release", &run, "--tenant", &tenant]).await;
    assert_eq!(exit, Some(0), "{words}");
    wait_until("the run to be taken up", SOON, async || {
        let (exit, words) = runlog(&["parked", "--all-tenants"]).await;
        ensure!(exit == Some(0), "{words}");
        Ok(())
    })
    .await
    .unwrap();
    assert_as_sent(&pipeline, &produced).await;
    assert_eq!(projectors.terminate().await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_model_that_somebody_changed_is_noticed_and_named() {
    let pipeline = Pipeline::fresh(2).await.unwrap();
    append(&pipeline, &records(80, 400, 2)).await;
    let mut program = pipeline.program("runlog-projectors");
    program.env("RUNLOG_PROJECTORS__VERIFY_INTERVAL", "100ms");
    let projectors = Process::spawn(&pipeline.environment, "runlog-projectors", program).unwrap();
    pipeline.wait_projected(SOON).await.unwrap();
    let verify = async || {
        let mut command = pipeline.program("runlog");
        command.args([
            "verify",
            "--projections",
            "--only",
            "run_status",
            "-o",
            "json",
        ]);
        let output = run_to_end(command).await.unwrap();
        (output.status.code(), said(&output))
    };
    let (exit, words) = verify().await;
    assert_eq!(exit, Some(0), "{words}");
    assert!(words.contains("\"differences\":0"), "{words}");
    let metric = async |name: &str| {
        let metrics = projectors.get("/metrics").await?;
        let name = format!("runlog_projection_{name}_total{{projection=\"run_status\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
        anyhow::Ok(value.and_then(|v| v.parse::<u64>().ok()).unwrap_or(0))
    };
    wait_until("runs to be verified", SOON, async || {
        let runs = metric("verified_runs").await?;
        ensure!(runs > 40, "{runs}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(metric("mismatches").await.unwrap(), 0);

    sqlx::query("UPDATE run_status_1.run_current SET steps_failed = steps_failed + 1")
        .execute(&pipeline.database.pool)
        .await
        .unwrap();
    wait_until("the mismatches to be counted", SOON, async || {
        ensure!(metric("mismatches").await? > 0);
        Ok(())
    })
    .await
    .unwrap();
    let (exit, words) = verify().await;
    assert_eq!(exit, Some(1), "{words}");
    assert!(
        words.contains("run_current: only in the read model"),
        "{words}"
    );
    assert!(words.contains("runlog rebuild run_status"), "{words}");
    assert_eq!(projectors.terminate().await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_that_move_to_a_new_partition_fold_in_order_while_one_stream_stands_still() {
    let mut pipeline = Pipeline::fresh(2).await.unwrap();
    let mut program = pipeline.program("runlog-ingest");
    let often = "RUNLOG_KAFKA__PROPERTIES__TOPIC_METADATA_REFRESH_INTERVAL_MS";
    program.env(often, "500");
    let mut ingest = Process::spawn(&pipeline.environment, "runlog-ingest", program).unwrap();
    ingest.wait_ready().await.unwrap();
    let projectors = pipeline.projectors().unwrap();
    let all = records(83, 1_500, 1);
    let (early, later) = all.split_at(500);
    let (middle, moved) = later.split_at(500);
    let mut produced = pipeline.topic.send(early).await.unwrap();
    pipeline.wait_projected(SOON).await.unwrap();

    // Whoever reads partition 0 waits here, for every projection.
    let mut standstill = pipeline.database.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM read_model.projection_checkpoint WHERE partition = 0 FOR UPDATE")
        .execute(&mut *standstill)
        .await
        .unwrap();
    produced.extend(pipeline.topic.send(middle).await.unwrap());
    pipeline.wait_ingested(SOON).await.unwrap();
    pipeline.topic.grow_to(4).await.unwrap();
    pipeline.topic = pipeline.topic.with_own_producer().unwrap();
    pipeline.topic.partitions = 4;
    pipeline.topic.learn_partitions(4).await.unwrap();
    // The runs go on in a partition that is new.
    let mut moved = moved.to_vec();
    moved.iter_mut().for_each(|record| record.partition = 3);
    produced.extend(pipeline.topic.send(&moved).await.unwrap());
    pipeline.wait_ingested(SOON).await.unwrap();
    wait_until("the new partition to be projected", SOON, async || {
        let (ahead, behind): (i64, i64) = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE s.partition = 3 AND c.next_offset = s.next_offset),
                    count(*) FILTER (WHERE s.partition = 0 AND c.next_offset < s.next_offset)
             FROM event_log.streams s JOIN read_model.projection_checkpoints c USING (topic, partition, generation)",
        )
        .fetch_one(&pipeline.database.pool)
        .await?;
        ensure!((ahead, behind) == (3, 3), "{ahead} are there, {behind} stand still");
        Ok(())
    })
    .await
    .unwrap();
    let (moved, behind): (i64, i64) = sqlx::query_as(
        "SELECT count(*), count(*) FILTER (WHERE c.last_event_seq IS DISTINCT FROM e.last)
         FROM (SELECT tenant_id, run_id, max(run_seq) AS last FROM event_log.run_events
               GROUP BY 1, 2 HAVING max(run_seq) = max(run_seq) FILTER (WHERE partition = 3)) e
         LEFT JOIN read_model.run_current c USING (tenant_id, run_id)",
    )
    .fetch_one(&pipeline.database.pool)
    .await
    .unwrap();
    assert!(moved > 10, "{moved} runs moved");
    assert_eq!(
        behind, 0,
        "what the stream before holds was read from the log"
    );

    standstill.rollback().await.unwrap();
    pipeline.wait_projected(SOON).await.unwrap();
    let mut observed = observe(&pipeline.database.pool).await.unwrap();
    // The partitions that hold nothing.
    let is_read = |row: &Row| row.get("next_offset") != Some(&Cell::Int(0));
    observed.ledger.retain(|_, row| is_read(row));
    let (log, mut lines) =
        witness::explain(&produced, &observed.run_events, &observed.dead_letters);
    lines.extend(compare(&log, &observed, &produced, &pipeline.topic.name).unwrap());
    assert!(lines.is_empty(), "{}", report(&lines, 20));
    assert_no_mismatch(&projectors).await;
    assert_eq!(projectors.terminate().await.unwrap().code(), Some(0));
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
}
