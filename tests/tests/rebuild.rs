//! A projection that is built anew beside the live one: under load, with readers that must notice
//! nothing, and with everything that does the work killed in the middle of it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use anyhow::ensure;
use runlog_tests::environment::{run_to_end, said};
use runlog_tests::generator::{Record, generate};
use runlog_tests::oracle::Produced;
use runlog_tests::{Pipeline, Process, Topic, wait_until};
use sqlx::PgPool;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const SOON: Duration = Duration::from_secs(60);

/// Sends records again and again, little by little, until it is told to end; all of them once in any case.
fn feed(topic: &Topic, records: Vec<Record>) -> (watch::Sender<bool>, JoinHandle<Vec<Produced>>) {
    let topic = topic.clone();
    let (end, ended) = watch::channel(false);
    let task = tokio::spawn(async move {
        let mut produced = Vec::new();
        for burst in records.chunks(50).cycle() {
            if *ended.borrow() && produced.len() >= records.len() {
                break;
            }
            produced.extend(topic.send(burst).await.unwrap());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        produced
    });
    (end, task)
}

/// What never falls, as the views of all projections show it.
const NEVER_FALLS: &str = "SELECT ARRAY[
    (SELECT count(*) FROM read_model.run_current),
    (SELECT coalesce(sum(last_event_seq), 0)::bigint FROM read_model.run_current),
    (SELECT count(*) FROM read_model.step_attempt),
    (SELECT count(*) FROM read_model.run_snapshot WHERE at_end),
    (SELECT count(*) FROM read_model.run_state_interval),
    (SELECT coalesce(sum(started + completed + failed + cancelled), 0)::bigint FROM read_model.run_hourly),
    (SELECT coalesce(sum(started + completed + failed + cancelled), 0)::bigint FROM read_model.run_daily),
    (SELECT coalesce(sum(started + succeeded + failed + skipped), 0)::bigint FROM read_model.step_daily)]";

/// Reads that again and again, until it is told to end; how often it did.
fn read_on(pool: PgPool, mut ended: watch::Receiver<bool>) -> JoinHandle<u32> {
    tokio::spawn(async move {
        let (mut seen, mut reads) = (vec![0; 8], 0);
        while !*ended.borrow_and_update() {
            let now: Vec<i64> = sqlx::query_scalar(NEVER_FALLS)
                .fetch_one(&pool)
                .await
                .unwrap();
            let falls = seen.iter().zip(&now).any(|(before, now)| now < before);
            assert!(!falls, "a step back: {seen:?}, then {now:?}");
            (seen, reads) = (now, reads + 1);
        }
        reads
    })
}

async fn rebuild(pipeline: &Pipeline, more: &[&str]) -> (i32, String) {
    rebuild_of("run_status", pipeline, more).await
}

async fn rebuild_of(projection: &str, pipeline: &Pipeline, more: &[&str]) -> (i32, String) {
    let mut command = pipeline.program("runlog");
    command.args(["rebuild", projection]).args(more);
    let output = run_to_end(command).await.unwrap();
    (output.status.code().unwrap_or(-1), said(&output))
}

/// Waits until the version that is being built has applied some of the log, and not all.
async fn wait_half_built(pipeline: &Pipeline, more_than: i64) -> i64 {
    let mut applied = 0;
    wait_until("some of the new version to be built", SOON, async || {
        (applied,) = sqlx::query_as(
            "SELECT coalesce(sum(applied), 0)::bigint FROM read_model.projection_checkpoints WHERE state = 'building'",
        )
        .fetch_one(&pipeline.database.pool)
        .await?;
        ensure!(applied > more_than, "{applied} of more than {more_than}");
        Ok(())
    })
    .await
    .unwrap();
    applied
}

async fn versions(pipeline: &Pipeline) -> Vec<(i32, String)> {
    sqlx::query_as(
        "SELECT version, state FROM read_model.projection_version WHERE projection = 'run_status' ORDER BY 1",
    )
    .fetch_all(&pipeline.database.pool)
    .await
    .unwrap()
}

