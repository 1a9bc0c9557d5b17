//! More than ingest can write: its memory stays bounded while PostgreSQL is away and the producer goes
//! on, and a process that stands still without a reason ends itself.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::ensure;
use runlog_tests::chaos::proxy::Proxy;
use runlog_tests::chaos::servers::Servers;
use runlog_tests::generator::{Intent, Record, generate};
use runlog_tests::oracle::Produced;
use runlog_tests::threads::Held;
use runlog_tests::{Environment, Pipeline, Process, Role, wait_until};
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;
const PARTITIONS: i32 = 8;
/// `ingest.buffer_bytes`, `ingest.batch.max_bytes` and what Kafka's client may fetch ahead.
const BUFFER: u64 = 16 * MIB;
const BATCH: u64 = MIB;
const AHEAD: u64 = 4 * MIB;

/// A valid event of about 100 kB for each number, on all partitions in turn.
fn bulky(numbers: std::ops::Range<usize>) -> Vec<Record> {
    let text = "x".repeat(100_000);
    let one = |n: usize| {
        let (id, run) = (Uuid::new_v4(), format!("run-{}", n % 64));
        let key = format!("{n:064x}");
        let value = format!(
            r#"{{"eventId":"{id}","eventType":"Note","tenantId":"acme","projectId":"p","environmentId":"e",
            "runId":"{run}","planId":"plan","planVersion":"v1","engineAttemptId":1,"logicalAttemptId":1,
            "idempotencyKey":"{key}","emittedAt":"2026-01-01T00:00:00Z","payload":{{"n":{n},"text":"{text}"}}}}"#
        );
        Record {
            partition: i32::try_from(n).unwrap() % PARTITIONS,
            hash: 0,
            key: Some(run.into_bytes()),
            value: Some(value.into_bytes()),
            content_type: None,
            intent: Intent::Append,
        }
    };
    numbers.map(one).collect()
}

/// Ingest behind a proxy before PostgreSQL, with small bounds.
async fn behind_proxy(pipeline: &Pipeline, settings: &[(&str, &str)]) -> (Proxy, Process) {
    let url = pipeline.database.url_of(Role::Ingest);
    let (before, rest) = url.split_once('@').unwrap();
    let (host, name) = rest.split_once('/').unwrap();
    let target: SocketAddr = host.parse().unwrap();
    let proxy = Proxy::start(0, target).await.unwrap();
    let url = format!("{before}@127.0.0.1:{}/{name}", proxy.port);
    let mut program = pipeline.program("runlog-ingest");
    program
        .env("RUNLOG_DATABASE__URL", url)
        .envs(settings.iter().copied());
    let ingest = Process::spawn(&pipeline.environment, "runlog-ingest", program).unwrap();
    (proxy, ingest)
}

