//! The load: runs of twenty events each, many of them active at once, some events sent twice; the
//! same for the same seed. Pure; called by `load` and `latency`. Valid by the contract of the event.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use run_events::IdempotencyKey;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

/// Events of each run.
pub(crate) const EVENTS_A_RUN: u64 = 20;
/// A repeated event comes at most so many records after the first.
const REPEATED_WITHIN: u64 = 20_000;
/// emittedAt of the first event: 2026-01-01T00:00:00Z, in microseconds.
const BEGIN: i64 = 1_767_225_600_000_000;
/// Between two events, in microseconds of their emittedAt.
const APART: i64 = 100;

const TENANTS: [&str; 8] = [
    "acme-retail",
    "northwind-foods",
    "globex-energy",
    "initech-payments",
    "umbra-logistics",
    "wayfarer-travel",
    "stark-materials",
    "hooli-media",
];
const STEPS: [&str; 8] = [
    "stage.orders",
    "stage.refunds",
    "model.orders",
    "model.revenue_daily",
    "model.customers",
    "test.revenue_not_null",
    "publish.revenue_mart",
    "export.crm",
];

/// How event ids are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EventIds {
    /// UUIDv7: by time, as the contract recommends.
    V7,
    /// UUIDv4: random.
    V4,
}

/// What to generate.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Options {
    /// The same seed makes the same bytes.
    pub(crate) seed: u64,
    /// Different events; rounded down to whole runs.
    pub(crate) events: u64,
    /// Runs that go on side by side.
    pub(crate) active: usize,
    /// Events that are sent twice, as a share of 1.
    pub(crate) duplicates: f64,
    /// How event ids are made.
    pub(crate) event_ids: EventIds,
}

/// A record for the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// The key: the run's id.
    pub(crate) key: String,
    /// The event as JSON.
    pub(crate) value: Vec<u8>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    event_id: Uuid,
    event_type: &'static str,
    tenant_id: &'static str,
    project_id: &'static str,
    environment_id: &'static str,
    run_id: String,
    plan_id: &'static str,
    plan_version: &'static str,
    engine_attempt_id: i32,
    logical_attempt_id: i32,
    idempotency_key: String,
    emitted_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    step_id: Option<&'static str>,
    payload: Value,
}

/// A run on its way: queued, started, seven steps of which one needs a second attempt, one step
/// that is skipped, and an end.
struct Run {
    id: String,
    tenant: &'static str,
    retried: u64,
    fails: bool,
    told: u64,
}

/// The records, in the order they are sent in.
pub(crate) struct Generator {
    options: Options,
    rng: StdRng,
    active: Vec<Run>,
    runs_left: u64,
    sent: u64,
    repeats: BTreeMap<u64, Event>,
}

impl Generator {
    /// A generator at its first record.
    pub(crate) fn new(options: Options) -> Self {
        let runs_left = options.events / EVENTS_A_RUN;
        let rng = StdRng::seed_from_u64(options.seed);
        Self {
            options,
            rng,
            active: Vec::new(),
            runs_left,
            sent: 0,
            repeats: BTreeMap::new(),
        }
    }

    fn fill_up(&mut self) {
        while self.runs_left > 0 && self.active.len() < self.options.active {
            self.runs_left -= 1;
            let run = Run {
                id: format!("{:016x}", self.rng.random::<u64>()),
                tenant: TENANTS[self.rng.random_range(0..TENANTS.len())],
                retried: self.rng.random_range(0..7),
                fails: self.rng.random_bool(0.1),
                told: 0,
            };
            self.active.push(run);
        }
    }

    fn now(&self) -> i64 {
        BEGIN + self.sent.cast_signed() * APART
    }

    fn event_id(&mut self) -> Uuid {
        let millis = self.now().cast_unsigned() / 1_000;
        match self.options.event_ids {
            EventIds::V7 => {
                uuid::Builder::from_unix_timestamp_millis(millis, &self.rng.random()).into_uuid()
            }
            EventIds::V4 => uuid::Builder::from_random_bytes(self.rng.random()).into_uuid(),
        }
    }

    fn emitted_at(&self) -> String {
        // Within the range of chrono by far.
        DateTime::from_timestamp_micros(self.now())
            .unwrap_or_default()
            .to_rfc3339_opts(SecondsFormat::Micros, true)
    }

