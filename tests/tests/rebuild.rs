//! Projections that are built anew beside the live ones: under load, with readers that must notice
//! nothing, and with everything that does the work killed in the middle of it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use anyhow::ensure;
use runlog_tests::environment::{run_to_end, said};
use runlog_tests::flow::Flow;
use runlog_tests::generator::{Intent, generate};
use runlog_tests::{Pipeline, Process, wait_until};
use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const SOON: Duration = Duration::from_secs(60);

/// Each projection, with the table whose rows its batches lock first.
const PROJECTIONS: [(&str, &str); 3] = [
    ("run_status", "run_current"),
    ("run_timeline", "run_timeline_run"),
    ("run_stats", "run_stats_run"),
];

/// What never falls, as the views of all projections show it.
const NEVER_FALLS: &str = "
    (SELECT count(*) FROM read_model.run_current),
    (SELECT coalesce(sum(last_event_seq), 0)::bigint FROM read_model.run_current),
    (SELECT count(*) FROM read_model.step_attempt),
    (SELECT count(*) FROM read_model.run_snapshot WHERE at_end),
    (SELECT count(*) FROM read_model.run_state_interval),
    (SELECT coalesce(sum(started + completed + failed + cancelled), 0)::bigint FROM read_model.run_hourly),
    (SELECT coalesce(sum(started + completed + failed + cancelled), 0)::bigint FROM read_model.run_daily),
    (SELECT coalesce(sum(started + succeeded + failed + skipped), 0)::bigint FROM read_model.step_daily)";

/// Pairs that are equal whenever they are read at once, unless half of a batch is shown, or half of a
/// version: each checkpoint and the rows that it is of, and tables that say the same.
const EQUAL: &str = "
    (SELECT coalesce(sum(applied), 0)::bigint FROM read_model.projection_checkpoints
     WHERE projection = 'run_status' AND state = 'live'),
    (SELECT coalesce(sum(last_event_seq), 0)::bigint FROM read_model.run_current),
    (SELECT coalesce(sum(steps_running + steps_succeeded + steps_failed + steps_skipped), 0)::bigint
     FROM read_model.run_current),
    (SELECT count(*) FROM (SELECT DISTINCT tenant_id, run_id, step_id FROM read_model.step_attempt) steps),
    (SELECT coalesce(sum(applied), 0)::bigint FROM read_model.projection_checkpoints
     WHERE projection = 'run_timeline' AND state = 'live'),
    (SELECT coalesce(sum(last_event_seq), 0)::bigint FROM read_model.run_timeline_run),
    (SELECT coalesce(sum(interval_no), 0)::bigint FROM read_model.run_timeline_run),
    (SELECT count(*) FROM read_model.run_state_interval),
    (SELECT coalesce(sum(applied), 0)::bigint FROM read_model.projection_checkpoints
     WHERE projection = 'run_stats' AND state = 'live'),
    (SELECT coalesce(sum(last_event_seq), 0)::bigint FROM read_model.run_stats_run),
    (SELECT coalesce(sum(queued + started + completed + failed + cancelled), 0)::bigint FROM read_model.run_hourly),
    (SELECT coalesce(sum(queued + started + completed + failed + cancelled), 0)::bigint FROM read_model.run_daily),
    (SELECT count(*) FROM read_model.run_stats_attempt),
    (SELECT coalesce(sum(started + skipped), 0)::bigint FROM read_model.step_daily)";

/// Reads all that in one statement, again and again, until it is told to end; how often it did.
fn read_on(pool: PgPool, mut ended: watch::Receiver<bool>) -> JoinHandle<u32> {
    tokio::spawn(async move {
        let sql = format!("SELECT ARRAY[{NEVER_FALLS}], ARRAY[{EQUAL}]");
        let (mut seen, mut reads) = (vec![0; 8], 0);
        while !*ended.borrow_and_update() {
            let (now, equal): (Vec<i64>, Vec<i64>) = sqlx::query_as(AssertSqlSafe(sql.clone()))
                .fetch_one(&pool)
                .await
                .unwrap();
            let falls = seen.iter().zip(&now).any(|(before, now)| now < before);
            assert!(!falls, "a step back: {seen:?}, then {now:?}");
            let is_whole = equal.chunks(2).all(|pair| pair[0] == pair[1]);
            assert!(is_whole, "a half: {equal:?}");
            (seen, reads) = (now, reads + 1);
        }
        reads
    })
}

