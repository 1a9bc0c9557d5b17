//! The verification of the log on a real PostgreSQL: what it finds, and that it finds nothing else.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;
mod tampering;
mod untouched;

use std::sync::Arc;

use event_log::verify::{Found, Progress, verify};

use crate::support::database::Database;

/// Verifies the log with two workers.
async fn verified(database: &Database) -> Found {
    let progress = Arc::new(Progress::default());
    let found = verify(&database.options, 2, &progress).await.unwrap();
    assert_eq!(progress.events(), found.events);
    found
}

/// Every finding that is told, as the line that people see.
fn lines(found: &Found) -> Vec<String> {
    let told = found.findings.by_kind().flat_map(|(_, _, first)| first);
    told.map(ToString::to_string).collect()
}
