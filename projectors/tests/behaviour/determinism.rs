//! The same log gives the same rows, in whatever batches, by however many processes and in whatever
//! order of its streams it is folded, and however many streams its events came through.

use sqlx::AssertSqlSafe;

use crate::by_hand;
use crate::each;
use crate::logs;
use crate::support::{Database, Log, Running, Settings, project_with, settings};
use crate::tables::{digest, forget, per_run};
use crate::verify::verify_version;

/// Events of each log.
const EVENTS: usize = 300;
/// More batches than any stream has.
const ALL: usize = 400;

/// Has the log written while so many processes share its streams, none of which gets anywhere before all
/// of it is there; then they fold it at once.
async fn fold_at_once(
    database: &Database,
    name: &str,
    log: &mut Log<'_>,
    streams: &[i64],
    processes: usize,
) {
    let small = Settings {
        batch_events: 3,
        ..settings()
    };
    let start = |n| {
        Running::start_with(
            database,
            &format!("process-{n}"),
            small.clone(),
            each::projection(name),
        )
    };
    let running: Vec<Running> = (0..processes).map(start).collect();
    let shared = format!(
        "SELECT count(owner) = {} AND count(DISTINCT owner) = {processes} FROM read_model.projection_checkpoints",
        streams.len()
    );
    database.holds(AssertSqlSafe(shared)).await;
    let mut barrier = database.pool.begin().await.unwrap();
    let table = per_run(database, &each::first(name)).await;
    let lock = format!("LOCK TABLE {table} IN EXCLUSIVE MODE");
    sqlx::raw_sql(AssertSqlSafe(lock))
        .execute(&mut *barrier)
        .await
        .unwrap();
    each::write(name, log, streams, 8, EVENTS).await;
    let waiting = format!(
        "SELECT count(*) = {} FROM pg_locks WHERE relation = '{table}'::regclass AND NOT granted",
        streams.len()
    );
    database.holds(AssertSqlSafe(waiting)).await;
    barrier.commit().await.unwrap();
    database.caught_up().await;
    for process in running {
        process.stop().await;
    }
}

/// Folds the log in every way, each time from nothing, and compares the digest of all rows. `batches` are
/// sizes, with how many runs are verified at once then.
async fn gives_through(
    partitions: i32,
    name: &str,
    golden: u64,
    processes: usize,
    batches: &[(usize, i64)],
) {
    let schema = each::first(name);
    let database = Database::new().await;
    let is_golden = async |how: &str| {
        let found = digest(&database, &schema, false).await;
        assert_eq!(found, golden, "{name} of {partitions} streams, {how}");
    };
    let mut log = Log::new(&database);
    let streams = logs::partitions(&log, partitions).await;
    fold_at_once(&database, name, &mut log, &streams, processes).await;
    is_golden(&format!("{processes} processes at once")).await;

    for (batch, at_once) in batches {
        forget(&database, &schema).await;
        let back = "UPDATE read_model.projection_checkpoint SET next_offset = partition * 100, applied = 0";
        database.execute(back).await;
        project_with(&database, name, *batch).await;
        is_golden(&format!("batches of {batch}")).await;
        let verified = verify_version(&database, name, 1, *at_once).await;
        assert_eq!(verified.lines, Vec::<String>::new());
        assert_eq!((verified.events, verified.differences), (EVENTS as u64, 0));
        let of_runs = digest(&database, &schema, true).await;
        assert_eq!(verified.digest, of_runs, "{name}, {at_once} runs at once");
    }

    let turned: Vec<i64> = streams.iter().rev().copied().collect();
    for (how, streams, size, turns) in [
        ("one stream after the other", &streams, 7, ALL),
        ("the last stream first", &turned, 7, ALL),
        ("in turn", &streams, 2, 1),
        ("in turn from the last stream on", &turned, 5, 2),
    ] {
        forget(&database, &schema).await;
        by_hand::apply(&database, &*each::projection(name), streams, size, turns).await;
        is_golden(how).await;
    }
}

async fn gives(name: &str, golden: u64) {
    tokio::join!(
        gives_through(2, name, golden, 2, &[(1, 1), (7, 2)]),
        gives_through(4, name, golden, 3, &[(2000, 100)]),
    );
}

#[tokio::test]
async fn the_same_log_gives_the_same_states_and_attempts_however_it_is_folded() {
    gives("run_status", 12_697_111_174_336_301_546).await;
}

#[tokio::test]
async fn the_same_log_gives_the_same_intervals_however_it_is_folded() {
    gives("run_timeline", 14_341_753_200_970_298_712).await;
}

#[tokio::test]
async fn the_same_log_gives_the_same_counts_however_it_is_folded() {
    gives("run_stats", 9_616_961_055_276_945_841).await;
}
