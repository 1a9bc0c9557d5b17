//! Faults that ingest has to live through: a stopped process, a lost claim, PostgreSQL and Kafka
//! that go away and come back, a damaged log. Afterwards everything is compared with the oracle.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use anyhow::ensure;
use runlog_tests::generator::{Record, generate};

use runlog_tests::flow::Flow;
use runlog_tests::{Environment, Pipeline, Process, Stack, wait_until};

const SOON: Duration = Duration::from_secs(60);
/// Time for the batches under way and for the Kafka client: `ingest.drain_timeout` and 5 s.
const DRAINED: Duration = Duration::from_secs(15);

/// A process that stands still may do so inside a transaction; its locks are freed before the group
/// gives its partitions away, as with the defaults of both.
const FREED_SOON: (&str, &str) = ("RUNLOG_DATABASE__IDLE_IN_TRANSACTION_TIMEOUT", "3s");

/// The first of the generator's records, which makes more where fewer would lack a kind.
fn records(seed: u64, count: usize, partitions: i32) -> Vec<Record> {
    let mut records = generate(seed, count, partitions);
    records.truncate(count);
    records
}

fn ingest(pipeline: &Pipeline, settings: &[(&str, &str)]) -> Process {
    let mut program = pipeline.program("runlog-ingest");
    program.envs(settings.iter().copied());
    Process::spawn(&pipeline.environment, "runlog-ingest", program).unwrap()
}

/// Waits until the log holds as many more records as `more`.
async fn moves(pipeline: &Pipeline, more: i64) {
    let before = pipeline.progress().await.unwrap().stored;
    wait_until("records to flow", SOON, async || {
        let stored = pipeline.progress().await?.stored;
        ensure!(stored >= before + more, "{stored}, {before} before");
        Ok(())
    })
    .await
    .unwrap();
}

