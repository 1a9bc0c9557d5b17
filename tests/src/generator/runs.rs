//! Life stories of runs: each a list of events in the order in which an orchestrator emits them.
//!
//! Called by [`super::generate`], which interleaves them and adds the disorder of the transport.

use super::draft::{Draft, Payload, random_uuid};
use super::values;
use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use std::collections::HashMap;

const TENANTS: [&str; 4] = [
    "acme",
    "globex",
    "initech",
    "tenant with 'quotes' \\ and \u{1f600}",
];
const STEPS: [&str; 5] = [
    "model.orders",
    "model.customers",
    "seed.countries",
    "test \"unique\"",
    "s",
];

/// Writes one run's events.
struct Story<'a> {
    rng: &'a mut StdRng,
    template: Draft,
    clock_micros: i64,
    used: HashMap<String, i64>,
    events: Vec<Draft>,
}

impl Story<'_> {
    fn push(
        &mut self,
        event_type: &str,
        step: Option<&str>,
        logical_attempt: i64,
        payload: Option<Payload>,
    ) {
        // The engine's clock runs, mostly forward.
        self.clock_micros += self.rng.random_range(-200_000..2_000_000);
        let draft = Draft {
            event_id: random_uuid(self.rng),
            event_type: event_type.to_owned(),
            engine_attempt: self.rng.random_range(1..4),
            logical_attempt,
            emitted_at: values::emitted_at(self.rng, self.clock_micros),
            step: step.map(str::to_owned),
            payload,
            ..self.template.clone()
        };
        self.events.push(draft);
    }

    /// An event of the run. The same type again is a new logical attempt, hence a new key.
    fn run(&mut self, event_type: &str) {
        let attempt = self.used.entry(event_type.to_owned()).or_default();
        *attempt += 1;
        let attempt = *attempt;
        let payload = match event_type {
            "RunFailed" => values::error_payload(self.rng),
            _ => values::payload(self.rng),
        };
        self.push(event_type, None, attempt, payload);
    }

    /// An event of a step's attempt. The same again gets another plan version, hence a new key.
    fn step(&mut self, event_type: &str, step: &str, attempt: i64) {
        let uses = self
            .used
            .entry(format!("{event_type} {step} {attempt}"))
            .or_default();
        *uses += 1;
        let again = *uses - 1;
        let payload = match event_type {
            "StepFailed" => values::error_payload(self.rng),
            _ => values::payload(self.rng),
        };
        self.push(event_type, Some(step), attempt, payload);
        if let (Some(last), 1..) = (self.events.last_mut(), again) {
            last.plan_version = format!("{} again {again}", last.plan_version);
        }
    }

    fn unknown(&mut self) {
        let name = values::unknown_type(self.rng);
        let step = self
            .rng
            .random_bool(0.5)
            .then(|| *STEPS.choose(self.rng).unwrap_or(&"s"));
        let attempt = self.used.entry(String::new()).or_insert(1_000);
        *attempt += 1;
        let attempt = *attempt;
        let payload = values::payload(self.rng);
        self.push(&name, step, attempt, payload);
    }

    /// Steps with retries, some of them overlapping; `open` leaves the last one running.
    fn steps(&mut self, open: bool) {
        let count = self.rng.random_range(1..=STEPS.len());
        for step in &STEPS[..count] {
            if self.rng.random_bool(0.1) {
                self.step("StepSkipped", step, 1);
                continue;
            }
            let attempts = [1, 1, 1, 2, 3][self.rng.random_range(0..5)];
            for attempt in 1..attempts {
                self.step("StepStarted", step, attempt);
                self.step("StepFailed", step, attempt);
            }
            self.step("StepStarted", step, attempts);
            if self.rng.random_bool(0.05) {
                self.unknown();
            }
            if !(open && *step == STEPS[count - 1]) {
                let end = if self.rng.random_bool(0.9) {
                    "StepCompleted"
                } else {
                    "StepFailed"
                };
                self.step(end, step, attempts);
            }
        }
    }

    fn begin(&mut self) {
        for _ in 0..[0, 1, 1, 1, 2][self.rng.random_range(0..5)] {
            self.run("RunQueued");
        }
        self.run("RunStarted");
    }

    /// Any event, whether or not the state allows it.
    fn anything(&mut self) {
        let step = STEPS[self.rng.random_range(0..3)];
        let attempt = self.rng.random_range(1..=3);
        match self.rng.random_range(0..12) {
            0 => self.run("RunQueued"),
            1 | 2 => self.run("RunStarted"),
            3 => self.run("RunPaused"),
            4 => self.run("RunResumed"),
            5 => self.unknown(),
            6 => self.step("StepSkipped", step, attempt),
            7 | 8 => self.step("StepStarted", step, attempt),
            9 => self.step("StepCompleted", step, attempt),
            10 => self.step("StepFailed", step, attempt),
            _ => {
                let end =
                    ["RunCompleted", "RunFailed", "RunCancelled"][self.rng.random_range(0..3)];
                self.run(end);
            }
        }
    }
}

