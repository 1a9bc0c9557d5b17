//! Verifying the read models against a fresh fold of the log.

use runlog_projectors::RunStatusProjection;
use runlog_projectors::runner::versions::Version;
use runlog_projectors::verify::{Verified, Verifier};

use crate::fold::random_log;
use crate::support::{Database, Log, project, run};

/// The digest of the rows that the log of the seed 8 gives, whoever folds it.
const GOLDEN: u64 = 12_697_111_174_336_301_546;

/// Verifies all runs, so many numbers at a time.
async fn verify(database: &Database, at_once: i64) -> Verified {
    let mut connection = database.pool.acquire().await.unwrap();
    let version = Version {
        projection: RunStatusProjection::NAME.to_owned(),
        version: 1,
        is_live: true,
    };
    let verifier = Verifier::new(&mut connection, version).await.unwrap();
    let last = event_log::read::last_run_no(&mut connection).await.unwrap();
    let (mut all, mut after) = (Verified::default(), 0);
    while after < last {
        let some = verifier.runs(
            &mut connection,
            &RunStatusProjection,
            after,
            after + at_once,
        );
        all.add(some.await.unwrap());
        after += at_once;
    }
    connection.close_on_drop();
    all
}

#[tokio::test]
async fn the_same_log_gives_the_same_digest_however_it_is_folded() {
    for (batch, at_once) in [(1, 1), (7, 2), (2000, 100)] {
        let database = Database::new().await;
        random_log(&database, 8, 300).await;
        project(&database, batch).await;
        let verified = verify(&database, at_once).await;
        assert_eq!(verified.lines, Vec::<String>::new());
        assert_eq!(
            (verified.runs, verified.events, verified.differences),
            (6, 300, 0)
        );
        assert_eq!(verified.digest, GOLDEN, "batches of {batch}");
    }
}

#[tokio::test]
async fn rows_that_were_changed_removed_or_invented_are_found() {
    let database = Database::new().await;
    random_log(&database, 9, 200).await;
    project(&database, 2000).await;
    for (damage, table, differences) in [
        ("UPDATE run_status_1.run_current SET retries = retries + 1 WHERE run_id = 'run-1'", "run_current", 2),
        ("DELETE FROM run_status_1.run_current WHERE run_id = 'run-2'", "run_current", 1),
        ("INSERT INTO run_status_1.step_attempt (tenant_id, run_id, step_id, logical_attempt_id, engine_attempt_id, status, last_event_seq)
          VALUES ('acme', 'run-3', 'invented', 1, 1, 'RUNNING', 1)", "step_attempt", 1),
        ("UPDATE run_status_1.run_current SET last_event_seq = last_event_seq - 1 WHERE run_id = 'run-4'", "run_current", 2),
    ] {
        let before = verify(&database, 100).await.differences;
        database.execute(damage).await;
        let found = verify(&database, 100).await;
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
    let verified = verify(&database, 100).await;
    assert_eq!(
        (verified.runs, verified.events, verified.differences),
        (1, 1, 0),
        "{:?}",
        verified.lines
    );
}
