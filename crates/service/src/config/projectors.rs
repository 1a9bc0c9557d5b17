//! Section `projectors`: which projections `runlog-projectors` runs and how they read the log.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::Problem;
use super::quantity::duration;

/// What `runlog-projectors` runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProjectorsConfig {
    /// Names of the projections to run, at least one. Default
    /// `["run_status", "run_timeline", "run_stats"]`. The process itself knows which exist and refuses others.
    pub projections: Vec<String>,
    /// Events folded in one transaction at most. 1 to 50000, default 8000.
    pub batch_events: usize,
    /// How long to wait at the head of the log before looking again. 1 ms to 1 min, default 100ms.
    #[serde(with = "duration")]
    pub poll_interval: Duration,
    /// How often a few runs, chosen at random, are compared with a fresh fold of the log; 0s = never. 0,
    /// or 100 ms to 1 h, default 5s.
    #[serde(with = "duration")]
    pub verify_interval: Duration,
    /// Time that the transactions in flight get on SIGTERM before they are abandoned (which is
    /// safe). 0 to 10 min, default 10s.
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
}

impl Default for ProjectorsConfig {
    fn default() -> Self {
        ProjectorsConfig {
            projections: ["run_status", "run_timeline", "run_stats"]
                .map(str::to_owned)
                .into(),
            batch_events: 8000,
            poll_interval: Duration::from_millis(100),
            verify_interval: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

impl ProjectorsConfig {
    pub(super) fn check(&self) -> Result<(), Problem> {
        const PROJECTIONS: &str = "projectors.projections";
        if self.projections.is_empty() {
            return Problem::err(PROJECTIONS, "is empty; name at least one: [\"run_status\"]");
        }
        let mut names = BTreeSet::new();
        for name in &self.projections {
            if !names.insert(name) {
                return Problem::err(PROJECTIONS, format!("names {name:?} twice; keep one"));
            }
        }
        Problem::unless_within(
            "projectors.batch_events",
            self.batch_events,
            1..=50_000,
            usize::to_string,
        )?;
        Problem::unless_lasting(
            "projectors.poll_interval",
            self.poll_interval,
            Duration::from_millis(1)..=Duration::from_secs(60),
        )?;
        if !self.verify_interval.is_zero() {
            Problem::unless_lasting(
                "projectors.verify_interval",
                self.verify_interval,
                Duration::from_millis(100)..=Duration::from_secs(3600),
            )?;
        }
        Problem::unless_lasting(
            "projectors.drain_timeout",
            self.drain_timeout,
            Duration::ZERO..=Duration::from_secs(600),
        )
    }
}
