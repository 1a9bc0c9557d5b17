//! The events that are measured: runs of 20, about 500 bytes each, as a workflow engine publishes them.

use event_log::Record;
use run_events::{IdempotencyKey, LoggedEvent, Micros, RunEvent, json};
use serde_json::json;
use uuid::Uuid;

/// 2026-01-02T03:04:05Z, in milliseconds.
const START_MS: i64 = 1_767_323_045_000;

/// The values of the run's 20 records: 8 steps, one of them tried again.
pub(crate) fn values(run: u32) -> Vec<Vec<u8>> {
    let mut events = vec![event(run, 1, "RunStarted", None, 1)];
    for step in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let step = format!("model.orders_{step}");
        let mut add = |kind, attempt| {
            events.push(event(
                run,
                events.len() as i64 + 1,
                kind,
                Some(&step),
                attempt,
            ));
        };
        add("StepStarted", 1);
        if step.ends_with('d') {
            add("StepFailed", 1);
            add("StepStarted", 2);
            add("StepCompleted", 2);
        } else {
            add("StepCompleted", 1);
        }
    }
    events.push(event(run, 20, "RunCompleted", None, 1));
    events.iter().map(json::encode).collect()
}

/// The records of some runs, each judged valid.
pub(crate) fn records(runs: u32) -> Vec<Record> {
    let values = (0..runs).flat_map(values);
    let record = |(offset, value): (usize, Vec<u8>)| {
        let event = decoded(&value);
        Record {
            offset: offset as i64,
            timestamp_ms: Some(START_MS),
            key: Some(event.run_id.clone().into_bytes()),
            value: Some(value),
            headers: Vec::new(),
            verdict: Ok(event),
        }
    };
    values.enumerate().map(record).collect()
}

/// The run as the log holds it.
pub(crate) fn history(run: u32) -> Vec<LoggedEvent> {
    let logged = |(event, run_seq): (RunEvent, i64)| LoggedEvent {
        run_seq,
        persisted_at: event.emitted_at,
        event,
    };
    let events = values(run).into_iter().map(|value| decoded(&value));
    events.zip(1..).map(logged).collect()
}

/// 100,000 events of one run, without payloads: 5,000 steps, ten attempts of each.
pub(crate) fn long_history() -> Vec<LoggedEvent> {
    let mut history = Vec::new();
    let mut add = |kind, step: Option<&str>, attempt| {
        let run_seq = history.len() as i64 + 1;
        let event = RunEvent {
            payload: None,
            ..event(0, run_seq, kind, step, attempt)
        };
        history.push(LoggedEvent {
            run_seq,
            persisted_at: event.emitted_at,
            event,
        });
    };
    add("RunStarted", None, 1);
    for attempt in 1..=10 {
        for step in 0..5_000 {
            let step = format!("step-{step}");
            add("StepStarted", Some(&step), attempt);
            if (attempt, step.as_str()) != (10, "step-4999") {
                add("StepFailed", Some(&step), attempt);
            }
        }
    }
    add("RunFailed", None, 1);
    history
}

pub(crate) fn decoded(value: &[u8]) -> RunEvent {
    match json::decode(value) {
        Ok(decoded) => decoded.event,
        Err(rejection) => unreachable!("a sample is valid: {rejection}"),
    }
}

fn event(run: u32, seq: i64, kind: &str, step: Option<&str>, attempt: i32) -> RunEvent {
    let emitted_at = Micros((START_MS + seq * 1_234) * 1_000 + 567);
    let run_id = format!("0d3c6a9e-4f0c-4a8e-9d5d-3d4c{run:08x}");
    let payload = match kind {
        "RunStarted" => {
            json!({"engine": "orchestrator/4.2.1", "pool": "transform_m", "worker": "worker-17"})
        }
        "RunCompleted" => json!({"steps": 8, "warnings": 0}),
        "StepStarted" => json!({"kind": "sql", "pool": "transform_m", "worker": "worker-17"}),
        "StepCompleted" => {
            json!({"rows": 100_531, "bytes": 20_106_200, "seconds": 12.48, "cached": false, "output": "orders"})
        }
        _ => {
            json!({"error": {"code": "TIMEOUT", "message": "no answer within 300 s", "retryable": true}})
        }
    };
    let key = IdempotencyKey::derive(&run_id, step, attempt, kind, "nightly_revenue", "v2");
    RunEvent {
        event_id: version_7(emitted_at, run, seq),
        event_type: run_events::EventType::from_name(kind.to_owned()),
        tenant_id: "acme-retail".to_owned(),
        project_id: "finance".to_owned(),
        environment_id: "prod".to_owned(),
        run_id,
        plan_id: "nightly_revenue".to_owned(),
        plan_version: "v2".to_owned(),
        engine_attempt_id: attempt,
        logical_attempt_id: attempt,
        idempotency_key: key,
        emitted_at,
        step_id: step.map(str::to_owned),
        payload: payload.as_object().cloned(),
    }
}

/// A UUIDv7 of that time, the same whenever it is asked for.
fn version_7(at: Micros, run: u32, seq: i64) -> Uuid {
    let millis = (at.0 / 1_000) as u128;
    Uuid::from_u128(millis << 80 | 0x7 << 76 | 0x8 << 60 | u128::from(run) << 16 | seq as u128)
}