fn rebuild_command(projection: &str, pipeline: &Pipeline, more: &[&str]) -> std::process::Command {
    let mut command = pipeline.program("runlog");
    command.args(["rebuild", projection]).args(more);
    command
}

/// Runs the command to its end: its exit code and what it said.
async fn rebuild(projection: &str, pipeline: &Pipeline, more: &[&str]) -> (i32, String) {
    let command = rebuild_command(projection, pipeline, more);
    let output = run_to_end(command).await.unwrap();
    (output.status.code().unwrap_or(-1), said(&output))
}

/// Events that the version which is being built has applied.
async fn applied(projection: &str, pipeline: &Pipeline) -> i64 {
    sqlx::query_scalar(
        "SELECT coalesce(sum(applied), 0)::bigint FROM read_model.projection_checkpoints
         WHERE projection = $1 AND state = 'building'",
    )
    .bind(projection)
    .fetch_one(&pipeline.database.pool)
    .await
    .unwrap()
}

async fn wait_applied(projection: &str, pipeline: &Pipeline, more_than: i64) {
    wait_until("some of the new version to be built", SOON, async || {
        let applied = applied(projection, pipeline).await;
        ensure!(
            applied > more_than,
            "{projection}: {applied} of more than {more_than}"
        );
        Ok(())
    })
    .await
    .unwrap();
}

/// Once some of version 2 is built, keeps it there: a batch of each of the streams waits in its middle
/// until the transaction ends. Returns how many events are applied, too.
async fn hold_half_built(
    (projection, table): (&str, &str),
    streams: i64,
    pipeline: &Pipeline,
) -> (Transaction<'static, Postgres>, i64) {
    wait_applied(projection, pipeline, 0).await;
    let table = format!("{projection}_2.{table}");
    let mut transaction = pipeline.database.pool.begin().await.unwrap();
    let lock = format!("LOCK TABLE {table} IN EXCLUSIVE MODE");
    sqlx::raw_sql(AssertSqlSafe(lock))
        .execute(&mut *transaction)
        .await
        .unwrap();
    wait_until("the new version's batches to wait", SOON, async || {
        let waiting = "SELECT count(*) FROM pg_locks WHERE relation = $1::regclass AND NOT granted";
        let waiting: i64 = sqlx::query_scalar(waiting)
            .bind(&table)
            .fetch_one(&pipeline.database.pool)
            .await?;
        ensure!(waiting == streams, "{table}: {waiting} of {streams}");
        Ok(())
    })
    .await
    .unwrap();
    (transaction, applied(projection, pipeline).await)
}

/// The processes that work on a version which is being built.
async fn owners(projection: &str, pipeline: &Pipeline) -> i64 {
    sqlx::query_scalar(
        "SELECT count(DISTINCT owner) FROM read_model.projection_checkpoints
         WHERE projection = $1 AND state = 'building'",
    )
    .bind(projection)
    .fetch_one(&pipeline.database.pool)
    .await
    .unwrap()
}

async fn number(pipeline: &Pipeline, query: &'static str) -> i64 {
    sqlx::query_scalar(query)
        .fetch_one(&pipeline.database.pool)
        .await
        .unwrap()
}

async fn versions(projection: &str, pipeline: &Pipeline) -> Vec<(i32, String)> {
    sqlx::query_as(
        "SELECT version, state FROM read_model.projection_version WHERE projection = $1 ORDER BY 1",
    )
    .bind(projection)
    .fetch_all(&pipeline.database.pool)
    .await
    .unwrap()
}

async fn ends_well(process: Process) {
    assert_eq!(process.terminate().await.unwrap().code(), Some(0));
}

