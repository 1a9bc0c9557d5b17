//! What the tests that are about every projection know of each: a log that suits it, and what its rows
//! must be.

use std::sync::Arc;

use runlog_projectors::projection::{Projection, by_name};

use crate::logs;
use crate::recount::assert_counts_what_the_log_holds;
use crate::support::{Database, Log};
use crate::timeline::assert_equals_log;
use crate::whole_fold::assert_equals_whole_fold;

pub(crate) fn projection(name: &str) -> Arc<dyn Projection> {
    by_name(name).unwrap()
}

/// The schema of its first version.
pub(crate) fn first(name: &str) -> String {
    format!("{name}_1")
}

/// Appends random events that reach whatever this projection shows.
pub(crate) async fn write(
    name: &str,
    log: &mut Log<'_>,
    streams: &[i64],
    seed: u64,
    events: usize,
) {
    match name {
        "run_status" => logs::few_runs(log, streams, seed, events).await,
        "run_timeline" => logs::clocks_that_differ(log, streams, seed, events).await,
        "run_stats" => logs::some_days(log, streams, seed, events).await,
        _ => panic!("which log suits {name}?"),
    }
}

/// Compares what the views show with the log.
pub(crate) async fn assert_shown(name: &str, database: &Database, context: &str) {
    match name {
        "run_status" => assert_equals_whole_fold(database, context).await,
        "run_timeline" => assert_equals_log(database, context).await,
        "run_stats" => assert_counts_what_the_log_holds(database, context).await,
        _ => panic!("what does {name} show?"),
    }
}