async fn ends_well(process: Process) {
    assert_eq!(process.terminate().await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_under_load_is_killed_goes_on_and_no_reader_notices() {
    let pipeline = Pipeline::fresh(3).await.unwrap();
    let mut ingest = pipeline.ingest().unwrap();
    ingest.wait_ready().await.unwrap();
    let mut projectors = vec![
        pipeline.projectors().unwrap(),
        pipeline.projectors().unwrap(),
    ];
    let records = generate(121, 20_000, 3);
    let (before, after) = records.split_at(records.len() * 3 / 4);
    let mut produced = pipeline.topic.send(before).await.unwrap();
    pipeline.wait_projected(SOON * 2).await.unwrap();
    let (stop, feeding) = feed(&pipeline.topic, after.to_vec());
    let (stop_reading, ended) = watch::channel(false);
    let reading = read_on(pipeline.database.pool.clone(), ended);

    let mut command = pipeline.program("runlog");
    command.args(["rebuild", "run_status"]);
    let first = Process::spawn(&pipeline.environment, "runlog", command).unwrap();
    let half = wait_half_built(&pipeline, 0).await;
    first.kill9().unwrap();
    projectors.remove(0).kill9().unwrap();
    projectors.push(pipeline.projectors().unwrap());
    wait_half_built(&pipeline, half).await;
    let (exit, words) = rebuild(&pipeline, &[]).await;
    assert_eq!(exit, 0, "{words}");
    assert!(words.contains("Going on with version 2"), "{words}");
    let state = |version, state: &str| (version, state.to_owned());
    assert_eq!(
        versions(&pipeline).await,
        [state(1, "retired"), state(2, "live")]
    );

    stop.send(true).unwrap();
    produced.extend(feeding.await.unwrap());
    pipeline.wait_projected(SOON).await.unwrap();
    stop_reading.send(true).unwrap();
    assert!(reading.await.unwrap() > 10, "nobody read anything");
    pipeline.assert_as_sent(&produced).await.unwrap();

    let (exit, words) = rebuild(&pipeline, &["--drop", "2"]).await;
    assert_eq!(exit, 1, "{words}");
    assert!(words.contains("not live"), "{words}");
    let (exit, words) = rebuild(&pipeline, &["--drop", "1"]).await;
    assert_eq!(exit, 0, "{words}");
    assert_eq!(versions(&pipeline).await, [state(2, "live")]);
    for process in projectors {
        ends_well(process).await;
    }
    ends_well(ingest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_projection_is_rebuilt_under_load_and_is_what_was_sent() {
    let pipeline = Pipeline::fresh(2).await.unwrap();
    let mut ingest = pipeline.ingest().unwrap();
    ingest.wait_ready().await.unwrap();
    let projectors = pipeline.projectors().unwrap();
    let records = generate(123, 6_000, 2);
    let (before, after) = records.split_at(4_000);
    let mut produced = pipeline.topic.send(before).await.unwrap();
    pipeline.wait_projected(SOON).await.unwrap();
    let (stop, feeding) = feed(&pipeline.topic, after.to_vec());
    let (stop_reading, ended) = watch::channel(false);
    let reading = read_on(pipeline.database.pool.clone(), ended);
    for projection in ["run_status", "run_timeline", "run_stats"] {
        let (exit, words) = rebuild_of(projection, &pipeline, &[]).await;
        assert_eq!(exit, 0, "{projection}: {words}");
        let (exit, words) = rebuild_of(projection, &pipeline, &["--drop", "1"]).await;
        assert_eq!(exit, 0, "{projection}: {words}");
    }
    assert!(!feeding.is_finished(), "nothing flowed any more");
    stop.send(true).unwrap();
    produced.extend(feeding.await.unwrap());
    pipeline.wait_projected(SOON).await.unwrap();
    stop_reading.send(true).unwrap();
    assert!(reading.await.unwrap() > 10, "nobody read anything");
    pipeline.assert_as_sent(&produced).await.unwrap();
    ends_well(projectors).await;
    ends_well(ingest).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_differs_is_shown_and_switched_to_only_when_that_is_said() {
    let pipeline = Pipeline::fresh(2).await.unwrap();
    let ingest = pipeline.ingest().unwrap();
    let projectors = pipeline.projectors().unwrap();
    let produced = pipeline.topic.send(&generate(122, 2_000, 2)).await.unwrap();
    pipeline.wait_projected(SOON).await.unwrap();
    let changed = "UPDATE run_status_1.run_current SET retries = retries + 1
                   WHERE (tenant_id, run_id) = (SELECT tenant_id, run_id FROM run_status_1.run_current LIMIT 1)";
    sqlx::query(changed)
        .execute(&pipeline.database.pool)
        .await
        .unwrap();
    let (exit, words) = rebuild(&pipeline, &[]).await;
    assert_eq!(exit, 1, "{words}");
    assert!(
        words.contains("only in run_status_1.run_current"),
        "{words}"
    );
    assert!(
        words.contains("only in run_status_2.run_current"),
        "{words}"
    );
    assert!(words.contains("2 rows of version 2 differ"), "{words}");
    let (exit, words) = rebuild(&pipeline, &["--accept-differences"]).await;
    assert_eq!(exit, 0, "{words}");
    pipeline.assert_as_sent(&produced).await.unwrap();
    ends_well(projectors).await;
    ends_well(ingest).await;
}