/// Runs the command on a rebuild that was left in its middle, and removes the version before.
async fn goes_on_to_its_end(projection: &str, pipeline: &Pipeline) {
    let (exit, words) = rebuild(projection, pipeline, &[]).await;
    assert_eq!(exit, 0, "{projection}: {words}");
    assert!(words.contains("Going on with version 2"), "{words}");
    let state = |version, state: &str| (version, state.to_owned());
    assert_eq!(
        versions(projection, pipeline).await,
        [state(1, "retired"), state(2, "live")]
    );
    let (exit, words) = rebuild(projection, pipeline, &["--drop", "2"]).await;
    assert_eq!(exit, 1, "{words}");
    assert!(words.contains("not live"), "{words}");
    let (exit, words) = rebuild(projection, pipeline, &["--drop", "1"]).await;
    assert_eq!(exit, 0, "{words}");
    assert_eq!(versions(projection, pipeline).await, [state(2, "live")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rebuilds_of_every_projection_are_killed_under_load_go_on_and_no_reader_notices() {
    let pipeline = Pipeline::fresh(3).await.unwrap();
    let mut ingest = pipeline.ingest().unwrap();
    ingest.wait_ready().await.unwrap();
    // In small batches, so that the middle of a rebuild lasts.
    let small = || {
        let mut program = pipeline.program("runlog-projectors");
        program.env("RUNLOG_PROJECTORS__BATCH_EVENTS", "100");
        Process::spawn(&pipeline.environment, "runlog-projectors", program).unwrap()
    };
    let (killed, stays) = (small(), small());
    let records = generate(121, 20_000, 3);
    let (before, after) = (records.len() * 3 / 4, records.len() / 2);
    let mut produced = pipeline.topic.send(&records[..before]).await.unwrap();
    pipeline.wait_projected(SOON * 2).await.unwrap();
    // The first of them are sent again.
    let flow = Flow::of(&pipeline.topic, records[after..].to_vec());
    let (stop_reading, ended) = watch::channel(false);
    let reading = read_on(pipeline.database.pool.clone(), ended);

    let start = |(projection, _)| {
        let command = rebuild_command(projection, &pipeline, &[]);
        Process::spawn(&pipeline.environment, "runlog", command).unwrap()
    };
    let commands = PROJECTIONS.map(start);
    let [status, timeline, stats] = PROJECTIONS.map(|of| hold_half_built(of, 3, &pipeline));
    let held: [_; 3] = tokio::join!(status, timeline, stats).into();
    let appended = "SELECT sum(appended)::bigint FROM event_log.streams";
    let appended = number(&pipeline, appended).await;
    for ((projection, _), (_, half)) in PROJECTIONS.iter().zip(&held) {
        assert!(
            (1..appended).contains(half),
            "{projection}: {half} of {appended}"
        );
        assert_eq!(owners(projection, &pipeline).await, 2, "{projection}");
    }
    for command in commands {
        command.kill9().unwrap();
    }
    killed.kill9().unwrap();
    let heir = pipeline.projectors().unwrap();
    for ((projection, _), (transaction, half)) in PROJECTIONS.iter().zip(held) {
        transaction.rollback().await.unwrap();
        wait_applied(projection, &pipeline, half).await;
    }
    let [status, timeline, stats] =
        PROJECTIONS.map(|(projection, _)| goes_on_to_its_end(projection, &pipeline));
    tokio::join!(status, timeline, stats);

    assert!(flow.is_on(), "nothing flowed any more");
    produced.extend(flow.end().await.unwrap());
    pipeline.wait_projected(SOON).await.unwrap();
    stop_reading.send(true).unwrap();
    assert!(reading.await.unwrap() > 10, "nobody read anything");
    pipeline.assert_as_sent(&produced).await.unwrap();
    let again = records[after..before].iter();
    let again = again
        .filter(|record| record.intent == Intent::Append)
        .count();
    let duplicates = "SELECT sum(duplicates)::bigint FROM event_log.streams";
    assert!(number(&pipeline, duplicates).await >= again as i64);
    for process in [heir, stays, ingest] {
        ends_well(process).await;
    }
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
    let (exit, words) = rebuild("run_status", &pipeline, &[]).await;
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
    let (exit, words) = rebuild("run_status", &pipeline, &["--accept-differences"]).await;
    assert_eq!(exit, 0, "{words}");
    pipeline.assert_as_sent(&produced).await.unwrap();
    ends_well(projectors).await;
    ends_well(ingest).await;
}
