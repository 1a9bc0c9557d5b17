//! What `runlog-ingest`, `runlog-projectors` and `runlog` share: one way to load the
//! configuration, to log, to answer probes and scrapes, to stop, to reach PostgreSQL and
//! Kafka, and to end with the right exit code.
//!
//! Called by the three processes only. It knows nothing of events, the log or the read models.

pub mod backoff;
pub mod config;
pub mod database;
pub mod exit;
pub mod health;
pub mod http;
pub mod kafka;
pub mod metrics;
mod process;
pub mod shutdown;
pub mod telemetry;

/// A third of ingest's time went into the C library's allocator: records are allocated on the poll thread and freed on
/// others.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

pub use process::{operator_name, process_name};
