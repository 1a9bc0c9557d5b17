//! A database that will not take a record, for a reason that is not the record's: its partition waits
//! and says where, the others go on, and nothing becomes a dead letter for it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use anyhow::ensure;
use runlog_tests::generator::generate;
use runlog_tests::{Pipeline, Process, wait_until};

const SOON: Duration = Duration::from_secs(60);

/// Makes the database do something to every event of partition 0 from offset 20 on.
async fn on_partition_0(pipeline: &Pipeline, what: &str) {
    let trigger = format!(
        "CREATE FUNCTION event_log.interfere() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF NEW.source_offset >= 20 AND NEW.stream_id =
              (SELECT stream_id FROM event_log.stream WHERE partition = 0) THEN {what}; END IF;
           RETURN NEW;
         END $$;
         CREATE TRIGGER interfere BEFORE INSERT ON event_log.event
           FOR EACH ROW EXECUTE FUNCTION event_log.interfere()"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(trigger))
        .execute(&pipeline.database.pool)
        .await
        .unwrap();
}

async fn stop_interfering(pipeline: &Pipeline) {
    sqlx::raw_sql("DROP TRIGGER interfere ON event_log.event")
        .execute(&pipeline.database.pool)
        .await
        .unwrap();
}

/// Partition 1 is read to its end, and partition 0 up to its first event from offset 20 on.
async fn wait_for_the_neighbours(pipeline: &Pipeline) {
    let heads = pipeline.topic.heads().await.unwrap();
    let rows = "SELECT partition, next_offset FROM event_log.streams ORDER BY partition";
    wait_until("the other partition to go on", SOON, async || {
        let rows: Vec<(i32, i64)> = sqlx::query_as(rows)
            .fetch_all(&pipeline.database.pool)
            .await?;
        ensure!(rows.len() == 2 && rows[1].1 == heads[&1], "{rows:?}");
        ensure!(rows[0].1 >= 20, "{rows:?}");
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_database_never_finishes_is_shown_and_waited_for() {
    let pipeline = Pipeline::fresh(2).await.unwrap();
    on_partition_0(&pipeline, "PERFORM pg_sleep(3600)").await;
    let produced = pipeline.topic.send(&generate(81, 300, 2)).await.unwrap();
    let mut program = pipeline.program("runlog-ingest");
    program.env("RUNLOG_DATABASE__STATEMENT_TIMEOUT", "1s");
    let ingest = Process::spawn(&pipeline.environment, "runlog-ingest", program).unwrap();

    wait_for_the_neighbours(&pipeline).await;
    ingest
        .wait_unready(&["statement timeout"], SOON)
        .await
        .unwrap();
    stop_interfering(&pipeline).await;
    pipeline.wait_ingested(SOON).await.unwrap();
    pipeline.assert_as_sent(&produced).await.unwrap();
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_that_nobody_listed_halts_one_partition_and_not_the_process() {
    let pipeline = Pipeline::fresh(2).await.unwrap();
    on_partition_0(&pipeline, "RAISE EXCEPTION 'no reason at all'").await;
    pipeline.topic.send(&generate(82, 300, 2)).await.unwrap();
    let ingest = pipeline.ingest().unwrap();

    let halted = "SELECT next_offset, halted_reason FROM event_log.streams
                  WHERE partition = 0 AND halted_reason IS NOT NULL";
    wait_until("the partition to halt", SOON, async || {
        let row: Option<(i64, String)> = sqlx::query_as(halted)
            .fetch_optional(&pipeline.database.pool)
            .await?;
        let reason = row.map(|row| row.1).unwrap_or_default();
        ensure!(reason.contains("no reason at all"), "{reason:?}");
        Ok(())
    })
    .await
    .unwrap();
    ingest
        .wait_unready(&["no reason at all"], SOON)
        .await
        .unwrap();
    let heads = pipeline.topic.heads().await.unwrap();
    wait_until("the other partition to go on", SOON, async || {
        let stored: i64 =
            sqlx::query_scalar("SELECT next_offset FROM event_log.streams WHERE partition = 1")
                .fetch_one(&pipeline.database.pool)
                .await?;
        ensure!(stored == heads[&1], "{stored}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
}