/// The events of one run that nobody else has. `number` makes its id unique.
pub fn story(rng: &mut StdRng, number: usize) -> Vec<Draft> {
    let template = template(rng, number);
    let clock_micros = 1_790_000_000_000_000 + rng.random_range(0..86_400_000_000);
    let mut story = Story {
        rng,
        template,
        clock_micros,
        used: HashMap::new(),
        events: Vec::new(),
    };
    match story.rng.random_range(0..100) {
        0..30 => {
            story.begin();
            story.steps(false);
            story.run("RunCompleted");
        }
        30..42 => {
            story.begin();
            story.steps(false);
            story.run("RunFailed");
        }
        42..52 => cancelled(&mut story),
        52..65 => paused(&mut story),
        65..75 => {
            story.begin();
            story.steps(true);
        }
        75..79 => {
            for _ in 0..5 {
                story.unknown();
            }
        }
        79..83 => story.run("RunQueued"),
        83..87 => drifting(&mut story),
        87..90 => foreign_keys(&mut story),
        _ => {
            for _ in 0..story.rng.random_range(5..60) {
                story.anything();
            }
        }
    }
    story.events
}

/// A run with many events: `steps` steps, begun and completed.
pub fn long_story(rng: &mut StdRng, number: usize, steps: usize) -> Vec<Draft> {
    let template = template(rng, number);
    let mut story = Story {
        rng,
        template,
        clock_micros: 0,
        used: HashMap::new(),
        events: Vec::new(),
    };
    story.begin();
    for step in 0..steps {
        story.step("StepStarted", &format!("step {step}"), 1);
        story.step("StepCompleted", &format!("step {step}"), 1);
    }
    story.run("RunCompleted");
    story.events
}

fn cancelled(story: &mut Story<'_>) {
    story.begin();
    story.steps(true);
    if story.rng.random_bool(0.5) {
        story.run("RunPaused");
    }
    story.run("RunCancelled");
    // A step that ends after the run is no inconsistency.
    story.step("StepStarted", "late", 1);
    story.step("StepCompleted", "late", 1);
}

fn paused(story: &mut Story<'_>) {
    story.begin();
    for _ in 0..story.rng.random_range(1..4) {
        story.run("RunPaused");
        story.steps(false);
        story.run("RunResumed");
    }
    if story.rng.random_bool(0.2) {
        story.run("RunPaused");
    } else {
        story.run("RunCompleted");
    }
}

/// Later events name another project and environment: the run keeps those of its first event.
fn drifting(story: &mut Story<'_>) {
    story.begin();
    story.template.project = "another project".into();
    story.template.environment = "another environment".into();
    story.run("RunCompleted");
}

/// Keys that are not derived: unique all the same.
fn foreign_keys(story: &mut Story<'_>) {
    story.begin();
    story.steps(false);
    for event in &mut story.events {
        event.foreign_key = Some(hex::encode(story.rng.random::<[u8; 32]>()));
    }
}

fn template(rng: &mut StdRng, number: usize) -> Draft {
    let long = number % 50 == 7;
    // 64 characters of four bytes each: exactly the 256 bytes that an id may have.
    let wide = |text: String| if long { values::wide(&text) } else { text };
    Draft {
        event_id: String::new(),
        event_type: String::new(),
        tenant: wide((*TENANTS.choose(rng).unwrap_or(&"acme")).to_owned()),
        project: wide(format!("project-{}", rng.random_range(0..5))),
        environment: wide("production".to_owned()),
        run: wide(format!("run-{number:05}")),
        plan: wide(format!("plan_{}", rng.random_range(0..9))),
        plan_version: format!("v{}", rng.random_range(1..4)),
        engine_attempt: 1,
        logical_attempt: 1,
        foreign_key: None,
        emitted_at: String::new(),
        step: None,
        payload: None,
    }
}