/// What the log holds, by partition and offset: the event's number and the length of its text.
async fn assert_all_appended_once(pipeline: &Pipeline, produced: &[Produced]) {
    let rows: Vec<(i32, i64, i64, i32)> = sqlx::query_as(
        "SELECT partition, source_offset, (payload ->> 'n')::int8, length(payload ->> 'text')
         FROM event_log.run_events",
    )
    .fetch_all(&pipeline.database.pool)
    .await
    .unwrap();
    let mut found: Vec<_> = rows
        .into_iter()
        .map(|(partition, offset, n, length)| (n, partition, offset, length))
        .collect();
    found.sort_unstable();
    let sent = produced.iter().enumerate();
    let expected: Vec<_> = sent
        .map(|(n, place)| (n as i64, place.partition, place.offset, 100_000))
        .collect();
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_bounded_while_postgres_is_away_and_the_producer_goes_on() {
    let pipeline = Pipeline::fresh(PARTITIONS).await.unwrap();
    let (proxy, mut ingest) = behind_proxy(
        &pipeline,
        &[
            ("RUNLOG_INGEST__BUFFER_BYTES", "16MiB"),
            ("RUNLOG_INGEST__BATCH__MAX_BYTES", "1MiB"),
            (
                "RUNLOG_KAFKA__PROPERTIES__QUEUED_MAX_MESSAGES_KBYTES",
                "4096",
            ),
            ("RUNLOG_KAFKA__PROPERTIES__FETCH_MAX_BYTES", "4194304"),
            ("RUNLOG_TELEMETRY__LOG_LEVEL", "runlog_ingest=debug"),
        ],
    )
    .await;
    ingest.wait_ready().await.unwrap();
    let mut produced = pipeline.topic.send(&bulky(0..64)).await.unwrap();
    pipeline.wait_ingested(SOON).await.unwrap();
    let before = ingest.peak_memory().unwrap();

    proxy.set_refusing(true);
    for n in 1..32 {
        let more = bulky(n * 64..(n + 1) * 64);
        produced.extend(pipeline.topic.send(&more).await.unwrap());
    }
    wait_until("every partition to be paused", SOON, async || {
        let log = ingest.written()?;
        for partition in 0..PARTITIONS {
            let paused = format!("\"partition\":{partition},");
            ensure!(
                log.lines()
                    .any(|line| line.contains("has enough") && line.contains(&paused)),
                "partition {partition} is not paused"
            );
        }
        Ok(())
    })
    .await
    .unwrap();
    // The buffer and a record beyond it in each partition; a batch of each of the four writers, at six
    // times its bytes, and as much in every thread whose allocator keeps what one needed; what the
    // client fetches ahead, and a response of that size that it is taking apart. Half of it again for
    // what else the allocator does not give back.
    let threads = std::thread::available_parallelism().unwrap().get().max(4) as u64;
    let bound = BUFFER + 8 * MIB / 10 + threads * 6 * BATCH + 2 * AHEAD;
    let bound = before + bound + bound / 2;
    let away = ingest.peak_memory().unwrap();
    assert!(away < bound, "{} of {} MiB", away / MIB, bound / MIB);

    proxy.set_refusing(false);
    pipeline.wait_ingested(SOON).await.unwrap();
    let peak = ingest.peak_memory().unwrap();
    eprintln!(
        "{} MiB sent; VmHWM {} MiB before, {} MiB while PostgreSQL was away, {} MiB at the end; bound {} MiB",
        produced.len() / 10,
        before / MIB,
        away / MIB,
        peak / MIB,
        bound / MIB
    );
    assert!(peak < bound, "{} of {} MiB", peak / MIB, bound / MIB);
    assert_all_appended_once(&pipeline, &produced).await;
    ingest.wait_ready().await.unwrap();
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_stuck_leaves_the_others_their_memory() {
    let pipeline = Pipeline::fresh(PARTITIONS).await.unwrap();
    let mut program = pipeline.program("runlog-ingest");
    program
        .env("RUNLOG_INGEST__BUFFER_BYTES", "4MiB")
        .env("RUNLOG_INGEST__BATCH__MAX_BYTES", "256KiB")
        .env("RUNLOG_DATABASE__LOCK_TIMEOUT", "1s");
    let mut ingest = Process::spawn(&pipeline.environment, "runlog-ingest", program).unwrap();
    ingest.wait_ready().await.unwrap();
    let mut produced = pipeline.topic.send(&bulky(0..8)).await.unwrap();
    pipeline.wait_ingested(SOON).await.unwrap();
    let mut stuck = pipeline.database.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM event_log.stream WHERE partition = 3 FOR UPDATE")
        .execute(&mut *stuck)
        .await
        .unwrap();
    // More than the whole bound in the partition that is stuck, and as much in each of the others.
    produced.extend(pipeline.topic.send(&bulky(8..512)).await.unwrap());
    let heads = pipeline.topic.heads().await.unwrap();
    wait_until("the other partitions to be appended", SOON, async || {
        let rows: Vec<(i32, i64)> =
            sqlx::query_as("SELECT partition, next_offset FROM event_log.streams ORDER BY 1")
                .fetch_all(&pipeline.database.pool)
                .await?;
        for (partition, stored) in rows {
            let expected = if partition == 3 { 1 } else { heads[&partition] };
            ensure!(
                stored == expected,
                "partition {partition}: {stored}, {expected}"
            );
        }
        Ok(())
    })
    .await
    .unwrap();
    stuck.rollback().await.unwrap();
    pipeline.wait_ingested(SOON).await.unwrap();
    assert_all_appended_once(&pipeline, &produced).await;
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
}

/// Waits until work has not moved for so many seconds, as the process itself counts them.
async fn wait_unmoved(ingest: &Process, seconds: u64) {
    wait_until("work that does not move", SOON, async || {
        let metrics = ingest.get("/metrics").await?;
        let unmoved = metrics
            .lines()
            .find_map(|line| line.strip_prefix("runlog_ingest_unmoved_seconds "));
        ensure!(
            unmoved.is_some_and(|s| s.parse::<u64>().is_ok_and(|s| s >= seconds)),
            "{unmoved:?}"
        );
        Ok(())
    })
    .await
    .unwrap();
}

const STALLS_SOON: [(&str, &str); 2] = [
    ("RUNLOG_INGEST__STALL_TIMEOUT", "10s"),
    ("RUNLOG_INGEST__DRAIN_TIMEOUT", "1s"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_that_hangs_ends_the_process_with_a_message_and_nothing_is_lost() {
    for (thread, message) in [
        (
            "kafka-poll",
            "the thread that reads from Kafka has stood still for",
        ),
        (
            "tokio-rt-worker",
            "the runtime that the workers share has stood still for",
        ),
    ] {
        let pipeline = Pipeline::fresh(1).await.unwrap();
        let records: Vec<_> = generate(61, 200, 1).into_iter().take(200).collect();
        let mut produced = pipeline.topic.send(&records[..100]).await.unwrap();
        let mut program = pipeline.program("runlog-ingest");
        program.envs(STALLS_SOON);
        let mut ingest = Process::spawn(&pipeline.environment, "runlog-ingest", program).unwrap();
        ingest.wait_ready().await.unwrap();
        pipeline.wait_ingested(SOON).await.unwrap();

        let held = Held::stop(ingest.id(), thread).unwrap();
        produced.extend(pipeline.topic.send(&records[100..]).await.unwrap());
        let status = ingest.wait_exit(SOON).await.unwrap();
        drop(held);
        let log = ingest.written().unwrap();
        assert_eq!(status.code(), Some(1), "{thread}: {log}");
        for part in [message, "ingest.stall_timeout", "nothing is lost"] {
            assert!(log.contains(part), "{thread}: {part:?} is not in: {log}");
        }

        let mut next = pipeline.ingest().unwrap();
        next.wait_ready().await.unwrap();
        let projectors = pipeline.projectors().unwrap();
        pipeline.wait_projected(SOON).await.unwrap();
        let differences = pipeline.differences(&produced).await.unwrap();
        assert!(differences.is_empty(), "{thread}: {differences:?}");
        assert_eq!(projectors.terminate().await.unwrap().code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_stalls_the_process_which_ends_without_a_word() {
    let pipeline = Pipeline::fresh(1).await.unwrap();
    let mut program = pipeline.program("runlog-ingest");
    program
        .envs(STALLS_SOON)
        .env("RUNLOG_TELEMETRY__LISTEN", "127.0.0.1:0")
        .env("RUNLOG_TELEMETRY__LOG_LEVEL", "trace")
        .stdout(Stdio::null())
        // A pipe holds 64 KiB; whoever logs after that waits for a reader.
        .stderr(Stdio::piped());
    let mut ingest = program.spawn().unwrap();
    let records: Vec<_> = generate(62, 500, 1).into_iter().take(500).collect();
    pipeline.topic.send(&records).await.unwrap();
    let ended = wait_until("ingest to end itself", SOON, async || {
        let status = ingest.try_wait()?;
        status.ok_or_else(|| anyhow::anyhow!("it still runs"))
    })
    .await;
    let _killed = ingest.kill();
    assert_eq!(ended.unwrap().code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_for_longer_than_the_stall_timeout_is_waited_for() {
    let pipeline = Pipeline::fresh(2).await.unwrap();
    let records: Vec<_> = generate(63, 400, 2).into_iter().take(400).collect();
    let (proxy, mut ingest) = behind_proxy(&pipeline, &STALLS_SOON).await;
    ingest.wait_ready().await.unwrap();
    let mut produced = pipeline.topic.send(&records[..200]).await.unwrap();
    pipeline.wait_ingested(SOON).await.unwrap();
    proxy.set_refusing(true);
    produced.extend(pipeline.topic.send(&records[200..]).await.unwrap());
    wait_unmoved(&ingest, 20).await;
    proxy.set_refusing(false);
    ingest.wait_ready().await.unwrap();
    let projectors = pipeline.projectors().unwrap();
    pipeline.wait_projected(SOON).await.unwrap();
    let differences = pipeline.differences(&produced).await.unwrap();
    assert!(differences.is_empty(), "{differences:?}");
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
    assert_eq!(projectors.terminate().await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_that_is_away_for_longer_than_the_stall_timeout_is_waited_for() {
    let environment = Environment::from_env().unwrap();
    let dir = environment.scratch_file("servers");
    let servers = Servers::start(&environment, &dir).await.unwrap();
    let pipeline = Pipeline::on(servers.environment.clone(), PARTITIONS)
        .await
        .unwrap();
    let produced = pipeline.topic.send(&bulky(0..400)).await.unwrap();
    let mut program = pipeline.program("runlog-ingest");
    program
        .envs(STALLS_SOON)
        .env("RUNLOG_KAFKA__BOOTSTRAP_SERVERS", servers.kafka_address())
        // Its partitions stay its own meanwhile: without any, there would be no work to wait for.
        .env("RUNLOG_KAFKA__PROPERTIES__SESSION_TIMEOUT_MS", "120000")
        // Little at a time, so that Kafka has more when it goes away.
        .env("RUNLOG_INGEST__BUFFER_BYTES", "1MiB")
        .env("RUNLOG_INGEST__BATCH__MAX_EVENTS", "1")
        .env(
            "RUNLOG_KAFKA__PROPERTIES__QUEUED_MAX_MESSAGES_KBYTES",
            "256",
        )
        .env(
            "RUNLOG_KAFKA__PROPERTIES__FETCH_MESSAGE_MAX_BYTES",
            "200000",
        );
    let mut ingest = Process::spawn(&pipeline.environment, "runlog-ingest", program).unwrap();
    wait_until("some records to be appended", SOON, async || {
        let stored = pipeline.progress().await?.stored;
        ensure!(stored > 0, "none");
        Ok(())
    })
    .await
    .unwrap();
    servers.kafka_proxy.set_refusing(true);
    wait_unmoved(&ingest, 30).await;
    let stored = pipeline.progress().await.unwrap().stored;
    assert!(stored < 400, "all was read before Kafka went away");
    servers.kafka_proxy.set_refusing(false);
    ingest.wait_ready().await.unwrap();
    pipeline.wait_ingested(SOON).await.unwrap();
    assert_all_appended_once(&pipeline, &produced).await;
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
    drop(pipeline);
    servers.stop().await.unwrap();
}
