//! A database that went back: the commits of a while are gone, as after a failover to a standby that
//! lacked them.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use runlog_tests::Pipeline;
use runlog_tests::generator::generate;
use runlog_tests::oracle::table::report;

const SOON: Duration = Duration::from_secs(60);

/// What a standby holds that had got the claims, and nothing of what was appended under them.
const BEFORE_ANYTHING_WAS_APPENDED: &str = "
    BEGIN;
    ALTER TABLE event_log.stream DISABLE TRIGGER USER;
    ALTER TABLE event_log.event DISABLE TRIGGER ALL;
    ALTER TABLE event_log.run DISABLE TRIGGER ALL;
    DELETE FROM event_log.event;
    DELETE FROM event_log.run;
    DELETE FROM event_log.dead_letter;
    UPDATE event_log.stream
    SET next_offset = start_offset, appended = 0, duplicates = 0, dead_lettered = 0, skipped = 0,
        last_record_offset = NULL, last_record_digest = NULL, last_persisted_at = NULL;
    ALTER TABLE event_log.stream ENABLE ALWAYS TRIGGER stream_is_never_deleted;
    ALTER TABLE event_log.stream ENABLE ALWAYS TRIGGER stream_only_advances;
    ALTER TABLE event_log.event ENABLE ALWAYS TRIGGER event_is_append_only;
    ALTER TABLE event_log.event ENABLE ALWAYS TRIGGER event_row_is_immutable;
    ALTER TABLE event_log.run ENABLE ALWAYS TRIGGER run_is_append_only;
    ALTER TABLE event_log.run ENABLE ALWAYS TRIGGER run_row_is_immutable;
    COMMIT";

#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_nobody_writes_to_read_again_what_the_database_lost() {
    let pipeline = Pipeline::fresh(3).await.unwrap();
    let ingest = pipeline.ingest().unwrap();
    let records = generate(71, 300, 3);
    let produced = pipeline.topic.send(&records).await.unwrap();
    pipeline.wait_ingested(SOON).await.unwrap();

    sqlx::raw_sql(BEFORE_ANYTHING_WAS_APPENDED)
        .execute(&pipeline.database.pool)
        .await
        .unwrap();
    // No new record, and no restart.
    pipeline.wait_ingested(SOON).await.unwrap();

    let projectors = pipeline.projectors().unwrap();
    pipeline.wait_projected(SOON).await.unwrap();
    let differences = pipeline.differences(&produced).await.unwrap();
    assert!(differences.is_empty(), "{}", report(&differences, 20));
    assert_eq!(projectors.terminate().await.unwrap().code(), Some(0));
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
}
