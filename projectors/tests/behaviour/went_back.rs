//! A database that goes back, as an asynchronous failover or a restore leaves it: the last events are
//! gone, and ingest appends their records again, maybe in other batches.

use crate::support::{Database, Log, Running, run, settings};
use crate::whole_fold::assert_equals_whole_fold;

/// The events from offset 3 on were never committed.
const LOG_GOES_BACK: &str = "
    ALTER TABLE event_log.event DISABLE TRIGGER ALL;
    ALTER TABLE event_log.run DISABLE TRIGGER ALL;
    ALTER TABLE event_log.stream DISABLE TRIGGER ALL;
    DELETE FROM event_log.event WHERE source_offset >= 3;
    DELETE FROM event_log.run WHERE run_id = 'lost';
    UPDATE event_log.stream SET next_offset = 3, appended = 3;
    ALTER TABLE event_log.event ENABLE TRIGGER ALL;
    ALTER TABLE event_log.run ENABLE TRIGGER ALL;
    ALTER TABLE event_log.stream ENABLE TRIGGER ALL";
/// Nor was what was projected of them.
const READ_MODEL_GOES_BACK: &str = "
    DELETE FROM read_model.run_current WHERE run_id = 'lost';
    UPDATE read_model.projection_checkpoint SET next_offset = 3, applied = 3";

async fn three_events(log: &mut Log<'_>, stream: i64) {
    for event_type in ["RunQueued", "RunStarted", "RunCompleted"] {
        log.append(stream, "kept", run(event_type)).await;
    }
}

#[tokio::test]
async fn a_horizon_from_before_moves_no_checkpoint_over_events_that_are_yet_to_come() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    three_events(&mut log, stream).await;
    let running = Running::start(&database, "one", settings());
    database.caught_up().await;
    // The next batch knows the heads of now, and waits here for its checkpoint.
    let mut other = database.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM read_model.projection_checkpoint FOR UPDATE")
        .execute(&mut *other)
        .await
        .unwrap();
    log.append(stream, "lost", run("RunQueued")).await;
    log.append(stream, "lost", run("RunStarted")).await;
    database
        .holds(
            "SELECT EXISTS (SELECT FROM pg_stat_activity
              WHERE datname = current_database() AND application_name = 'runner'
                AND wait_event_type = 'Lock')",
        )
        .await;
    sqlx::raw_sql(LOG_GOES_BACK)
        .execute(&mut *other)
        .await
        .unwrap();
    other.commit().await.unwrap();
    // The batch has ended when the coordinator's next look at the heads has come and gone.
    database
        .holds(
            "SELECT NOT EXISTS (SELECT FROM pg_stat_activity
              WHERE datname = current_database() AND application_name = 'runner'
                AND (wait_event_type = 'Lock' OR state LIKE 'idle in transaction%'))",
        )
        .await;
    log.append(stream, "found", run("RunQueued")).await;
    log.append(stream, "found", run("RunStarted")).await;
    database.caught_up().await;
    assert_equals_whole_fold(&database, "gone back").await;
    running.stop().await;
}

#[tokio::test]
async fn a_checkpoint_that_went_back_is_followed_although_the_head_is_lower_than_before() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    three_events(&mut log, stream).await;
    log.append(stream, "lost", run("RunQueued")).await;
    log.append(stream, "lost", run("RunStarted")).await;
    let running = Running::start(&database, "one", settings());
    database.caught_up().await;
    let mut other = database.pool.begin().await.unwrap();
    for part in [READ_MODEL_GOES_BACK, LOG_GOES_BACK] {
        sqlx::raw_sql(part).execute(&mut *other).await.unwrap();
    }
    other.commit().await.unwrap();
    log.append(stream, "found", run("RunQueued")).await;
    database.caught_up().await;
    assert_equals_whole_fold(&database, "gone back").await;
    running.stop().await;
}
