//! Verifying the read models against a fresh fold of the log.

use runlog_projectors::RunStatusProjection;
use runlog_projectors::runner::versions::Version;
use runlog_projectors::verify::{Verified, Verifier};

use crate::each;
use crate::logs;
use crate::support::{Database, Log, project, run};

/// Verifies all runs of a version of a projection, so many numbers at a time.
pub(crate) async fn verify_version(
    database: &Database,
    name: &str,
    version: i32,
    at_once: i64,
) -> Verified {
    let mut connection = database.pool.acquire().await.unwrap();
    let version = Version {
        projection: name.to_owned(),
        version,
        is_live: true,
    };
    let verifier = Verifier::new(&mut connection, version).await.unwrap();
    let last = event_log::read::last_run_no(&mut connection).await.unwrap();
    let projection = each::projection(name);
    let (mut all, mut after) = (Verified::default(), 0);
    while after < last {
        let some = verifier.runs(&mut connection, &*projection, after, after + at_once);
        all.add(some.await.unwrap());
        after += at_once;
    }
    connection.close_on_drop();
    all
}

/// Verifies all runs of run_status.
async fn verify(database: &Database) -> Verified {
    verify_version(database, RunStatusProjection::NAME, 1, 100).await
}

#[tokio::test]
async fn rows_that_were_changed_removed_or_invented_are_found() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let streams = logs::partitions(&log, 2).await;
    logs::few_runs(&mut log, &streams, 9, 200).await;
    project(&database, 2000).await;
    for (damage, table, differences) in [
        ("UPDATE run_status_1.run_current SET retries = retries + 1 WHERE run_id = 'run-1'", "run_current", 2),
        ("DELETE FROM run_status_1.run_current WHERE run_id = 'run-2'", "run_current", 1),
        ("INSERT INTO run_status_1.step_attempt (tenant_id, run_id, step_id, logical_attempt_id, engine_attempt_id, status, last_event_seq)
          VALUES ('acme', 'run-3', 'invented', 1, 1, 'RUNNING', 1)", "step_attempt", 1),
        ("UPDATE run_status_1.run_current SET last_event_seq = last_event_seq - 1 WHERE run_id = 'run-4'", "run_current", 2),
    ] {
        let before = verify(&database).await.differences;
        database.execute(damage).await;
        let found = verify(&database).await;
        assert_eq!(found.differences - before, differences, "{damage}: {:?}", found.lines);
        let named = found.lines.iter().any(|line| line.starts_with(table));
        assert!(named, "{damage}: {:?}", found.lines);
    }
}

#[tokio::test]
async fn what_is_not_read_yet_is_no_difference() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let (early, late) = (log.stream(0, 1, 0).await, log.stream(1, 1, 0).await);
    log.append(early, "a", run("RunQueued")).await;
    project(&database, 2000).await;
    log.append(late, "a", run("RunStarted")).await;
    log.append(late, "b", run("RunQueued")).await;
    let verified = verify(&database).await;
    assert_eq!(
        (verified.runs, verified.events, verified.differences),
        (1, 1, 0),
        "{:?}",
        verified.lines
    );
}