    /// The next event of a run chosen by chance.
    fn event(&mut self) -> Option<Event> {
        self.fill_up();
        if self.active.is_empty() {
            return None;
        }
        let place = self.rng.random_range(0..self.active.len());
        let run = &mut self.active[place];
        let (event_type, step_id, logical_attempt_id) = run.tell();
        let (id, tenant_id, over) = (run.id.clone(), run.tenant, run.told == EVENTS_A_RUN);
        if over {
            self.active.swap_remove(place);
        }
        let key = IdempotencyKey::derive(
            &id,
            step_id,
            logical_attempt_id,
            event_type,
            "revenue",
            "v12",
        );
        Some(Event {
            event_id: self.event_id(),
            event_type,
            tenant_id,
            project_id: "finance",
            environment_id: "prod",
            run_id: id,
            plan_id: "revenue",
            plan_version: "v12",
            engine_attempt_id: 1,
            logical_attempt_id,
            idempotency_key: key.to_string(),
            emitted_at: self.emitted_at(),
            step_id,
            payload: payload(&mut self.rng, event_type),
        })
    }

    /// An event whose time to come again has come, or that is left at the end: as a producer
    /// sends it again, with another id, time and engine attempt.
    fn repeat(&mut self, at_once: bool) -> Option<Event> {
        let first = self.repeats.first_entry()?;
        if !at_once && *first.key() > self.sent {
            return None;
        }
        let mut event = first.remove();
        event.event_id = self.event_id();
        event.emitted_at = self.emitted_at();
        event.engine_attempt_id += 1;
        Some(event)
    }

    fn repeat_later(&mut self, event: &Event) {
        if !self.rng.random_bool(self.options.duplicates) {
            return;
        }
        let mut due = self.sent + self.rng.random_range(1..REPEATED_WITHIN);
        while self.repeats.contains_key(&due) {
            due += 1;
        }
        self.repeats.insert(due, event.clone());
    }
}

impl Iterator for Generator {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        let event = match self.repeat(false) {
            Some(event) => event,
            None => match self.event() {
                Some(event) => {
                    self.repeat_later(&event);
                    event
                }
                None => self.repeat(true)?,
            },
        };
        self.sent += 1;
        Some(Record {
            key: event.run_id.clone(),
            // A struct of texts and numbers always serialises.
            value: serde_json::to_vec(&event).unwrap_or_default(),
        })
    }
}

impl Run {
    /// Type, step and attempt of the next event.
    fn tell(&mut self) -> (&'static str, Option<&'static str>, i32) {
        let place = self.told;
        self.told += 1;
        match place {
            0 => return ("RunQueued", None, 1),
            1 => return ("RunStarted", None, 1),
            18 => return ("StepSkipped", Some(STEPS[7]), 1),
            19 if self.fails => return ("RunFailed", None, 1),
            19 => return ("RunCompleted", None, 1),
            _ => {}
        }
        // Sixteen events of seven steps: two for each attempt.
        let attempt = (place - 2) / 2;
        let starts = place.is_multiple_of(2);
        let (step, logical) = match attempt {
            a if a <= self.retried => (a, 1),
            a if a == self.retried + 1 => (self.retried, 2),
            a => (a - 1, 1),
        };
        let name = STEPS[usize::try_from(step).unwrap_or_default()];
        let event_type = match starts {
            true => "StepStarted",
            false if step == self.retried && logical == 1 => "StepFailed",
            false => "StepCompleted",
        };
        (event_type, Some(name), logical)
    }
}

fn payload(rng: &mut StdRng, event_type: &str) -> Value {
    let worker = format!("wrk-{:04x}", rng.random::<u16>());
    match event_type {
        "RunQueued" => json!({"trigger": "schedule", "priority": 5}),
        "RunStarted" => json!({"worker": worker}),
        "StepStarted" => json!({"worker": worker}),
        "StepCompleted" => {
            let rows: u32 = rng.random_range(1_000..1_000_000);
            json!({"rowsWritten": rows, "bytesWritten": rows * 117})
        }
        "StepSkipped" => json!({"because": "nothing new in its sources"}),
        "RunCompleted" => json!({"steps": 8, "artifacts": 4, "result": "all steps done"}),
        _ => json!({"error": {"code": "TIMEOUT", "message": "no answer within 300 s"}}),
    }
}

#[cfg(test)]
#[path = "generator_tests.rs"]
mod tests;
