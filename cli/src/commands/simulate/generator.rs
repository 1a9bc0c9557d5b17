//! The stream of records: many scripts side by side in simulated time, with faults in between, and
//! the count of what must become of every record. Deterministic by its seed; memory grows with the
//! runs that are active at once, not with their number. Called by `simulate`.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use run_events::{IdempotencyKey, Micros, RunEvent, json};
use serde::Serialize;

use super::faults;
use super::script::{Moment, Script, Told, event_id};

/// How long a run takes on average, with what it waits for its turn, in seconds. Measured.
const MEAN_RUN_SECONDS: f64 = 122.0;
/// Simulated time covers this much at most, so that emittedAt stays near now.
const LONGEST_SECONDS: f64 = 86_400.0;
/// A duplicate follows its original after this many records at most.
const FARTHEST_DUPLICATE: u64 = 20_000;

/// What is simulated. Shares are between 0 and 1, of the events that the scripts tell.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) seed: u64,
    pub(super) runs: u64,
    pub(super) tenants: usize,
    /// Runs at once.
    pub(super) active: usize,
    pub(super) duplicates: f64,
    pub(super) malformed: f64,
    pub(super) invalid_transitions: f64,
    pub(super) unknown_types: f64,
    /// The end of simulated time, about.
    pub(super) now: Micros,
}

/// One record to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outgoing {
    /// The key.
    pub(super) run_id: String,
    /// The value.
    pub(super) value: Vec<u8>,
}

/// What was published, and what must become of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Tally {
    /// Records.
    pub(super) published: u64,
    /// Runs with at least one event.
    pub(super) runs: u64,
    pub(super) expected: Expected,
    /// The runs as they stand.
    pub(super) runs_by_status: BTreeMap<&'static str, u64>,
    pub(super) inconsistent_runs: u64,
}

/// What the ledger must say in the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct Expected {
    pub(super) appended: u64,
    pub(super) duplicates: u64,
    pub(super) dead_letters: u64,
    pub(super) dead_letters_by_reason: BTreeMap<&'static str, u64>,
}

/// A record and what it counts as.
struct Ready {
    outgoing: Outgoing,
    counts_as: CountsAs,
}

#[derive(Clone, Copy)]
enum CountsAs {
    Appended,
    Duplicate,
    DeadLetter(&'static str),
}

/// Makes the records.
pub(super) struct Generator {
    options: Options,
    rng: StdRng,
    squeeze: f64,
    scripts: Vec<Option<Script>>,
    /// When each script acts next: moment, tie-breaker, place in `scripts`.
    agenda: BinaryHeap<Reverse<(Moment, u64, usize)>>,
    appointments: u64,
    /// Runs that may still begin.
    to_begin: u64,
    /// Records to give out before anybody acts again.
    ready: VecDeque<Ready>,
    /// Duplicates that wait: due at this count of records, tie-breaker.
    later: BinaryHeap<Reverse<Later>>,
    tally: Tally,
}

/// A duplicate that waits for its turn. Ordered by when it is due.
struct Later {
    due: u64,
    order: u64,
    event: RunEvent,
}

impl PartialEq for Later {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.order) == (other.due, other.order)
    }
}
impl Eq for Later {}
impl PartialOrd for Later {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Later {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

impl Generator {
    /// The stream for these options. The same options give the same records.
    pub(super) fn new(options: Options) -> Self {
        let wanted = usize::try_from(options.runs).unwrap_or(usize::MAX);
        let active = options.active.min(wanted).max(1);
        // Precision is of no matter here: it is an estimate of how long it all takes.
        let seconds = MEAN_RUN_SECONDS * (options.runs as f64 / active as f64).max(1.0);
        let squeeze = (LONGEST_SECONDS / seconds).min(1.0);
        let begin = options.now.0 - (seconds * squeeze * 1e6) as Moment;
        let mut generator = Self {
            rng: StdRng::seed_from_u64(options.seed),
            squeeze,
            scripts: Vec::new(),
            agenda: BinaryHeap::new(),
            appointments: 0,
            to_begin: options.runs,
            ready: VecDeque::new(),
            later: BinaryHeap::new(),
            tally: Tally::default(),
            options,
        };
        for place in 0..active {
            generator.scripts.push(None);
            let spread = generator.rng.random_range(0.0..MEAN_RUN_SECONDS);
            generator.begin_run(place, begin, spread);
        }
        generator
    }

    /// Lets no run begin or go on, and no duplicate follow: what is left completes what was begun.
    pub(super) fn stop(&mut self) {
        self.to_begin = 0;
        self.agenda.clear();
        self.later.clear();
    }

    /// The count of all records that were given out, with the runs as they stand.
    pub(super) fn tally(&self) -> Tally {
        let mut tally = self.tally.clone();
        for script in self.scripts.iter().flatten().filter(|script| script.told) {
            enter(&mut tally, script);
        }
        tally
    }

    /// How many runs are over.
    pub(super) fn runs_over(&self) -> u64 {
        self.tally.runs
    }

    fn begin_run(&mut self, place: usize, now: Moment, within: f64) {
        let Some(left) = self.to_begin.checked_sub(1) else {
            return;
        };
        self.to_begin = left;
        let gap = self.rng.random_range(0.0..=1.0) * within * self.squeeze * 1e6;
        let at = now + gap as Moment;
        let script = Script::new(&mut self.rng, self.options.tenants, at, self.squeeze);
        self.scripts[place] = Some(script);
        self.appoint(at, place);
    }

    fn appoint(&mut self, at: Moment, place: usize) {
        self.appointments += 1;
        self.agenda.push(Reverse((at, self.appointments, place)));
    }

