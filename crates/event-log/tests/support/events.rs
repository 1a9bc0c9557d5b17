//! Events, records and batches to append.

use event_log::{Batch, Outcome, Record};
use run_events::{EventType, IdempotencyKey, Micros, Rejection, RunEvent};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// A valid event. Its key is a function of run and step, so the same two make a duplicate, with a
/// new event id as a retry has.
pub fn event(tenant: &str, run: &str, step: &str) -> RunEvent {
    RunEvent {
        event_id: Uuid::now_v7(),
        event_type: EventType::from_name("StepStarted".to_owned()),
        tenant_id: tenant.to_owned(),
        project_id: "project".to_owned(),
        environment_id: "environment".to_owned(),
        run_id: run.to_owned(),
        plan_id: "plan".to_owned(),
        plan_version: "v1".to_owned(),
        engine_attempt_id: 1,
        logical_attempt_id: 1,
        idempotency_key: IdempotencyKey(Sha256::digest(format!("{run}|{step}")).into()),
        emitted_at: Micros(1_767_225_600_000_000),
        step_id: Some(step.to_owned()),
        payload: None,
    }
}

/// The same with a payload, given as JSON.
pub fn event_with(tenant: &str, run: &str, step: &str, payload: &str) -> RunEvent {
    RunEvent {
        payload: serde_json::from_str(payload).unwrap(),
        ..event(tenant, run, step)
    }
}

pub fn record(offset: i64, verdict: Result<RunEvent, Rejection>) -> Record {
    Record {
        offset,
        timestamp_ms: Some(1_767_225_600_000 + offset),
        key: Some(b"key".to_vec()),
        value: Some(format!("value {offset}").into_bytes()),
        headers: Vec::new(),
        verdict,
    }
}

/// Events at consecutive offsets from `start`.
pub fn batch(start: i64, events: impl IntoIterator<Item = RunEvent>) -> Batch {
    let records: Vec<_> = (start..)
        .zip(events)
        .map(|(offset, event)| record(offset, Ok(event)))
        .collect();
    Batch {
        start,
        end: start + records.len() as i64,
        skipped: 0,
        records,
    }
}

/// Outcomes without what differs between two equal histories: ids and times.
pub fn shape(outcomes: &[Outcome]) -> Vec<String> {
    let shape = |outcome: &Outcome| match outcome {
        Outcome::Duplicate(original) => format!("duplicate of {}", original.run_seq),
        Outcome::Conflict(original) => format!("conflict with {}", original.run_seq),
        other => format!("{other:?}"),
    };
    outcomes.iter().map(shape).collect()
}
