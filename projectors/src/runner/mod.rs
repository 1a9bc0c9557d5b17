//! The runner: brings every projection up to the head of every stream, and keeps it there.
//!
//! - [`Runner`] (coordinator) reads the streams' heads, shares the work with other processes by
//!   leases ([`checkpoint`], [`assignment`]) and starts one worker per lease.
//! - A worker applies batch after batch below the horizon; a batch is one transaction: the
//!   checkpoint is locked and checked, rows are written, the checkpoint moves.
//!
//! Called by [`crate::run`]; calls the projections through [`crate::projection::Projection`].

mod assignment;
mod batch;
pub mod checkpoint;
mod coordinator;
mod fault;
mod lag;
mod parked;
mod readiness;
pub mod versions;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use service::config::ProjectorsConfig;
use sqlx::PgPool;
use tokio::sync::Semaphore;

pub(crate) use fault::chain;

pub use coordinator::{Runner, RunnerError};
pub use readiness::{DATABASE, PROJECTIONS, Readiness};

use crate::metrics::Metrics;

/// How the runner works.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Events in one transaction at most.
    pub batch_events: usize,
    /// How often the heads of the streams are read.
    pub poll_interval: Duration,
    /// What the batches in flight get when the process is told to stop.
    pub drain_timeout: Duration,
    /// How long a lease lasts without being renewed: how long a stream waits after the process
    /// that read it was killed.
    pub lease: Duration,
}

impl Settings {
    /// How long a stream waits at most after its process was killed. Leases are renewed three
    /// times as often.
    pub const LEASE: Duration = Duration::from_secs(6);
}

impl From<&ProjectorsConfig> for Settings {
    fn from(config: &ProjectorsConfig) -> Self {
        Self {
            batch_events: config.batch_events,
            poll_interval: config.poll_interval,
            drain_timeout: config.drain_timeout,
            lease: Self::LEASE,
        }
    }
}

/// What the coordinator and its workers share.
#[derive(Debug)]
struct Shared {
    pool: PgPool,
    settings: Settings,
    metrics: Metrics,
    readiness: Readiness,
    /// One per connection that batches may use. Two are left: for the coordinator, and for
    /// releasing leases. Waiting here has no time limit, waiting for the pool has.
    batch_permits: Semaphore,
}

impl Shared {
    fn new(pool: PgPool, settings: Settings, metrics: Metrics, readiness: Readiness) -> Arc<Self> {
        let connections = pool.options().get_max_connections() as usize;
        Arc::new(Self {
            pool,
            settings,
            metrics,
            readiness,
            batch_permits: Semaphore::new(connections.saturating_sub(2).max(1)),
        })
    }
}