    /// Lets whoever is next act. False where nobody is left.
    fn act(&mut self) -> bool {
        let Some(Reverse((now, _, place))) = self.agenda.pop() else {
            return false;
        };
        let Some(mut script) = self.scripts[place].take() else {
            return true;
        };
        if let Some(told) = script.act(&mut self.rng, now) {
            self.tell(&mut script, told, now);
        }
        match script.next_at(now) {
            Some(at) => {
                self.scripts[place] = Some(script);
                self.appoint(at, place);
            }
            None => {
                enter(&mut self.tally, &script);
                self.begin_run(place, now, 5.0);
            }
        }
        true
    }

    /// An event of the script, and the faults that come with it.
    fn tell(&mut self, script: &mut Script, told: Told, now: Moment) {
        let event = self.push(script, told, now);
        if self.rng.random_bool(self.options.malformed) {
            let (value, reason) = faults::malformed(&mut self.rng, &event);
            let counts_as = CountsAs::DeadLetter(reason.as_str());
            let run_id = event.run_id;
            let outgoing = Outgoing { run_id, value };
            self.ready.push_back(Ready {
                outgoing,
                counts_as,
            });
        }
        if self.rng.random_bool(self.options.unknown_types) {
            let told = faults::unknown_type(&mut self.rng, script);
            self.push(script, told, now + 1);
        }
        if self.rng.random_bool(self.options.invalid_transitions) {
            let told = faults::invalid_transition(&mut self.rng, script);
            script.inconsistent = true;
            self.push(script, told, now + 2);
        }
    }

    /// Readies an event that must be appended, and perhaps a duplicate for later.
    fn push(&mut self, script: &Script, told: Told, now: Moment) -> RunEvent {
        let event = envelope(&mut self.rng, script, told, now);
        self.ready.push_back(Ready {
            outgoing: outgoing(&event),
            counts_as: CountsAs::Appended,
        });
        if self.rng.random_bool(self.options.duplicates) {
            self.appointments += 1;
            self.later.push(Reverse(Later {
                // Never before its original: that is still among the ready ones.
                due: self.tally.published + self.ready.len() as u64 + distance(&mut self.rng),
                order: self.appointments,
                event: event.clone(),
            }));
        }
        event
    }

    /// A duplicate that is due, or any when nothing else is left: sent again by an engine that did
    /// not hear the answer.
    fn duplicate(&mut self, nothing_else: bool) -> Option<Ready> {
        let due = &self.later.peek()?.0.due;
        if !nothing_else && *due > self.tally.published {
            return None;
        }
        let Reverse(Later { mut event, .. }) = self.later.pop()?;
        event.emitted_at = Micros(event.emitted_at.0 + self.rng.random_range(1_000..3_000_000));
        event.event_id = event_id(&mut self.rng, event.emitted_at.0);
        event.engine_attempt_id += 1;
        Some(Ready {
            outgoing: outgoing(&event),
            counts_as: CountsAs::Duplicate,
        })
    }

    fn next_ready(&mut self) -> Option<Ready> {
        loop {
            if let Some(ready) = self.ready.pop_front().or_else(|| self.duplicate(false)) {
                return Some(ready);
            }
            if !self.act() {
                return self.duplicate(true);
            }
        }
    }
}

impl Iterator for Generator {
    type Item = Outgoing;

    fn next(&mut self) -> Option<Outgoing> {
        let Ready {
            outgoing,
            counts_as,
        } = self.next_ready()?;
        self.tally.published += 1;
        let expected = &mut self.tally.expected;
        match counts_as {
            CountsAs::Appended => expected.appended += 1,
            CountsAs::Duplicate => expected.duplicates += 1,
            CountsAs::DeadLetter(reason) => {
                expected.dead_letters += 1;
                *expected.dead_letters_by_reason.entry(reason).or_default() += 1;
            }
        }
        Some(outgoing)
    }
}

fn enter(tally: &mut Tally, script: &Script) {
    tally.runs += 1;
    *tally
        .runs_by_status
        .entry(script.standing.name())
        .or_default() += 1;
    tally.inconsistent_runs += u64::from(script.inconsistent);
}

fn envelope(rng: &mut StdRng, script: &Script, told: Told, now: Moment) -> RunEvent {
    let idempotency_key = IdempotencyKey::derive(
        &script.run_id,
        told.step_id,
        told.logical_attempt_id,
        told.event_type.as_str(),
        script.plan.id,
        &script.plan_version,
    );
    RunEvent {
        event_id: event_id(rng, now),
        event_type: told.event_type,
        tenant_id: script.tenant.clone(),
        project_id: script.plan.project.to_owned(),
        environment_id: script.environment.to_owned(),
        run_id: script.run_id.clone(),
        plan_id: script.plan.id.to_owned(),
        plan_version: script.plan_version.clone(),
        engine_attempt_id: script.engine_attempt,
        logical_attempt_id: told.logical_attempt_id,
        idempotency_key,
        emitted_at: Micros(now),
        step_id: told.step_id.map(str::to_owned),
        payload: Some(told.payload),
    }
}

fn outgoing(event: &RunEvent) -> Outgoing {
    Outgoing {
        run_id: event.run_id.clone(),
        value: json::encode(event),
    }
}

/// How many records later a duplicate comes: soon, in the next batches, or long after.
fn distance(rng: &mut StdRng) -> u64 {
    let farthest = match rng.random_range(0..10_u8) {
        0..4 => 5,
        4..8 => 2_000,
        _ => FARTHEST_DUPLICATE,
    };
    rng.random_range(0..farthest)
}
