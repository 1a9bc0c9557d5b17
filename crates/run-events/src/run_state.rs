//! The state of one run: what the fold of its events amounts to.
//!
//! Built by [`crate::fold`], written to the read models by the projectors, kept whole in a
//! [`crate::snapshot`].

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{LoggedEvent, Micros, RunStatus, StepStatus};

/// One run after some prefix of its events. All rules: contract, "State" and "What the read models
/// say".
///
/// `steps` may hold only part of the run's steps, provided that each step an event touches is there
/// with all its attempts: the counters are kept beside them, so a projector need not load a run of
/// 5,000 steps to apply one event.
#[derive(Debug, Clone, PartialEq)]
pub struct RunState {
    /// The tenant that owns the run.
    pub tenant_id: String,
    /// The run.
    pub run_id: String,
    /// The project of the run's first event.
    pub project_id: String,
    /// The environment of the run's first event.
    pub environment_id: String,
    /// The plan of the run's first event.
    pub plan_id: String,
    /// The plan version of the run's first event.
    pub plan_version: String,
    /// Where the run is.
    pub status: RunStatus,
    /// Whether an invalid transition was ever asked for. It never becomes false again.
    pub inconsistent: bool,
    /// The last applied runSeq; 0 before the first event.
    pub last_event_seq: i64,
    /// When the run's first event, of whatever type, was persisted.
    pub first_persisted_at: Micros,
    /// The first RunQueued.
    pub queued_at: Option<Micros>,
    /// RunStarted.
    pub started_at: Option<Micros>,
    /// The terminal event.
    pub ended_at: Option<Micros>,
    /// RunStarted, by the producer's clock.
    pub emitted_started_at: Option<Micros>,
    /// The terminal event, by the producer's clock.
    pub emitted_ended_at: Option<Micros>,
    /// Since when the run has been RUNNING or PAUSED without a break; `None` in any other status.
    pub interval_since: Option<Micros>,
    /// Microseconds in closed RUNNING intervals.
    pub active_micros: i64,
    /// Microseconds in closed PAUSED intervals.
    pub paused_micros: i64,
    /// Steps by the status of their latest attempt.
    pub step_counts: StepCounts,
    /// Attempts with a valid event, less one, summed over the steps.
    pub retries: i64,
    /// `payload.error` of the RunFailed event; JSON null is a value, `None` is its absence.
    pub error: Option<Value>,
    /// Attempts with at least one valid event, by stepId and logicalAttemptId.
    pub steps: BTreeMap<String, BTreeMap<i32, StepAttempt>>,
}

/// How many steps are in which status, by their highest logicalAttemptId with a valid event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs)] // Named by the statuses.
pub struct StepCounts {
    pub running: i64,
    pub succeeded: i64,
    pub failed: i64,
    pub skipped: i64,
}

/// One attempt of one step.
#[derive(Debug, Clone, PartialEq)]
pub struct StepAttempt {
    /// Of the latest valid event.
    pub engine_attempt_id: i32,
    /// Where the attempt is; never PENDING, since a valid event moved it.
    pub status: StepStatus,
    /// StepStarted.
    pub started_at: Option<Micros>,
    /// StepCompleted, StepFailed or StepSkipped.
    pub completed_at: Option<Micros>,
    /// StepStarted, by the producer's clock.
    pub emitted_started_at: Option<Micros>,
    /// The finishing event, by the producer's clock.
    pub emitted_completed_at: Option<Micros>,
    /// `payload.error` of the StepFailed event; JSON null is a value, `None` is its absence.
    pub error: Option<Value>,
}

/// An invalid transition: what the state was, and what the event asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inconsistency {
    /// The run's or the attempt's status before (and after) the event.
    pub prior_state: &'static str,
    /// The status that the event would have led to.
    pub attempted_state: &'static str,
}

