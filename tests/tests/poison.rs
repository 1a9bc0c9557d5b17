//! Records that could stop a consumer, and must not.
#![allow(clippy::unwrap_used, clippy::panic)]

use runlog_tests::generator::{Intent, generate};
use runlog_tests::oracle::table::report;
use runlog_tests::{Pipeline, wire};
use sqlx::Row;
use std::time::Duration;

const DRAINED: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_header_name_that_is_not_utf8_stops_nobody() {
    let pipeline = Pipeline::fresh(1).await.unwrap();
    let records: Vec<_> = generate(13, 1_000, 1)
        .into_iter()
        .filter(|record| record.intent == Intent::Append)
        .collect();
    let (before, rest) = records.split_at(20);
    let (poison, after) = rest.split_at(1);
    pipeline.topic.send(before).await.unwrap();
    let value = poison[0].value.as_deref().unwrap();
    let bootstrap = &pipeline.environment.kafka;
    let offset = wire::send(
        bootstrap,
        &pipeline.topic.name,
        0,
        value,
        (b"trace\xff\xfe", b"\x80"),
    )
    .unwrap();
    pipeline.topic.send(&after[..20]).await.unwrap();

    let mut ingest = pipeline.ingest().unwrap();
    ingest.wait_ready().await.unwrap();
    pipeline.wait_ingested(DRAINED).await.unwrap();
    // Appended or a dead letter, exactly once; which of the two, the contract leaves open.
    let row = sqlx::query(
        "SELECT (SELECT count(*) FROM event_log.run_events WHERE source_offset = $1),
                (SELECT count(*) FROM event_log.dead_letters WHERE source_offset = $1)",
    )
    .bind(offset)
    .fetch_one(&pipeline.database.pool)
    .await
    .unwrap();
    let (appended, dead): (i64, i64) = (row.get(0), row.get(1));
    assert_eq!(
        appended + dead,
        1,
        "appended {appended}, dead letters {dead}"
    );
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn every_kind_of_malformed_record_in_one_batch_leaves_its_neighbours_alone() {
    let pipeline = Pipeline::fresh(1).await.unwrap();
    let produced = pipeline.topic.send(&generate(17, 1_000, 1)).await.unwrap();
    let ingest = pipeline.ingest().unwrap();
    let projectors = pipeline.projectors().unwrap();
    pipeline.wait_projected(DRAINED).await.unwrap();
    let differences = pipeline.differences(&produced).await.unwrap();
    assert!(differences.is_empty(), "{}", report(&differences, 20));
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
    assert_eq!(projectors.terminate().await.unwrap().code(), Some(0));
}
