//! A run's state as a JSON document, from which the fold can go on, and its digest.
//!
//! The document has the contract's fields (runId, status, consistency, lastEventSeq, steps[],
//! startedAt, completedAt, durations) and, beside them, what the fold needs to be resumed. The same
//! events give the same document, and so the same digest, on every machine.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::digest::Digest;
use crate::json::MAX_NESTING;
use crate::json_value::any_value;
use crate::run_state::StepCounts;
use crate::{Micros, RunState, RunStatus, StepAttempt, StepStatus};

/// The document. Times are RFC 3339 UTC with six digits; absent ones are null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Snapshot {
    tenant_id: String,
    run_id: String,
    project_id: String,
    environment_id: String,
    plan_id: String,
    plan_version: String,
    status: RunStatus,
    consistency: Consistency,
    last_event_seq: i64,
    first_persisted_at: Micros,
    queued_at: Option<Micros>,
    started_at: Option<Micros>,
    completed_at: Option<Micros>,
    emitted_started_at: Option<Micros>,
    emitted_completed_at: Option<Micros>,
    interval_since: Option<Micros>,
    durations: Durations,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    error: Option<Value>,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Consistency {
    Consistent,
    Inconsistent,
}

/// The milliseconds are for readers; the microseconds are the sums that the fold goes on with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Durations {
    queue_wait_ms: Option<i64>,
    active_ms: i64,
    paused_ms: i64,
    wall_ms: Option<i64>,
    active_micros: i64,
    paused_micros: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Step {
    step_id: String,
    logical_attempt_id: i32,
    engine_attempt_id: i32,
    status: StepStatus,
    started_at: Option<Micros>,
    completed_at: Option<Micros>,
    emitted_started_at: Option<Micros>,
    emitted_completed_at: Option<Micros>,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    error: Option<Value>,
}

/// Keeps JSON null apart from an absent field, which serde alone makes the same; bounds the
/// nesting, which [`Snapshot::from_json`] leaves to it.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    any_value(MAX_NESTING, deserializer).map(Some)
}

impl Snapshot {
    /// Reads a document back. `serde_json::from_str` would refuse one with a deeply nested error:
    /// its own limit counts the document's levels too.
    ///
    /// # Errors
    /// Where the text is not a snapshot's document.
    pub fn from_json(text: &str) -> serde_json::Result<Self> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        deserializer.disable_recursion_limit();
        let snapshot = Self::deserialize(&mut deserializer)?;
        deserializer.end().map(|()| snapshot)
    }

    /// SHA-256 over the document's RFC 8785 form: the test of determinism. `None` cannot happen for
    /// a snapshot of logged events, whose numbers are finite.
    pub fn digest(&self) -> Option<Digest> {
        let document = serde_json::to_value(self).ok()?;
        Digest::of_canonical(&document)
    }
}

impl From<&RunState> for Snapshot {
    /// The state must hold all steps of the run.
    fn from(state: &RunState) -> Self {
        let steps = state.steps.iter().flat_map(|(step_id, attempts)| {
            attempts
                .iter()
                .map(|(attempt_id, attempt)| step(step_id, *attempt_id, attempt))
        });
        Self {
            tenant_id: state.tenant_id.clone(),
            run_id: state.run_id.clone(),
            project_id: state.project_id.clone(),
            environment_id: state.environment_id.clone(),
            plan_id: state.plan_id.clone(),
            plan_version: state.plan_version.clone(),
            status: state.status,
            consistency: if state.inconsistent {
                Consistency::Inconsistent
            } else {
                Consistency::Consistent
            },
            last_event_seq: state.last_event_seq,
            first_persisted_at: state.first_persisted_at,
            queued_at: state.queued_at,
            started_at: state.started_at,
            completed_at: state.ended_at,
            emitted_started_at: state.emitted_started_at,
            emitted_completed_at: state.emitted_ended_at,
            interval_since: state.interval_since,
            durations: Durations {
                queue_wait_ms: state.queue_wait_ms(),
                active_ms: state.active_ms(),
                paused_ms: state.paused_ms(),
                wall_ms: state.wall_ms(),
                active_micros: state.active_micros,
                paused_micros: state.paused_micros,
            },
            error: state.error.clone(),
            steps: steps.collect(),
        }
    }
}

fn step(step_id: &str, logical_attempt_id: i32, attempt: &StepAttempt) -> Step {
    Step {
        step_id: step_id.to_owned(),
        logical_attempt_id,
        engine_attempt_id: attempt.engine_attempt_id,
        status: attempt.status,
        started_at: attempt.started_at,
        completed_at: attempt.completed_at,
        emitted_started_at: attempt.emitted_started_at,
        emitted_completed_at: attempt.emitted_completed_at,
        error: attempt.error.clone(),
    }
}

impl From<Snapshot> for RunState {
    fn from(snapshot: Snapshot) -> Self {
        let mut steps: BTreeMap<String, BTreeMap<i32, StepAttempt>> = BTreeMap::new();
        for step in snapshot.steps {
            let attempt = StepAttempt {
                engine_attempt_id: step.engine_attempt_id,
                status: step.status,
                started_at: step.started_at,
                completed_at: step.completed_at,
                emitted_started_at: step.emitted_started_at,
                emitted_completed_at: step.emitted_completed_at,
                error: step.error,
            };
            steps
                .entry(step.step_id)
                .or_default()
                .insert(step.logical_attempt_id, attempt);
        }
        let mut step_counts = StepCounts::default();
        let mut retries = 0;
        for attempts in steps.values() {
            step_counts.moved(
                None,
                attempts.last_key_value().map(|(_, attempt)| attempt.status),
            );
            retries += attempts.len() as i64 - 1;
        }
        Self {
            tenant_id: snapshot.tenant_id,
            run_id: snapshot.run_id,
            project_id: snapshot.project_id,
            environment_id: snapshot.environment_id,
            plan_id: snapshot.plan_id,
            plan_version: snapshot.plan_version,
            status: snapshot.status,
            inconsistent: snapshot.consistency == Consistency::Inconsistent,
            last_event_seq: snapshot.last_event_seq,
            first_persisted_at: snapshot.first_persisted_at,
            queued_at: snapshot.queued_at,
            started_at: snapshot.started_at,
            ended_at: snapshot.completed_at,
            emitted_started_at: snapshot.emitted_started_at,
            emitted_ended_at: snapshot.emitted_completed_at,
            interval_since: snapshot.interval_since,
            active_micros: snapshot.durations.active_micros,
            paused_micros: snapshot.durations.paused_micros,
            step_counts,
            retries,
            error: snapshot.error,
            steps,
        }
    }
}