impl Inconsistency {
    /// The alert's code in `read_model.run_inconsistency`.
    pub const CODE: &'static str = "INVALID_TRANSITION";
}

impl RunState {
    /// The state before a run's first event, with what that event says about the run. The event
    /// itself is not applied.
    pub fn before(first: &LoggedEvent) -> Self {
        let event = &first.event;
        Self {
            tenant_id: event.tenant_id.clone(),
            run_id: event.run_id.clone(),
            project_id: event.project_id.clone(),
            environment_id: event.environment_id.clone(),
            plan_id: event.plan_id.clone(),
            plan_version: event.plan_version.clone(),
            status: RunStatus::Pending,
            inconsistent: false,
            last_event_seq: 0,
            first_persisted_at: first.persisted_at,
            queued_at: None,
            started_at: None,
            ended_at: None,
            emitted_started_at: None,
            emitted_ended_at: None,
            interval_since: None,
            active_micros: 0,
            paused_micros: 0,
            step_counts: StepCounts::default(),
            retries: 0,
            error: None,
            steps: BTreeMap::new(),
        }
    }

    /// `CONSISTENT` or `INCONSISTENT`.
    pub fn consistency(&self) -> &'static str {
        if self.inconsistent {
            "INCONSISTENT"
        } else {
            "CONSISTENT"
        }
    }

    /// How many attempts have a valid event: also where `steps` holds only part of them.
    pub fn attempts(&self) -> i64 {
        let counts = &self.step_counts;
        counts.running + counts.succeeded + counts.failed + counts.skipped + self.retries
    }

    /// What lists of runs are sorted by: the first of started_at, queued_at and the first event.
    pub fn sort_at(&self) -> Micros {
        self.started_at
            .or(self.queued_at)
            .unwrap_or(self.first_persisted_at)
    }

    /// started_at - queued_at in whole milliseconds; `None` unless both are known.
    pub fn queue_wait_ms(&self) -> Option<i64> {
        Some(self.started_at?.millis_since(self.queued_at?))
    }

    /// Whole milliseconds in closed RUNNING intervals.
    pub fn active_ms(&self) -> i64 {
        self.active_micros / 1_000
    }

    /// Whole milliseconds in closed PAUSED intervals.
    pub fn paused_ms(&self) -> i64 {
        self.paused_micros / 1_000
    }

    /// ended_at - started_at in whole milliseconds; `None` unless both are known.
    pub fn wall_ms(&self) -> Option<i64> {
        Some(self.ended_at?.millis_since(self.started_at?))
    }

    /// emitted_ended_at - emitted_started_at in whole milliseconds, floored, negative where the
    /// producer's clock says so; `None` unless both are known.
    pub fn emitted_wall_ms(&self) -> Option<i64> {
        let micros = self
            .emitted_ended_at?
            .0
            .saturating_sub(self.emitted_started_at?.0);
        Some(micros.div_euclid(1_000))
    }
}

impl StepAttempt {
    /// completed_at - started_at in whole milliseconds; `None` unless both are known.
    pub fn duration_ms(&self) -> Option<i64> {
        Some(self.completed_at?.millis_since(self.started_at?))
    }
}

impl StepCounts {
    /// Moves one step from one status to another; `None` = the step did not exist.
    pub(crate) fn moved(&mut self, from: Option<StepStatus>, to: Option<StepStatus>) {
        if let Some(count) = from.and_then(|status| self.of(status)) {
            *count -= 1;
        }
        if let Some(count) = to.and_then(|status| self.of(status)) {
            *count += 1;
        }
    }

    fn of(&mut self, status: StepStatus) -> Option<&mut i64> {
        match status {
            StepStatus::Pending => None,
            StepStatus::Running => Some(&mut self.running),
            StepStatus::Success => Some(&mut self.succeeded),
            StepStatus::Failed => Some(&mut self.failed),
            StepStatus::Skipped => Some(&mut self.skipped),
        }
    }
}
