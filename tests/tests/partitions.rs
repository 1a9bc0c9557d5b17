//! What a partition can hold besides records, and what can be missing from it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use runlog_tests::environment::unique_name;
use runlog_tests::generator::{Intent, Record, generate};
use runlog_tests::oracle::table::report;
use runlog_tests::{Pipeline, wait_until};
use sqlx::Row as _;

const DRAINED: Duration = Duration::from_secs(60);
const ANSWER: Duration = Duration::from_secs(30);

/// Records that are appended whatever else is in the topic.
fn good_records(count: usize, partitions: i32) -> Vec<Record> {
    let good = |record: &Record| record.intent == Intent::Append && record.content_type.is_none();
    generate(41, count, partitions)
        .into_iter()
        .filter(good)
        .collect()
}

fn transactional(pipeline: &Pipeline) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &pipeline.environment.kafka)
        .set("transactional.id", unique_name("transaction"))
        .create()
        .unwrap();
    producer.init_transactions(ANSWER).unwrap();
    producer
}

fn in_transaction(producer: &BaseProducer, topic: &str, records: &[Record], commit: bool) {
    producer.begin_transaction().unwrap();
    for record in records {
        let mut message: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(topic).partition(record.partition);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        producer.send(message).map_err(|(error, _)| error).unwrap();
    }
    if commit {
        producer.commit_transaction(ANSWER).unwrap();
    } else {
        producer.flush(ANSWER).unwrap();
        producer.abort_transaction(ANSWER).unwrap();
    }
}

/// Per partition: next_offset, appended, skipped.
async fn ledger(pipeline: &Pipeline) -> BTreeMap<i32, [i64; 3]> {
    let rows =
        sqlx::query("SELECT partition, next_offset, appended, skipped FROM event_log.streams")
            .fetch_all(&pipeline.database.pool)
            .await
            .unwrap();
    rows.iter()
        .map(|row| (row.get(0), [row.get(1), row.get(2), row.get(3)]))
        .collect()
}

#[tokio::test]
async fn aborted_transactions_and_control_records_are_skipped_up_to_the_very_end() {
    let pipeline = Pipeline::fresh(1).await.unwrap();
    let records = good_records(400, 1);
    let (committed, aborted, last) = (&records[..50], &records[50..80], &records[80..100]);
    let producer = transactional(&pipeline);
    in_transaction(&producer, &pipeline.topic.name, committed, true);
    in_transaction(&producer, &pipeline.topic.name, aborted, false);
    let mut ingest = pipeline.ingest().unwrap();
    ingest.wait_ready().await.unwrap();
    // 50 records and their commit marker, 30 aborted records and their abort marker: the end of the
    // partition holds nothing to deliver, and is accounted for all the same.
    pipeline.wait_ingested(DRAINED).await.unwrap();
    assert_eq!(ledger(&pipeline).await[&0], [82, 50, 32]);

    in_transaction(&producer, &pipeline.topic.name, last, true);
    pipeline.wait_ingested(DRAINED).await.unwrap();
    assert_eq!(ledger(&pipeline).await[&0], [103, 70, 33]);
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));

    // A restart behind trailing markers has nothing to redo, and nothing to complain about.
    let mut again = pipeline.ingest().unwrap();
    again.wait_ready().await.unwrap();
    in_transaction(&producer, &pipeline.topic.name, &records[100..110], true);
    pipeline.wait_ingested(DRAINED).await.unwrap();
    assert_eq!(ledger(&pipeline).await[&0], [114, 80, 34]);
    assert_eq!(again.terminate().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_partition_whose_next_offset_expired_halts_and_the_others_go_on() {
    let pipeline = Pipeline::fresh(2).await.unwrap();
    let records = good_records(3_000, 2);
    let of = |partition: i32| {
        let mine = records
            .iter()
            .filter(move |record| record.partition == partition);
        mine.cloned().collect::<Vec<_>>()
    };
    let (first, second) = (of(0), of(1));
    pipeline.topic.send(&first[..100]).await.unwrap();
    pipeline.topic.send(&second[..100]).await.unwrap();
    let mut ingest = pipeline.ingest().unwrap();
    ingest.wait_ready().await.unwrap();
    pipeline.wait_ingested(DRAINED).await.unwrap();
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));

    // While nobody reads, retention passes ten records of partition 0.
    pipeline.topic.send(&first[100..200]).await.unwrap();
    pipeline.topic.send(&second[100..200]).await.unwrap();
    pipeline.topic.delete_below(0, 110).await.unwrap();
    let ingest = pipeline.ingest().unwrap();
    wait_until(
        "partition 1 to be read and partition 0 to be halted",
        DRAINED,
        async || {
            let rows = sqlx::query(
                "SELECT next_offset, halted_reason FROM event_log.streams ORDER BY partition",
            )
            .fetch_all(&pipeline.database.pool)
            .await?;
            let state: Vec<(i64, Option<String>)> =
                rows.iter().map(|row| (row.get(0), row.get(1))).collect();
            anyhow::ensure!(state[0].1.is_some() && state[1].0 == 200, "{state:?}");
            Ok(())
        },
    )
    .await
    .unwrap();
    let state = ledger(&pipeline).await;
    assert_eq!(state[&0], [100, 100, 0], "nothing was reset in silence");
    let ready = ingest.get("/readyz").await.unwrap();
    assert!(ready.contains("halted") && ready.contains("100"), "{ready}");
    let metrics = ingest.get("/metrics").await.unwrap();
    assert!(
        metrics.contains("runlog_stream_halted") && metrics.contains("reason=\"expired\""),
        "{metrics}"
    );
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn two_ingest_processes_share_the_partitions_and_a_stopped_one_hands_over() {
    let pipeline = Pipeline::fresh(4).await.unwrap();
    let records = generate(43, 4_000, 4);
    let mut first = pipeline.ingest().unwrap();
    first.wait_ready().await.unwrap();
    let mut produced = pipeline.topic.send(&records[..1_500]).await.unwrap();
    let mut second = pipeline.ingest().unwrap();
    second.wait_ready().await.unwrap();
    wait_until("both processes to own partitions", DRAINED, async || {
        let owners: i64 = sqlx::query_scalar("SELECT count(DISTINCT owner) FROM event_log.streams")
            .fetch_one(&pipeline.database.pool)
            .await?;
        anyhow::ensure!(owners == 2, "{owners} owners");
        Ok(())
    })
    .await
    .unwrap();
    produced.extend(pipeline.topic.send(&records[1_500..3_000]).await.unwrap());
    assert_eq!(first.terminate().await.unwrap().code(), Some(0));
    produced.extend(pipeline.topic.send(&records[3_000..]).await.unwrap());
    let projectors = pipeline.projectors().unwrap();
    pipeline.wait_projected(DRAINED).await.unwrap();
    let differences = pipeline.differences(&produced).await.unwrap();
    assert!(differences.is_empty(), "{}", report(&differences, 20));
    assert_eq!(second.terminate().await.unwrap().code(), Some(0));
    assert_eq!(projectors.terminate().await.unwrap().code(), Some(0));
}
