//! How many events a second one core folds, and digests, with nothing around it: no database, no decoding.
//! `cargo bench -p run-events`, or as part of `make bench`.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use run_events::digest::chain_digest;
use run_events::{Digest, EventType, IdempotencyKey, LoggedEvent, Micros, RunEvent, RunState};
use serde_json::{Value, json};
use uuid::Uuid;

/// A run as the log would hold it, growing event by event.
struct History(Vec<LoggedEvent>);

impl History {
    fn add(&mut self, event_type: &str, step_id: Option<&str>, attempt: i32, payload: Value) {
        let run_seq = self.0.len() as i64 + 1;
        let at = Micros(1_767_323_045_000_000 + run_seq * 1_000_000);
        let event = RunEvent {
            event_id: Uuid::nil(),
            event_type: EventType::from_name(event_type.to_owned()),
            tenant_id: "acme-retail".to_owned(),
            project_id: "finance-warehouse".to_owned(),
            environment_id: "prod".to_owned(),
            run_id: "0d3c6a9e-4f0c-4a8e-9d5d-3d4c0f7dbb8a".to_owned(),
            plan_id: "nightly_revenue".to_owned(),
            plan_version: "v2".to_owned(),
            engine_attempt_id: attempt,
            logical_attempt_id: attempt,
            idempotency_key: IdempotencyKey([7; 32]),
            emitted_at: at,
            step_id: step_id.map(str::to_owned),
            payload: payload.as_object().cloned(),
        };
        self.0.push(LoggedEvent {
            run_seq,
            persisted_at: at,
            event,
        });
    }
}

/// 20 events: 8 steps, one of them tried again.
fn short_run() -> Vec<LoggedEvent> {
    let mut history = History(Vec::new());
    let worker = || json!({"kind": "sql", "pool": "default", "worker": "worker-17"});
    let error = json!({"error": {"code": "TIMEOUT", "message": "no answer", "retryable": true}});
    history.add("RunStarted", None, 1, worker());
    for step in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        history.add("StepStarted", Some(step), 1, worker());
        if step == "d" {
            history.add("StepFailed", Some(step), 1, error.clone());
            history.add("StepStarted", Some(step), 2, worker());
        }
        let attempt = if step == "d" { 2 } else { 1 };
        history.add("StepCompleted", Some(step), attempt, worker());
    }
    history.add("RunCompleted", None, 1, worker());
    history.0
}

/// 100,000 events: 5,000 steps, ten attempts of each.
fn long_run() -> Vec<LoggedEvent> {
    let mut history = History(Vec::new());
    history.add("RunStarted", None, 1, Value::Null);
    for attempt in 1..=10 {
        for step in 0..5_000 {
            let step = format!("step-{step}");
            history.add("StepStarted", Some(&step), attempt, Value::Null);
            history.add("StepFailed", Some(&step), attempt, Value::Null);
        }
    }
    history.0.truncate(99_999);
    history.add("RunFailed", None, 1, Value::Null);
    history.0
}

fn fold(history: &[LoggedEvent]) -> RunState {
    let mut state = RunState::before(&history[0]);
    for event in history {
        state.apply(black_box(event));
    }
    state
}

fn folds(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("fold");
    for (name, history) in [
        ("a run of 20 events", short_run()),
        ("a run of 100,000 events", long_run()),
    ] {
        group.throughput(Throughput::Elements(history.len() as u64));
        // What the state holds is let go outside of the time.
        group.bench_function(name, |bencher| {
            bencher.iter_batched(|| (), |()| fold(&history), BatchSize::LargeInput)
        });
    }
    group.finish();
}

/// What makes a change of history visible, of each event that ingest appends.
fn digests(criterion: &mut Criterion) {
    let history = short_run();
    let mut group = criterion.benchmark_group("digest");
    group.throughput(Throughput::Elements(history.len() as u64));
    group.bench_function("content", |bencher| {
        bencher.iter(|| {
            history
                .iter()
                .all(|logged| black_box(&logged.event).content_digest().is_some())
        })
    });
    group.bench_function("chain", |bencher| {
        bencher.iter(|| {
            history.iter().fold(Digest::CHAIN_START, |chain, logged| {
                let event = black_box(&logged.event);
                chain_digest(
                    chain,
                    logged.run_seq,
                    event.event_id,
                    event.idempotency_key,
                    event.emitted_at,
                    event.engine_attempt_id,
                    Digest(event.idempotency_key.0),
                )
            })
        })
    });
    group.finish();
}

criterion_group!(benches, folds, digests);
criterion_main!(benches);
