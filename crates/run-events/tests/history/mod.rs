//! Histories of one run, written as the log would hold them, and their fold.

use run_events::{Applied, EventType, IdempotencyKey, LoggedEvent, Micros, RunEvent, RunState};
use serde_json::Value;
use uuid::Uuid;

/// One event of the run `run-1`, on its way into a history.
#[derive(Clone)]
pub(crate) struct Told(LoggedEvent);

/// A run event (or one of an unknown type) that the log took at this microsecond; the producer's
/// clock said half a second earlier.
pub(crate) fn run(event_type: &str, at: i64) -> Told {
    let event = RunEvent {
        event_id: Uuid::nil(),
        event_type: EventType::from_name(event_type.to_owned()),
        tenant_id: "acme".to_owned(),
        project_id: "warehouse".to_owned(),
        environment_id: "prod".to_owned(),
        run_id: "run-1".to_owned(),
        plan_id: "plan_abc".to_owned(),
        plan_version: "v2".to_owned(),
        engine_attempt_id: 1,
        logical_attempt_id: 1,
        idempotency_key: IdempotencyKey([7; 32]),
        emitted_at: Micros(at - 500_000),
        step_id: None,
        payload: None,
    };
    Told(LoggedEvent {
        run_seq: 0,
        persisted_at: Micros(at),
        event,
    })
}

/// An event of one attempt of a step.
pub(crate) fn step(event_type: &str, step_id: &str, attempt: i32, at: i64) -> Told {
    let mut told = run(event_type, at);
    told.0.event.step_id = Some(step_id.to_owned());
    told.0.event.logical_attempt_id = attempt;
    told
}

impl Told {
    pub(crate) fn emitted(mut self, at: i64) -> Self {
        self.0.event.emitted_at = Micros(at);
        self
    }

    pub(crate) fn engine_attempt(mut self, id: i32) -> Self {
        self.0.event.engine_attempt_id = id;
        self
    }

    /// `payload` must be an object.
    pub(crate) fn payload(mut self, payload: Value) -> Self {
        self.0.event.payload = payload.as_object().cloned();
        self
    }

    pub(crate) fn plan(
        mut self,
        project: &str,
        environment: &str,
        id: &str,
        version: &str,
    ) -> Self {
        let event = &mut self.0.event;
        event.project_id = project.to_owned();
        event.environment_id = environment.to_owned();
        event.plan_id = id.to_owned();
        event.plan_version = version.to_owned();
        self
    }
}

/// The history with its runSeqs, from 1.
pub(crate) fn logged(history: &[Told]) -> Vec<LoggedEvent> {
    (1..)
        .zip(history)
        .map(|(run_seq, told)| LoggedEvent {
            run_seq,
            ..told.0.clone()
        })
        .collect()
}

/// The state after the whole history, and what each event did.
pub(crate) fn fold(history: &[Told]) -> (RunState, Vec<Applied>) {
    let events = logged(history);
    let mut state = RunState::before(&events[0]);
    let applied = events.iter().map(|event| state.apply(event)).collect();
    (state, applied)
}

/// The state after the whole history.
pub(crate) fn state(history: &[Told]) -> RunState {
    fold(history).0
}