async fn wait_owners(pipeline: &Pipeline, expected: i64) {
    wait_until("the owners of the partitions", SOON, async || {
        let owners: i64 = sqlx::query_scalar("SELECT count(DISTINCT owner) FROM event_log.streams")
            .fetch_one(&pipeline.database.pool)
            .await?;
        ensure!(owners == expected, "{owners} owners");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_was_paused_when_its_claim_was_lost_is_read_again() {
    let pipeline = Pipeline::fresh(1).await.unwrap();
    let all = records(51, 300, 1);
    let ingest = ingest(
        &pipeline,
        &[
            ("RUNLOG_INGEST__BUFFER_BYTES", "50kB"),
            ("RUNLOG_INGEST__BATCH__MAX_EVENTS", "10"),
            ("RUNLOG_TELEMETRY__LOG_LEVEL", "runlog_ingest=debug"),
        ],
    );
    let mut produced = pipeline.topic.send(&all[..30]).await.unwrap();
    pipeline.wait_ingested(SOON).await.unwrap();
    let mut thief = pipeline.database.pool.begin().await.unwrap();
    sqlx::query("UPDATE event_log.stream SET claim = gen_random_uuid()")
        .execute(&mut *thief)
        .await
        .unwrap();
    // While the row is locked the worker waits, and the records behind its batch fill its memory.
    let paused = ingest.written().unwrap().matches("paused").count();
    produced.extend(pipeline.topic.send(&all[30..]).await.unwrap());
    wait_until("the partition to be paused", SOON, async || {
        ensure!(ingest.written()?.matches("paused").count() > paused);
        Ok(())
    })
    .await
    .unwrap();
    thief.commit().await.unwrap();
    pipeline.assert_as_sent(&produced).await.unwrap();
    assert!(
        ingest
            .written()
            .unwrap()
            .contains("another process has claimed it")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stood_still_is_fenced_and_takes_part_again() {
    let pipeline = Pipeline::fresh(4).await.unwrap();
    let mut still = ingest(&pipeline, &[FREED_SOON]);
    still.wait_ready().await.unwrap();
    let mut other = ingest(&pipeline, &[FREED_SOON]);
    other.wait_ready().await.unwrap();
    let flow = Flow::of(&pipeline.topic, records(52, 4_000, 4));
    moves(&pipeline, 200).await;
    wait_owners(&pipeline, 2).await;
    still.signal("STOP").unwrap();
    // The group gives its partitions away after the session's 6 s.
    wait_owners(&pipeline, 1).await;
    moves(&pipeline, 100).await;
    still.signal("CONT").unwrap();
    wait_owners(&pipeline, 2).await;
    let mut produced = flow.end().await.unwrap();
    produced.extend(pipeline.topic.send(&records(53, 200, 4)).await.unwrap());
    pipeline.assert_as_sent(&produced).await.unwrap();
    for mut process in [still, other] {
        process.wait_ready().await.unwrap();
        assert_eq!(process.terminate().await.unwrap().code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stands_still_inside_a_transaction_frees_its_partition() {
    let pipeline = Pipeline::fresh(4).await.unwrap();
    let mut still = ingest(&pipeline, &[FREED_SOON]);
    still.wait_ready().await.unwrap();
    let mut other = ingest(&pipeline, &[FREED_SOON]);
    other.wait_ready().await.unwrap();
    wait_owners(&pipeline, 2).await;
    let flow = Flow::of(&pipeline.topic, records(54, 2_000, 4));
    stop_inside_a_transaction(&pipeline, &still).await;
    let mut produced = flow.end().await.unwrap();
    pipeline.wait_ingested(SOON).await.unwrap();
    still.signal("CONT").unwrap();
    wait_owners(&pipeline, 2).await;
    produced.extend(pipeline.topic.send(&records(55, 200, 4)).await.unwrap());
    pipeline.assert_as_sent(&produced).await.unwrap();
    for mut process in [still, other] {
        process.wait_ready().await.unwrap();
    }
}

/// Stops the process while its batches of both of its partitions are under way: those of all four
/// wait for a lock until it stands still.
async fn stop_inside_a_transaction(pipeline: &Pipeline, process: &Process) {
    let mut lock = pipeline.database.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE event_log.dead_letter IN EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let count = async |of: &'static str| -> anyhow::Result<i64> {
        let count = sqlx::query_scalar(of).fetch_one(&pipeline.database.pool);
        Ok(count.await?)
    };
    wait_until("a batch of every partition to wait", SOON, async || {
        let waiting = count(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND wait_event_type = 'Lock'
               AND query LIKE '%INTO event_log.dead_letter%'",
        );
        let waiting = waiting.await?;
        ensure!(waiting == 4, "{waiting} of 4");
        Ok(())
    })
    .await
    .unwrap();
    process.signal("STOP").unwrap();
    lock.rollback().await.unwrap();
    wait_until("transactions that nobody drives", SOON, async || {
        let open = count(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND state = 'idle in transaction'
               AND clock_timestamp() - state_change > interval '500 ms'",
        );
        let open = open.await?;
        ensure!(open == 2, "{open} of 2");
        Ok(())
    })
    .await
    .unwrap();
}

async fn assert_ends_in_time(process: Process) {
    let started = Instant::now();
    assert_eq!(process.terminate().await.unwrap().code(), Some(0));
    assert!(
        started.elapsed() < DRAINED + Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_go_away_are_waited_for_and_a_damaged_log_halts_its_partition_alone() {
    let environment = Environment::from_env().unwrap();
    let (stack, environment) = Stack::start(&environment).await.unwrap();
    let pipeline = Pipeline::on(environment, 2).await.unwrap();
    let mut ingest = pipeline.ingest().unwrap();
    ingest.wait_ready().await.unwrap();
    let flow = Flow::of(&pipeline.topic, records(56, 3_000, 2));
    for (server, signal) in [("postgres", "INT"), ("postgres", "QUIT"), ("kafka", "KILL")] {
        moves(&pipeline, 100).await;
        stack.end(server, signal).await.unwrap();
        let condition = if server == "kafka" {
            "kafka"
        } else {
            "database"
        };
        ingest
            .wait_unready(&[&format!("\"{condition}\"")], SOON)
            .await
            .unwrap();
        stack.up().await.unwrap();
        ingest.wait_ready().await.unwrap();
    }
    let produced = flow.end().await.unwrap();
    pipeline.assert_as_sent(&produced).await.unwrap();

    stack.end("postgres", "INT").await.unwrap();
    assert_ends_in_time(ingest).await;
    let starting = pipeline.ingest().unwrap();
    starting.wait_unready(&["starting"], SOON).await.unwrap();
    assert_ends_in_time(starting).await;
    stack.up().await.unwrap();

    let more = records(57, 100, 2);
    let damaged = pipeline.topic.heads().await.unwrap()[&0];
    pipeline.topic.send(&more).await.unwrap();
    damage(&stack, &pipeline.topic.name, damaged);
    let ingest = pipeline.ingest().unwrap();
    let heads = pipeline.topic.heads().await.unwrap();
    wait_until(
        "partition 0 to halt and partition 1 to go on",
        SOON,
        async || {
            let rows: Vec<(i64, Option<String>)> = sqlx::query_as(
                "SELECT next_offset, halted_reason FROM event_log.streams ORDER BY partition",
            )
            .fetch_all(&pipeline.database.pool)
            .await?;
            ensure!(
                rows[0].0 == damaged
                    && rows[0]
                        .1
                        .as_ref()
                        .is_some_and(|reason| reason.contains("cannot be read"))
                    && rows[1] == (heads[&1], None),
                "{rows:?}"
            );
            Ok(())
        },
    )
    .await
    .unwrap();
    ingest.wait_unready(&["halted"], SOON).await.unwrap();
}

/// Turns a byte of the batch that begins at this offset of partition 0, as a bad disk might.
fn damage(stack: &Stack, topic: &str, offset: i64) {
    let segment = stack.segment(topic, 0);
    let batches = Stack::batches(&segment).unwrap();
    let (_, at, bytes) = *batches.iter().find(|(base, ..)| *base == offset).unwrap();
    let at = at + bytes - 3;
    let log = std::fs::read(&segment).unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&segment)
        .unwrap();
    file.write_all_at(&[log[at] ^ 0x55], at as u64).unwrap();
}
