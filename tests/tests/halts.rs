//! Partitions whose log in Kafka is not as it was: each kind of halt by itself, told apart from the
//! others and from what is no fault, while the neighbours in the same process go on; and what an
//! operator's decision does to a process that runs.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use runlog_tests::environment::unique_name;
use runlog_tests::generator::{Record, generate};
use runlog_tests::{Environment, Pipeline, Process, Stack, Topic, wait_until};
use sqlx::AssertSqlSafe;

const SOON: Duration = Duration::from_secs(60);

/// So many records of one partition, whatever becomes of them.
fn records(seed: u64, partition: i32, count: usize) -> Vec<Record> {
    let mut records = generate(seed, count, 1);
    records.truncate(count);
    for record in &mut records {
        record.partition = partition;
    }
    records
}

/// Ingest on the deployment's topic and on more of them.
fn ingest(pipeline: &Pipeline, more: &[&Topic], settings: &[(&str, &str)]) -> Process {
    let topics = std::iter::once(&pipeline.topic).chain(more.iter().copied());
    let names: Vec<String> = topics
        .map(|topic| format!("{{name=\"{}\"}}", topic.name))
        .collect();
    let mut program = pipeline.program("runlog-ingest");
    program
        .env("RUNLOG_INGEST__TOPICS", format!("[{}]", names.join(",")))
        .envs(settings.iter().copied());
    Process::spawn(&pipeline.environment, "runlog-ingest", program).unwrap()
}

/// Sends records to a partition, and waits until they are in the log.
async fn flows(pipeline: &Pipeline, topic: &Topic, partition: i32, seed: u64) {
    topic.send(&records(seed, partition, 20)).await.unwrap();
    drained(pipeline, topic, partition).await;
}

/// Waits until the log has all that a partition holds.
async fn drained(pipeline: &Pipeline, topic: &Topic, partition: i32) {
    let head = topic.heads().await.unwrap()[&partition];
    let name = format!("{}/{partition} to be drained", topic.name);
    wait_until(&name, SOON, async || {
        let stored: Option<i64> = sqlx::query_scalar(
            "SELECT next_offset FROM event_log.streams
             WHERE topic = $1 AND partition = $2 AND closed_at IS NULL",
        )
        .bind(&topic.name)
        .bind(partition)
        .fetch_optional(&pipeline.database.pool)
        .await?;
        ensure!(stored == Some(head), "stored {stored:?}, head {head}");
        Ok(())
    })
    .await
    .unwrap();
}

/// Waits until a partition is halted for this reason in the ledger, and is shown so by its process;
/// returns the reason.
async fn halted(
    pipeline: &Pipeline,
    process: &Process,
    topic: &Topic,
    partition: i32,
    code: &str,
) -> String {
    let name = format!("{}/{partition}", topic.name);
    let reason = wait_until(&format!("{name} to halt: {code}"), SOON, async || {
        let row: (Option<String>, Option<String>, bool) = sqlx::query_as(
            "SELECT halted_code, halted_reason, halted_at IS NOT NULL FROM event_log.streams
             WHERE topic = $1 AND partition = $2 AND closed_at IS NULL",
        )
        .bind(&topic.name)
        .bind(partition)
        .fetch_one(&pipeline.database.pool)
        .await?;
        let (Some(stored), Some(reason), true) = row else {
            anyhow::bail!("{row:?}");
        };
        ensure!(stored == code, "{stored}: {reason}");
        Ok(reason)
    })
    .await
    .unwrap();
    let metric = metric(topic, partition, code);
    wait_until("the process to show the halt", SOON, async || {
        let ready = process.get("/readyz").await?;
        ensure!(
            ready.starts_with("HTTP/1.1 503")
                && ready.contains(&format!("{name} is halted: {reason}")),
            "{ready}"
        );
        let metrics = process.get("/metrics").await?;
        ensure!(metrics.contains(&metric), "{metric} in {metrics}");
        Ok(())
    })
    .await
    .unwrap();
    reason
}

fn metric(topic: &Topic, partition: i32, code: &str) -> String {
    format!(
        "runlog_stream_halted{{partition=\"{partition}\",reason=\"{code}\",topic=\"{}\"}} 1",
        topic.name
    )
}

async fn sql(pipeline: &Pipeline, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(&pipeline.database.pool)
        .await
        .unwrap();
}

