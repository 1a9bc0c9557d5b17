//! `runlog rebuild` while others read, drop or park what it works on. Nobody builds here: the tests say how
//! far the versions have come.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use sqlx::{Connection, Executor, PgConnection};

use crate::support::{Place, Ran};

/// Waits until a fact holds.
async fn wait_until(watcher: &mut PgConnection, fact: &'static str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !sqlx::query_scalar::<_, bool>(fact)
        .fetch_one(&mut *watcher)
        .await
        .unwrap()
    {
        assert!(Instant::now() < deadline, "never: {fact}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The command has locked a table that the test's transaction reads next.
const LOCKED: &str =
    "SELECT EXISTS (SELECT FROM pg_locks WHERE granted AND mode = 'AccessExclusiveLock'
                    AND relation = 'run_timeline_1.run_state_interval'::regclass)";

/// The command holds a version still.
const HELD: &str = "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
     WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.mode = 'ExclusiveLock' AND l.granted)";

/// The live version of run_status has read a stream up to offset 5, a version 2 beside it up to offset 3.
const BEHIND: &str = "
    SELECT read_model.begin_rebuild('run_status');
    INSERT INTO read_model.projection_checkpoint
      (projection, version, stream_id, topic, partition, generation, next_offset, applied)
    VALUES ('run_status', 1, 1, 'events', 0, 1, 5, 5), ('run_status', 2, 1, 'events', 0, 1, 3, 3)";

/// Version 2 comes up.
const COMES_UP: &str =
    "UPDATE read_model.projection_checkpoint SET next_offset = 5, applied = 5 WHERE version = 2";

/// Two runs in both versions, one of them parked, which version 2 has applied further.
const PARKED: &str = "
    INSERT INTO run_status_1.run_current (tenant_id, run_id, project_id, environment_id, plan_id, plan_version,
      status, consistency, last_event_seq, sort_at, first_persisted_at)
    SELECT 'acme', run_id, 'p', 'e', 'plan', '1', 'PENDING', 'CONSISTENT', 1, '2026-01-01', '2026-01-01'
    FROM unnest(ARRAY['well', 'parked']) AS run_id;
    INSERT INTO run_status_2.run_current (tenant_id, run_id, project_id, environment_id, plan_id, plan_version,
      status, consistency, last_event_seq, sort_at, first_persisted_at)
    SELECT tenant_id, run_id, project_id, environment_id, plan_id, plan_version, status, consistency,
           CASE run_id WHEN 'parked' THEN 2 ELSE 1 END, sort_at, first_persisted_at
    FROM run_status_1.run_current;
    INSERT INTO read_model.parked_run (projection, version, tenant_id, run_id, run_no, run_seq, error)
    SELECT 'run_status', version, 'acme', 'parked', 1, 3, 'a bug' FROM unnest(ARRAY[1, 2]) AS version";

/// `runlog rebuild` with these arguments, on its way.
fn start(place: &Place, arguments: &[&str]) -> Child {
    let mut command = place.command(&["rebuild"]);
    command
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn ended(command: Child, code: i32) -> String {
    let ran = Ran::from(command.wait_with_output().unwrap());
    ran.ended(code).stderr()
}

#[tokio::test]
async fn the_live_version_is_held_still_until_the_new_one_has_come_up() {
    let place = Place::migrated().await;
    let mut watcher = place.connection().await;
    watcher.execute(BEHIND).await.unwrap();
    let command = start(&place, &["run_status"]);
    wait_until(&mut watcher, HELD).await;
    watcher.execute(COMES_UP).await.unwrap();
    let words = ended(command, 0);
    assert!(words.contains("Going on with version 2"), "{words}");
    let live = "SELECT state = 'live' FROM read_model.projection_version
                WHERE projection = 'run_status' AND version = 2";
    wait_until(&mut watcher, live).await;
}

#[tokio::test]
async fn a_rebuild_whose_version_somebody_drops_ends_and_says_so() {
    let place = Place::migrated().await;
    let mut watcher = place.connection().await;
    watcher.execute(BEHIND).await.unwrap();
    let command = start(&place, &["run_status"]);
    wait_until(&mut watcher, HELD).await;
    let drop = "SELECT read_model.drop_version('run_status', 2)";
    watcher.execute(drop).await.unwrap();
    let words = ended(command, 1);
    assert!(
        words.contains("version 2 of run_status is not being built beside version 1 any more"),
        "{words}"
    );
}

#[tokio::test]
async fn runs_that_are_parked_are_no_difference() {
    let place = Place::migrated().await;
    let mut watcher = place.connection().await;
    for done in [BEHIND, COMES_UP, PARKED] {
        watcher.execute(done).await.unwrap();
    }
    let words = ended(start(&place, &["run_status"]), 0);
    assert!(
        words.contains("Parked runs that were not compared: 1;"),
        "{words}"
    );
}

#[tokio::test]
async fn one_connection_in_the_configuration_is_enough() {
    let place = Place::migrated().await;
    let mut watcher = place.connection().await;
    for done in [BEHIND, COMES_UP] {
        watcher.execute(done).await.unwrap();
    }
    let words = ended(
        start(
            &place,
            &["run_status", "--set", "database.max_connections=1"],
        ),
        0,
    );
    assert!(words.contains("Remove the old one"), "{words}");
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
    let command = start(&place, &["run_timeline", "--drop", "1"]);
    wait_until(&mut watcher, LOCKED).await;
    // The command waits for this transaction, which now waits for the command.
    let second = "SELECT FROM run_timeline_1.run_state_interval";
    reading.execute(second).await.unwrap();
    reading.commit().await.unwrap();
    let words = ended(command, 0);
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
