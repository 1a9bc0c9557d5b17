//! What goes wrong on purpose: events that do not fit the run's state, events of unknown types, and
//! records that are no events. Called by `generator`, which counts what each must lead to.

use rand::RngExt;
use rand::rngs::StdRng;
use run_events::{EventType, Reason, RunEvent, RunEventType as R, StepEventType as S, json};
use serde_json::Value;

use super::payload;
use super::script::{Script, Standing, Told};
use super::world::pick;

/// An event that the run's state does not allow, with a key of its own, so that the log takes it
/// and the run becomes INCONSISTENT. Nothing that the script does later is affected by it.
pub(super) fn invalid_transition(rng: &mut StdRng, script: &mut Script) -> Told {
    let attempt = script.odd_attempt();
    if rng.random_bool(0.3) {
        // An attempt that never started ends.
        let (kind, payload) = if rng.random_bool(0.5) {
            (S::StepCompleted, payload::step_completed(rng))
        } else {
            (S::StepFailed, payload::step_failed(rng, false))
        };
        return Told {
            event_type: EventType::Step(kind),
            step_id: Some(script.any_step(rng)),
            logical_attempt_id: attempt,
            payload,
        };
    }
    let wrong: &[R] = match script.standing {
        Standing::Pending => &[R::RunCompleted, R::RunPaused, R::RunFailed],
        Standing::Running => &[R::RunStarted, R::RunResumed, R::RunQueued],
        Standing::Paused => &[R::RunStarted, R::RunPaused, R::RunCompleted],
        Standing::Completed | Standing::Failed | Standing::Cancelled => &[
            R::RunStarted,
            R::RunFailed,
            R::RunCancelled,
            R::RunCompleted,
        ],
    };
    Told {
        event_type: EventType::Run(wrong[rng.random_range(0..wrong.len())]),
        step_id: None,
        logical_attempt_id: attempt,
        payload: payload::stopped_by(rng),
    }
}

/// An event of a type that the log does not know.
pub(super) fn unknown_type(rng: &mut StdRng, script: &mut Script) -> Told {
    let name = pick(
        rng,
        &[
            "StepProgress",
            "LineageCaptured",
            "RunHeartbeat",
            "CostReported",
        ],
    );
    Told {
        event_type: EventType::Unknown(name.to_owned()),
        step_id: (name == "StepProgress").then(|| script.any_step(rng)),
        logical_attempt_id: script.odd_attempt(),
        payload: payload::observed(rng),
    }
}

/// A record that cannot be appended, made from an event that could, and the reason that its dead
/// letter must have.
pub(super) fn malformed(rng: &mut StdRng, event: &RunEvent) -> (Vec<u8>, Reason) {
    let good = json::encode(event);
    match rng.random_range(0..8_u8) {
        0 => (good[..good.len() * 2 / 3].to_vec(), Reason::InvalidJson),
        1 => {
            let text = format!("WARN  {} {} emitted late", event.run_id, event.event_type);
            (text.into_bytes(), Reason::InvalidJson)
        }
        2 => {
            let mut twice = format!("{{\"runId\":{:?},", event.run_id).into_bytes();
            twice.extend_from_slice(&good[1..]);
            (twice, Reason::InvalidJson)
        }
        3 => {
            let required = [
                "eventId",
                "eventType",
                "tenantId",
                "projectId",
                "environmentId",
                "runId",
                "planId",
                "planVersion",
                "engineAttemptId",
                "logicalAttemptId",
                "idempotencyKey",
                "emittedAt",
            ];
            (
                altered(&good, pick(rng, &required), None),
                Reason::InvalidEvent,
            )
        }
        4 => {
            let bad = [
                Value::from(0),
                Value::from(-1),
                Value::from(1.5),
                Value::from("2"),
            ];
            let bad = bad[rng.random_range(0..bad.len())].clone();
            (
                altered(&good, "logicalAttemptId", Some(bad)),
                Reason::InvalidEvent,
            )
        }
        5 => {
            let bad = Value::from("yesterday at noon");
            (altered(&good, "emittedAt", Some(bad)), Reason::InvalidEvent)
        }
        6 => {
            let bad = Value::from("not-a-key");
            (
                altered(&good, "idempotencyKey", Some(bad)),
                Reason::InvalidEvent,
            )
        }
        // A step event must have a step, a run event must not.
        _ => {
            let step = event.step_id.is_none().then(|| Value::from("model.orders"));
            (altered(&good, "stepId", step), Reason::InvalidEvent)
        }
    }
}

/// The event with one field set, or taken away.
fn altered(good: &[u8], field: &str, value: Option<Value>) -> Vec<u8> {
    let mut event: Value = serde_json::from_slice(good).unwrap_or_default();
    if let Some(fields) = event.as_object_mut() {
        match value {
            Some(value) => fields.insert(field.to_owned(), value),
            None => fields.remove(field),
        };
    }
    event.to_string().into_bytes()
}