/// What an operator does: closes the generation and opens the next one at this offset.
async fn resume_at(pipeline: &Pipeline, partition: i32, offset: i64) {
    let topic = &pipeline.topic.name;
    let of_it = format!("topic = '{topic}' AND partition = {partition}");
    let statement = format!(
        "BEGIN;
         UPDATE event_log.stream SET closed_at = clock_timestamp() WHERE {of_it} AND closed_at IS NULL;
         INSERT INTO event_log.stream (topic, partition, generation, group_id, start_offset, next_offset)
         SELECT topic, partition, generation + 1, group_id, {offset}, {offset} FROM event_log.stream
          WHERE {of_it} ORDER BY generation DESC LIMIT 1;
         COMMIT"
    );
    sql(pipeline, &statement).await;
}

/// Waits until the process is ready and shows no halt any more.
async fn clear(process: &mut Process) {
    process.wait_ready().await.unwrap();
    let metrics = process.get("/metrics").await.unwrap();
    assert!(!metrics.contains("runlog_stream_halted{"), "{metrics}");
}

/// A deployment whose partitions have been read, and an ingest that has ended since.
async fn read_before(partitions: i32) -> Pipeline {
    let pipeline = Pipeline::fresh(partitions).await.unwrap();
    let mut ingest = ingest(&pipeline, &[], &[]);
    ingest.wait_ready().await.unwrap();
    for partition in 0..partitions {
        flows(&pipeline, &pipeline.topic, partition, 60).await;
    }
    ids_stored(&pipeline, partitions).await;
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
    pipeline
}

