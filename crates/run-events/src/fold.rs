//! The fold: one event applied to a run's state. Live projection, replay and `runs show --at-seq`
//! all come through [`RunState::apply`], so they cannot disagree.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    EventType, Inconsistency, Micros, RunEvent, RunEventType, RunState, RunStatus, StepAttempt,
    StepEventType, StepStatus,
};

/// An event as the log holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct LoggedEvent {
    /// Its place in its run: 1, 2, 3 ... The only order there is.
    pub run_seq: i64,
    /// When the log took it, by the database's clock. The authority for every time in the state.
    pub persisted_at: Micros,
    /// The event as sent; its payload is `None` also where it was erased.
    pub event: RunEvent,
}

/// What applying one event did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// A valid transition; the state moved.
    Valid,
    /// The type is unknown: only last_event_seq moved.
    Opaque,
    /// The transition is invalid: the run is marked inconsistent, its status did not change.
    Invalid(Inconsistency),
    /// This runSeq was applied before; nothing changed.
    Already,
    /// Events are missing before this one: nothing changed. Apply `next` first.
    Gap {
        /// The runSeq that has to come next.
        next: i64,
    },
}

impl RunState {
    /// Applies the next event of the run, or says why not. Never panics, whatever the sequence.
    pub fn apply(&mut self, logged: &LoggedEvent) -> Applied {
        if logged.run_seq <= self.last_event_seq {
            return Applied::Already;
        }
        // There is a higher number, so this one has a successor.
        let next = self.last_event_seq + 1;
        if logged.run_seq > next {
            return Applied::Gap { next };
        }
        self.last_event_seq = next;
        let applied = match (&logged.event.event_type, &logged.event.step_id) {
            (EventType::Run(kind), _) => self.apply_to_run(*kind, logged),
            (EventType::Step(kind), Some(step_id)) => self.apply_to_step(*kind, step_id, logged),
            // A step event without a step cannot be in the log; if it were, it would be opaque.
            (EventType::Step(_), None) | (EventType::Unknown(_), _) => return Applied::Opaque,
        };
        match applied {
            Ok(()) => Applied::Valid,
            Err(inconsistency) => {
                self.inconsistent = true;
                Applied::Invalid(inconsistency)
            }
        }
    }

    fn apply_to_run(
        &mut self,
        kind: RunEventType,
        logged: &LoggedEvent,
    ) -> Result<(), Inconsistency> {
        let prior = self.status;
        let next = prior.after(kind).ok_or(Inconsistency {
            prior_state: prior.as_str(),
            attempted_state: RunStatus::attempted_by(kind).as_str(),
        })?;
        let at = logged.persisted_at;
        if kind == RunEventType::RunQueued {
            self.queued_at = self.queued_at.or(Some(at));
            return Ok(());
        }
        self.close_interval(at);
        self.status = next;
        if next.is_terminal() {
            self.ended_at = Some(at);
            self.emitted_ended_at = Some(logged.event.emitted_at);
        } else {
            self.interval_since = Some(at);
        }
        match kind {
            RunEventType::RunStarted => {
                self.started_at = Some(at);
                self.emitted_started_at = Some(logged.event.emitted_at);
            }
            RunEventType::RunFailed => self.error = payload_error(&logged.event),
            _ => {}
        }
        Ok(())
    }

    /// Adds the open RUNNING or PAUSED interval to its sum. Two partitions may have clocks that
    /// differ by their batches, so an interval can be negative: it counts 0.
    fn close_interval(&mut self, at: Micros) {
        let Some(since) = self.interval_since.take() else {
            return;
        };
        let sum = match self.status {
            RunStatus::Paused => &mut self.paused_micros,
            _ => &mut self.active_micros,
        };
        *sum = sum.saturating_add(at.micros_since(since));
    }

    fn apply_to_step(
        &mut self,
        kind: StepEventType,
        step_id: &str,
        logged: &LoggedEvent,
    ) -> Result<(), Inconsistency> {
        let attempt_id = logged.event.logical_attempt_id;
        let attempts = self.steps.get(step_id);
        let known = attempts.and_then(|attempts| attempts.get(&attempt_id));
        let prior = known.map_or(StepStatus::Pending, |attempt| attempt.status);
        let next = prior.after(kind).ok_or(Inconsistency {
            prior_state: prior.as_str(),
            attempted_state: StepStatus::attempted_by(kind).as_str(),
        })?;
        let is_retry = known.is_none() && attempts.is_some_and(|attempts| !attempts.is_empty());
        let attempts = self.steps.entry(step_id.to_owned()).or_default();
        let latest_before = latest_status(attempts);
        attempts
            .entry(attempt_id)
            .or_insert_with(StepAttempt::pending)
            .advance(kind, next, logged);
        self.step_counts
            .moved(latest_before, latest_status(attempts));
        self.retries += i64::from(is_retry);
        Ok(())
    }
}

impl StepAttempt {
    fn pending() -> Self {
        Self {
            engine_attempt_id: 0,
            status: StepStatus::Pending,
            started_at: None,
            completed_at: None,
            emitted_started_at: None,
            emitted_completed_at: None,
            error: None,
        }
    }

    fn advance(&mut self, kind: StepEventType, next: StepStatus, logged: &LoggedEvent) {
        self.status = next;
        self.engine_attempt_id = logged.event.engine_attempt_id;
        if kind == StepEventType::StepStarted {
            self.started_at = Some(logged.persisted_at);
            self.emitted_started_at = Some(logged.event.emitted_at);
        } else {
            self.completed_at = Some(logged.persisted_at);
            self.emitted_completed_at = Some(logged.event.emitted_at);
        }
        if kind == StepEventType::StepFailed {
            self.error = payload_error(&logged.event);
        }
    }
}

fn latest_status(attempts: &BTreeMap<i32, StepAttempt>) -> Option<StepStatus> {
    attempts.last_key_value().map(|(_, attempt)| attempt.status)
}

fn payload_error(event: &RunEvent) -> Option<Value> {
    event.payload.as_ref()?.get("error").cloned()
}
