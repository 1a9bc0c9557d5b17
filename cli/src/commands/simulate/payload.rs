//! What the simulated events carry. Free of time and of anything that a second simulation with the
//! same seed would do differently: the same event has the same content.

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};

use super::world::pick;

const TRIGGERS: &[&str] = &[
    "schedule", "schedule", "schedule", "api", "backfill", "upstream",
];
const KINDS: &[&str] = &["sql", "sql", "python", "spark", "copy"];
const POOLS: &[&str] = &["transform_s", "transform_m", "transform_l", "ingest_m"];
const PEOPLE: &[&str] = &["dana.k", "ibrahim.o", "lena.s", "mateo.r", "yuki.t"];
const CAUSES: &[&str] = &[
    "superseded by a newer run",
    "source delivered late",
    "cost limit reached",
    "maintenance window",
];
const ERRORS: &[(&str, &str)] = &[
    ("TIMEOUT", "no answer from the warehouse within 300 s"),
    (
        "OUT_OF_MEMORY",
        "executor lost: container exceeded its memory limit",
    ),
    ("SQL_ERROR", "column \"net_amount\" does not exist"),
    ("TEST_FAILED", "got 17 rows, expected 0"),
    (
        "QUOTA_EXCEEDED",
        "too many concurrent queries for this account",
    ),
];

type Payload = Map<String, Value>;

fn object(value: Value) -> Payload {
    match value {
        Value::Object(map) => map,
        _ => Payload::new(),
    }
}

pub(super) fn queued(rng: &mut StdRng) -> Payload {
    object(json!({
        "trigger": pick(rng, TRIGGERS), "queue": pick(rng, POOLS), "priority": rng.random_range(1..10),
    }))
}

pub(super) fn started(rng: &mut StdRng) -> Payload {
    object(json!({"engine": "orchestrator/4.2.1", "pool": pick(rng, POOLS), "worker": worker(rng)}))
}

pub(super) fn step_started(rng: &mut StdRng) -> Payload {
    object(json!({"kind": pick(rng, KINDS), "pool": pick(rng, POOLS), "worker": worker(rng)}))
}

pub(super) fn step_completed(rng: &mut StdRng) -> Payload {
    let rows: u32 = 10_u32.pow(rng.random_range(1..7)) + rng.random_range(0..997);
    let bytes = u64::from(rows) * rng.random_range(40..400);
    object(json!({"rowsWritten": rows, "bytesWritten": bytes, "worker": worker(rng)}))
}

pub(super) fn step_failed(rng: &mut StdRng, retry: bool) -> Payload {
    let (code, message) = ERRORS[rng.random_range(0..ERRORS.len())];
    object(json!({"error": {"code": code, "message": message, "retryable": retry}}))
}

pub(super) fn step_skipped(because: &str) -> Payload {
    object(json!({"because": because}))
}

pub(super) fn stopped_by(rng: &mut StdRng) -> Payload {
    object(json!({"by": pick(rng, PEOPLE), "because": pick(rng, CAUSES)}))
}

pub(super) fn completed(steps: usize) -> Payload {
    object(json!({"steps": steps, "artifacts": steps / 2, "result": "all steps done"}))
}

pub(super) fn failed(step: &str, attempts: i32) -> Payload {
    let message = format!("step {step} failed after {attempts} attempts");
    object(json!({"error": {"code": "STEP_FAILED", "message": message, "stepId": step}}))
}

/// For events of types that the log does not know.
pub(super) fn observed(rng: &mut StdRng) -> Payload {
    object(json!({"cpuSeconds": rng.random_range(1..5_000), "worker": worker(rng)}))
}

fn worker(rng: &mut StdRng) -> String {
    format!("wrk-{:04x}", rng.random::<u16>())
}