async fn ids_stored(pipeline: &Pipeline, partitions: i32) {
    wait_until("the topic's id to be stored", SOON, async || {
        let count: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM event_log.streams WHERE topic = $1 AND topic_id IS NOT NULL",
        )
        .bind(&pipeline.topic.name)
        .fetch_one(&pipeline.database.pool)
        .await?;
        ensure!(count == i64::from(partitions), "{count}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_topic_made_again_while_nobody_reads_halts_also_where_it_was_refilled() {
    let pipeline = read_before(3).await;
    let other = Topic::fresh(&pipeline.environment, 1).await.unwrap();
    let again = pipeline.topic.made_again().await.unwrap();
    // Beyond the stored offsets of partitions 0 and 1; partition 2 stays empty. Of partition 1 the
    // topic's id is not known, so its record has to tell.
    again.send(&records(61, 0, 50)).await.unwrap();
    again.send(&records(62, 1, 50)).await.unwrap();
    let forget = "UPDATE event_log.stream SET topic_id = NULL WHERE partition = 1";
    sql(&pipeline, forget).await;

    let ingest = ingest(&pipeline, &[&other], &[]);
    let reason = halted(&pipeline, &ingest, &again, 0, "recreated").await;
    assert!(
        reason.contains("made again") && reason.contains("20"),
        "{reason}"
    );
    let reason = halted(&pipeline, &ingest, &again, 1, "truncated").await;
    assert!(
        reason.contains("another record at offset 19") && reason.contains("id is not known"),
        "{reason}"
    );
    halted(&pipeline, &ingest, &again, 2, "recreated").await;
    flows(&pipeline, &other, 0, 63).await;
    let appended: i64 = sqlx::query_scalar(
        "SELECT sum(next_offset)::bigint FROM event_log.streams WHERE topic = $1",
    )
    .bind(&again.name)
    .fetch_one(&pipeline.database.pool)
    .await
    .unwrap();
    assert_eq!(appended, 60, "nothing of the new topic was read");
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
}

async fn made_again_while_it_is_read(protocol: Option<&str>) {
    let pipeline = Pipeline::fresh(1).await.unwrap();
    if let Some(protocol) = protocol {
        let property = format!("[kafka.properties]\n{protocol}\n");
        pipeline.configure(&property).unwrap();
    }
    let other = Topic::fresh(&pipeline.environment, 1).await.unwrap();
    let mut ingest = ingest(&pipeline, &[&other], &[]);
    ingest.wait_ready().await.unwrap();
    flows(&pipeline, &pipeline.topic, 0, 64).await;
    ids_stored(&pipeline, 1).await;
    let again = pipeline.topic.made_again().await.unwrap();
    again.send(&records(65, 0, 50)).await.unwrap();
    halted(&pipeline, &ingest, &again, 0, "recreated").await;
    flows(&pipeline, &other, 0, 66).await;

    // The operator reads the new topic from its beginning.
    resume_at(&pipeline, 0, 0).await;
    drained(&pipeline, &again, 0).await;
    flows(&pipeline, &other, 0, 66).await;
    clear(&mut ingest).await;
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_topic_made_again_while_it_is_read_halts() {
    made_again_while_it_is_read(None).await;
}

#[tokio::test]
async fn a_topic_made_again_while_it_is_read_halts_with_the_eager_protocol() {
    let eager = "\"partition.assignment.strategy\" = \"range\"";
    made_again_while_it_is_read(Some(eager)).await;
}

#[tokio::test]
async fn a_topic_made_again_while_it_is_read_halts_with_the_new_protocol() {
    made_again_while_it_is_read(Some("\"group.protocol\" = \"consumer\"")).await;
}

#[tokio::test]
async fn another_record_at_the_last_offset_halts_as_truncated_until_the_operator_decides() {
    let pipeline = read_before(3).await;
    let spoil = "UPDATE event_log.stream SET last_record_digest = sha256(last_record_digest)
                 WHERE partition IN (0, 2)";
    let right: Vec<u8> =
        sqlx::query_scalar("SELECT last_record_digest FROM event_log.stream WHERE partition = 2")
            .fetch_one(&pipeline.database.pool)
            .await
            .unwrap();
    sql(&pipeline, spoil).await;
    let mut running = ingest(&pipeline, &[], &[]);
    let reason = halted(&pipeline, &running, &pipeline.topic, 0, "truncated").await;
    assert!(
        reason.contains("another record at offset 19") && reason.contains("unclean"),
        "{reason}"
    );
    halted(&pipeline, &running, &pipeline.topic, 2, "truncated").await;
    flows(&pipeline, &pipeline.topic, 1, 67).await;

    // A restart finds it halted, with the same words; whoever holds it notices the decision.
    assert_eq!(running.terminate().await.unwrap().code(), Some(0));
    running = ingest(&pipeline, &[], &[]);
    let stored = halted(&pipeline, &running, &pipeline.topic, 0, "truncated").await;
    assert_eq!(stored, reason);
    pipeline.topic.send(&records(68, 0, 20)).await.unwrap();
    resume_at(&pipeline, 0, 20).await;
    drained(&pipeline, &pipeline.topic, 0).await;
    let restore = "UPDATE event_log.stream
        SET last_record_digest = $1, halted_reason = NULL, halted_code = NULL, halted_at = NULL
        WHERE partition = 2";
    sqlx::query(restore)
        .bind(right)
        .execute(&pipeline.database.pool)
        .await
        .unwrap();
    for partition in 1..3 {
        flows(&pipeline, &pipeline.topic, partition, 69).await;
    }
    clear(&mut running).await;
    let rows: Vec<(i32, i64, i64, Option<String>)> = sqlx::query_as(
        "SELECT generation, start_offset, next_offset, halted_code FROM event_log.streams
         WHERE partition = 0 ORDER BY generation",
    )
    .fetch_all(&pipeline.database.pool)
    .await
    .unwrap();
    let truncated = Some("truncated".to_owned());
    assert_eq!(rows, [(1, 0, 20, truncated), (2, 20, 40, None)]);
    assert_eq!(running.terminate().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn an_offset_beyond_the_end_is_told_from_records_that_are_gone() {
    let pipeline = read_before(4).await;
    for statement in [
        // Beyond the end, and the last record is there.
        "UPDATE event_log.stream SET next_offset = 30, skipped = skipped + 10 WHERE partition = 0",
        // A record was read that is not there.
        "UPDATE event_log.stream SET next_offset = 30, skipped = skipped + 10, last_record_offset = 25
         WHERE partition = 2",
    ] {
        sql(&pipeline, statement).await;
    }
    // Beyond the end, and no record was ever read in this generation.
    resume_at(&pipeline, 1, 30).await;
    let mut ingest = ingest(&pipeline, &[], &[]);
    let topic = &pipeline.topic;
    let reason = halted(&pipeline, &ingest, topic, 0, "beyond_end").await;
    assert!(
        reason.contains("ends at 20") && reason.contains("at 19"),
        "{reason}"
    );
    let reason = halted(&pipeline, &ingest, topic, 1, "beyond_end").await;
    assert!(reason.contains("no record was read"), "{reason}");
    let reason = halted(&pipeline, &ingest, topic, 2, "truncated").await;
    assert!(
        reason.contains("ends at 20") && reason.contains("at 25"),
        "{reason}"
    );
    flows(&pipeline, topic, 3, 70).await;

    for partition in 0..3 {
        resume_at(&pipeline, partition, 20).await;
    }
    for partition in 0..4 {
        flows(&pipeline, topic, partition, 71).await;
    }
    clear(&mut ingest).await;
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn what_retention_passes_while_a_process_stands_still_halts_as_expired() {
    let pipeline = Pipeline::fresh(2).await.unwrap();
    let mut ingest = ingest(&pipeline, &[], &[]);
    ingest.wait_ready().await.unwrap();
    for partition in 0..2 {
        flows(&pipeline, &pipeline.topic, partition, 72).await;
    }
    ingest.signal("STOP").unwrap();
    // The first of them may answer a question that was asked before.
    let lost = records(73, 0, 60);
    pipeline.topic.send(&lost[..1]).await.unwrap();
    pipeline.topic.send(&lost[1..]).await.unwrap();
    pipeline.topic.delete_below(0, 70).await.unwrap();
    ingest.signal("CONT").unwrap();
    let reason = halted(&pipeline, &ingest, &pipeline.topic, 0, "expired").await;
    assert!(reason.contains("begins at 70"), "{reason}");
    flows(&pipeline, &pipeline.topic, 1, 74).await;
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
}

/// Sends records in one transaction, which ends with a marker behind them.
fn in_transaction(pipeline: &Pipeline, records: &[Record]) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &pipeline.environment.kafka)
        .set("transactional.id", unique_name("transaction"))
        .create()
        .unwrap();
    producer.init_transactions(SOON).unwrap();
    producer.begin_transaction().unwrap();
    for record in records {
        let mut message: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(&pipeline.topic.name).partition(record.partition);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        producer.send(message).map_err(|(error, _)| error).unwrap();
    }
    producer.commit_transaction(SOON).unwrap();
}

#[tokio::test]
async fn a_trailing_marker_and_records_that_retention_passed_are_no_halt() {
    for protocol in ["cooperative-sticky", "range"] {
        let settings = [(
            "RUNLOG_KAFKA__PROPERTIES__PARTITION_ASSIGNMENT_STRATEGY",
            protocol,
        )];
        let pipeline = Pipeline::fresh(3).await.unwrap();
        let first = ingest(&pipeline, &[], &settings);
        for partition in 0..3 {
            in_transaction(&pipeline, &records(75, partition, 20));
            // The coordinator writes the marker after it has answered.
            wait_until("the marker to be written", SOON, async || {
                let head = pipeline.topic.heads().await?[&partition];
                ensure!(head == 21, "{head}");
                Ok(())
            })
            .await
            .unwrap();
            drained(&pipeline, &pipeline.topic, partition).await;
        }
        assert_eq!(first.terminate().await.unwrap().code(), Some(0));
        // The markers stand at 20, and were read; of partitions 0 and 1 all is gone now.
        for partition in 0..2 {
            pipeline.topic.delete_below(partition, 21).await.unwrap();
        }
        let mut second = ingest(&pipeline, &[], &settings);
        second.wait_ready().await.unwrap();
        for partition in 0..3 {
            flows(&pipeline, &pipeline.topic, partition, 76).await;
        }
        clear(&mut second).await;
        let rows: Vec<(i64, i64, Option<String>)> =
            sqlx::query_as("SELECT next_offset, skipped, halted_code FROM event_log.streams")
                .fetch_all(&pipeline.database.pool)
                .await
                .unwrap();
        assert_eq!(rows, vec![(41, 1, None); 3]);
        assert_eq!(second.terminate().await.unwrap().code(), Some(0));
    }
}

#[tokio::test]
async fn a_partition_whose_row_is_locked_does_not_hold_the_only_writer() {
    let pipeline = Pipeline::fresh(2).await.unwrap();
    // Each partition takes many batches, and a writer that waited for the lock would wait for this
    // long with each of its tries.
    let settings = [
        ("RUNLOG_INGEST__WRITERS", "1"),
        ("RUNLOG_INGEST__BATCH__MAX_EVENTS", "2"),
        ("RUNLOG_DATABASE__LOCK_TIMEOUT", "20s"),
    ];
    let mut ingest = ingest(&pipeline, &[], &settings);
    ingest.wait_ready().await.unwrap();
    for partition in 0..2 {
        flows(&pipeline, &pipeline.topic, partition, 77).await;
    }
    let mut holder = pipeline.database.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM event_log.stream WHERE partition = 0 FOR UPDATE")
        .execute(&mut *holder)
        .await
        .unwrap();
    pipeline.topic.send(&records(78, 0, 100)).await.unwrap();
    pipeline.topic.send(&records(79, 1, 100)).await.unwrap();
    drained(&pipeline, &pipeline.topic, 1).await;
    wait_until("/readyz to name the lock", SOON, async || {
        let ready = ingest.get("/readyz").await?;
        ensure!(
            ready.starts_with("HTTP/1.1 503") && ready.contains("lock"),
            "{ready}"
        );
        Ok(())
    })
    .await
    .unwrap();
    flows(&pipeline, &pipeline.topic, 1, 80).await;
    holder.rollback().await.unwrap();
    drained(&pipeline, &pipeline.topic, 0).await;
    ingest.wait_ready().await.unwrap();
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
}

/// Cuts a partition's log behind its first batches, as the election of a leader that lacks the others
/// does. The broker must not run; it finds out about the log by reading it.
fn cut(stack: &Stack, topic: &Topic, partition: i32, keep: usize) -> i64 {
    let segment = stack.segment(&topic.name, partition);
    let batches = Stack::batches(&segment).unwrap();
    let (end, at, _) = batches[keep];
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&segment)
        .unwrap();
    file.set_len(at as u64).unwrap();
    let remove = |path: &Path| {
        if path.exists() {
            std::fs::remove_file(path).unwrap();
        }
    };
    for name in [
        "recovery-point-offset-checkpoint",
        "replication-offset-checkpoint",
        ".kafka_cleanshutdown",
    ] {
        remove(&stack.dir.join("kafka").join(name));
    }
    for other in ["index", "timeindex", "snapshot"] {
        remove(&segment.with_extension(other));
    }
    end
}

/// Turns a byte of a partition's last batch. The broker does not look at it any more.
fn damage_last_batch(stack: &Stack, topic: &Topic, partition: i32) {
    let segment = stack.segment(&topic.name, partition);
    let (_, at, bytes) = *Stack::batches(&segment).unwrap().last().unwrap();
    let at = at + bytes - 3;
    let byte = std::fs::read(&segment).unwrap()[at] ^ 0x55;
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&segment)
        .unwrap();
    file.write_all_at(&[byte], at as u64).unwrap();
}

#[tokio::test]
async fn a_log_that_was_cut_halts_as_truncated_while_it_is_read_and_when_it_was_written_again() {
    let environment = Environment::from_env().unwrap();
    let (stack, environment) = Stack::start(&environment).await.unwrap();
    let pipeline = Pipeline::on(environment, 3).await.unwrap();
    let topic = &pipeline.topic;
    let mut running = ingest(&pipeline, &[], &[]);
    running.wait_ready().await.unwrap();
    for seed in 81..84 {
        for partition in 0..3 {
            topic.send(&records(seed, partition, 20)).await.unwrap();
        }
    }
    for partition in 0..3 {
        drained(&pipeline, topic, partition).await;
    }
    ids_stored(&pipeline, 3).await;
    stack.end("kafka", "KILL").await.unwrap();
    let end = cut(&stack, topic, 0, 1);
    stack.up().await.unwrap();
    let reason = halted(&pipeline, &running, topic, 0, "truncated").await;
    assert!(
        reason.contains(&format!("ends at {end}")) && reason.contains("unclean"),
        "{reason}"
    );
    flows(&pipeline, topic, 1, 85).await;
    flows(&pipeline, topic, 2, 85).await;

    assert_eq!(running.terminate().await.unwrap().code(), Some(0));
    stack.end("kafka", "KILL").await.unwrap();
    cut(&stack, topic, 1, 1);
    stack.up().await.unwrap();
    topic
        .with_own_producer()
        .unwrap()
        .send(&records(86, 1, 200))
        .await
        .unwrap();
    // The last record of partition 2 cannot be compared, as a bad disk might have it; that is no halt.
    damage_last_batch(&stack, topic, 2);
    running = ingest(&pipeline, &[], &[]);
    let reason = halted(&pipeline, &running, topic, 1, "truncated").await;
    assert!(
        reason.contains("another record") && !reason.contains("made again"),
        "{reason}"
    );
    flows(&pipeline, &topic.with_own_producer().unwrap(), 2, 87).await;
    assert_eq!(running.terminate().await.unwrap().code(), Some(0));
}
