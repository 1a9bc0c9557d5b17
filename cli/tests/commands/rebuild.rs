//! `runlog rebuild --drop` while others read what is removed.

use std::process::Stdio;
use std::time::{Duration, Instant};

use sqlx::{Connection, Executor, PgConnection};

use crate::support::{Place, Ran};

/// Waits until the command has locked a table that the test's transaction reads next.
async fn wait_locked(watcher: &mut PgConnection) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let locked =
        "SELECT EXISTS (SELECT FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock'
                    AND relation = 'run_timeline_1.run_state_interval'::regclass)";
    while !sqlx::query_scalar::<_, bool>(locked)
        .fetch_one(&mut *watcher)
        .await
        .unwrap()
    {
        assert!(Instant::now() < deadline, "the command never locked it");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_version_whose_tables_are_read_in_another_order_is_removed_and_the_reader_goes_on() {
    let place = Place::migrated().await;
    let (mut reader, mut watcher) = (place.connection().await, place.connection().await);
    for switch in [
        "SELECT read_model.begin_rebuild('run_timeline')",
        "SELECT read_model.publish('run_timeline', 2)",
    ] {
        watcher.execute(switch).await.unwrap();
    }
    let mut reading = reader.begin().await.unwrap();
    let first = "SELECT FROM run_timeline_1.run_timeline_run";
    reading.execute(first).await.unwrap();
    let command = place
        .command(&["rebuild", "run_timeline", "--drop", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_locked(&mut watcher).await;
    // The command waits for this transaction, which now waits for the command.
    let second = "SELECT FROM run_timeline_1.run_state_interval";
    reading.execute(second).await.unwrap();
    reading.commit().await.unwrap();
    let said = Ran::from(command.wait_with_output().unwrap()).done();
    let words = said.stderr();
    assert!(
        words.contains("Version 1 of run_timeline is removed"),
        "{words}"
    );
    let versions = "SELECT count(*) FROM read_model.projection_version
                    WHERE projection = 'run_timeline' AND version = 1";
    let left: i64 = sqlx::query_scalar(versions)
        .fetch_one(&mut watcher)
        .await
        .unwrap();
    assert_eq!(left, 0);
}
