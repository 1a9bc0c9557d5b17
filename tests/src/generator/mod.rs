//! Records to send: realistic runs, and everything that a transport or a careless producer does
//! to them.
//!
//! Called by the end-to-end suite. The same seed makes the same records. Each record says what it
//! is meant to be ([`Intent`]); only this module's own tests read that, to make sure that the
//! generator and the oracle understand each other.

mod bad_payloads;
pub mod draft;
pub mod malformed;
pub mod runs;
pub mod values;

use draft::{Draft, Payload, random_uuid, render};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use std::collections::VecDeque;

/// Runs that are under way at the same time.
const ACTIVE_RUNS: usize = 60;

/// What the generator means a record to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// A new event.
    Append,
    /// A retry.
    Duplicate,
    /// The same key with other content.
    Conflict,
    /// Another event under an event id that the log holds.
    EventIdReused,
    /// Unacceptable: what is wrong, and a reason that fits.
    Malformed(String, &'static str),
}

/// A record to send.
#[derive(Clone, Debug)]
pub struct Record {
    /// Kafka partition.
    pub partition: i32,
    /// What a partitioner makes of the run's id: with another number of partitions the record
    /// belongs elsewhere.
    pub hash: u32,
    /// Key bytes.
    pub key: Option<Vec<u8>>,
    /// Value bytes.
    pub value: Option<Vec<u8>>,
    /// `content-type` header.
    pub content_type: Option<String>,
    /// What it is meant to be.
    pub intent: Intent,
}

/// At least `count` records for `partitions` partitions. All records of a run are on one
/// partition, chosen by its id.
#[must_use]
pub fn generate(seed: u64, count: usize, partitions: i32) -> Vec<Record> {
    let mut generator = Generator {
        rng: StdRng::seed_from_u64(seed),
        partitions,
        runs: 0,
        active: Vec::new(),
        long: VecDeque::new(),
        sent: vec![Vec::new(); usize::try_from(partitions).unwrap_or_default()],
        spoilt: Vec::new(),
        records: Vec::with_capacity(count),
    };
    let long = runs::long_story(&mut generator.rng, 100_000, count / 30);
    generator.long = long.into();
    generator.runs_under_way();
    generator.every_kind_of_malformed();
    while generator.records.len() < count || !generator.spoilt.is_empty() {
        generator.next();
    }
    generator.records
}

/// FNV-1a of the run id.
fn hash_of(run: &str) -> u32 {
    run.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

/// A producer's partitioner.
#[must_use]
pub fn partition_of(hash: u32, partitions: i32) -> i32 {
    i32::try_from(hash % u32::try_from(partitions).unwrap_or(1)).unwrap_or_default()
}

struct Generator {
    rng: StdRng,
    partitions: i32,
    runs: usize,
    active: Vec<VecDeque<Draft>>,
    /// What is left of the run with more events than any other.
    long: VecDeque<Draft>,
    /// Appended events by partition, in the order in which they were sent.
    sent: Vec<Vec<Draft>>,
    spoilt: Vec<malformed::Spoilt>,
    records: Vec<Record>,
}

impl Generator {
    fn next(&mut self) {
        match self.rng.random_range(0..1000) {
            0..25 => self.malformed(),
            25..105 => self.duplicate(),
            105..125 => self.conflict(),
            125..140 => self.reused_event_id(),
            140..145 => self.rare_but_valid(),
            145..220 => {
                if let Some(draft) = self.long.pop_front() {
                    self.append(draft);
                }
            }
            _ => self.continue_a_run(),
        }
    }

    fn partition_of(&self, run: &str) -> i32 {
        partition_of(hash_of(run), self.partitions)
    }

    fn runs_under_way(&mut self) {
        while self.active.len() < ACTIVE_RUNS {
            let number = self.runs;
            self.runs += 1;
            let story = runs::story(&mut self.rng, number);
            if self.rng.random_bool(0.1) {
                let sibling = self.sibling(&story, number);
                self.active.push(sibling.into());
            }
            self.active.push(story.into());
        }
    }

    /// The same keys once more: in a run of the same id of another tenant, or in another run.
    fn sibling(&mut self, story: &[Draft], number: usize) -> Vec<Draft> {
        let same_run = self.rng.random_bool(0.5);
        let copy = |(draft, event_id): (&Draft, String)| {
            let mut copy = Draft {
                event_id,
                ..draft.clone()
            };
            if same_run {
                copy.tenant = "a tenant with runs of the same names".into();
            } else {
                copy.foreign_key = Some(draft.key());
                copy.run = format!("run-{number:05}-borrows-keys");
            }
            copy
        };
        let ids: Vec<String> = story.iter().map(|_| random_uuid(&mut self.rng)).collect();
        story.iter().zip(ids).map(copy).collect()
    }

    fn continue_a_run(&mut self) {
        self.runs_under_way();
        let at = self.rng.random_range(0..self.active.len());
        match self.active[at].pop_front() {
            Some(draft) => self.append(draft),
            None => drop(self.active.swap_remove(at)),
        }
    }

    fn append(&mut self, draft: Draft) {
        let value = draft.bytes(&mut self.rng);
        self.push(&draft, value, Intent::Append);
        let partition = self.partition_of(&draft.run);
        self.sent[usize::try_from(partition).unwrap_or_default()].push(draft);
    }

    fn push(&mut self, draft: &Draft, value: Vec<u8>, intent: Intent) {
        let key = match self.rng.random_range(0..100) {
            0 => None,
            1 => Some(vec![0, 0xff, 0xfe]),
            2 => Some(b"another key".to_vec()),
            _ => Some(draft.run.clone().into_bytes()),
        };
        let content_type = match self.rng.random_range(0..10) {
            0 => Some("application/json".to_owned()),
            1 => Some("application/json; charset=utf-8".to_owned()),
            _ => None,
        };
        let hash = hash_of(&draft.run);
        self.records.push(Record {
            partition: partition_of(hash, self.partitions),
            hash,
            key,
            value: Some(value),
            content_type,
            intent,
        });
    }

    /// An event that was sent before: the last one, one of the last, or any.
    fn earlier(&mut self) -> Option<Draft> {
        let partition = self.rng.random_range(0..self.sent.len());
        let sent = &self.sent[partition];
        let reach = [1, 10, 1000, usize::MAX][self.rng.random_range(0..4)];
        let from = sent.len().saturating_sub(reach);
        (!sent.is_empty()).then(|| sent[self.rng.random_range(from..sent.len())].clone())
    }

    fn duplicate(&mut self) {
        let Some(mut draft) = self.earlier() else {
            return;
        };
        match self.rng.random_range(0..10) {
            0 | 1 => {}
            2 => {
                // Under an event id that another event holds: still a duplicate.
                let partition = usize::try_from(self.partition_of(&draft.run)).unwrap_or_default();
                draft.event_id.clone_from(&self.sent[partition][0].event_id);
            }
            _ => {
                draft.event_id = random_uuid(&mut self.rng);
                draft.engine_attempt += 1;
                draft.emitted_at = values::emitted_at(&mut self.rng, 1_795_000_000_000_000);
            }
        }
        if self.rng.random_bool(0.5)
            && let Some(payload) = &mut draft.payload
        {
            std::mem::swap(&mut payload.text, &mut payload.twin);
        }
        let value = draft.bytes(&mut self.rng);
        self.push(&draft, value, Intent::Duplicate);
    }

    fn conflict(&mut self) {
        let Some(original) = self.earlier() else {
            return;
        };
        let mut draft = original.clone();
        draft.foreign_key = Some(original.key());
        if self.rng.random_bool(0.8) {
            draft.event_id = random_uuid(&mut self.rng);
        }
        match self.rng.random_range(0..9) {
            0 => draft.project.insert(0, 'x'),
            1 => draft.environment = "staging".into(),
            2 => draft.plan = "another plan".into(),
            3 => draft.plan_version = "another version".into(),
            4 => draft.logical_attempt += if draft.logical_attempt > 1 { -1 } else { 1 },
            5 => {
                draft.event_type = format!(
                    "not {}",
                    draft.event_type.chars().take(20).collect::<String>()
                )
            }
            6 if draft.step.is_some() => draft.step = Some("another step".into()),
            _ => {
                let other = draft
                    .payload
                    .map_or("{}".to_owned(), |payload| payload.other);
                draft.payload = Some(Payload::new(&other, &other, &other));
            }
        }
        if draft.project.len() > 256 {
            draft.project = "x".into();
        }
        let value = draft.bytes(&mut self.rng);
        self.push(&draft, value, Intent::Conflict);
    }

    /// Another event of a known run with an event id of the same partition; then, sometimes, the
    /// same event with an id of its own, which nothing refuses.
    fn reused_event_id(&mut self) {
        let (Some(holder), Some(run)) = (self.earlier(), self.earlier()) else {
            return;
        };
        if self.partition_of(&holder.run) != self.partition_of(&run.run) {
            return;
        }
        let mut draft = Draft {
            event_type: "Reused".into(),
            step: None,
            event_id: holder.event_id,
            ..run
        };
        draft.foreign_key = Some(hex::encode(self.rng.random::<[u8; 32]>()));
        let value = draft.bytes(&mut self.rng);
        self.push(&draft, value, Intent::EventIdReused);
        if self.rng.random_bool(0.3) {
            draft.event_id = random_uuid(&mut self.rng);
            self.append(draft);
        }
    }

    fn rare_but_valid(&mut self) {
        let Some(run) = self.earlier() else { return };
        let text = match self.rng.random_range(0..4) {
            0 => values::nested(128),
            1 => values::nested(100),
            2 => values::bulky(1_040_000),
            _ => values::bulky(300_000),
        };
        let mut draft = Draft {
            event_type: "Rare".into(),
            step: None,
            event_id: random_uuid(&mut self.rng),
            ..run
        };
        draft.payload = Some(Payload::new(&text, &format!(" {text}"), "{}"));
        (draft.engine_attempt, draft.logical_attempt) = (2_147_483_646, 2_147_483_647);
        draft.emitted_at = [
            "1969-12-31T23:59:59.999999999Z",
            "9999-12-31T23:59:59.999999Z",
            "0001-01-01T00:00:00Z",
        ][self.rng.random_range(0..3)]
        .into();
        draft.foreign_key = Some(hex::encode(self.rng.random::<[u8; 32]>()));
        self.append(draft);
    }

    fn every_kind_of_malformed(&mut self) {
        let base = runs::long_story(&mut self.rng, 200_000, 1);
        let (Some(run_event), Some(step_event)) = (
            base.iter().find(|draft| draft.event_type == "RunStarted"),
            base.iter().find(|draft| draft.event_type == "StepStarted"),
        ) else {
            return;
        };
        self.spoilt = malformed::all(run_event, step_event);
        self.spoilt.shuffle(&mut self.rng);
    }

    fn malformed(&mut self) {
        let Some(spoilt) = self.spoilt.pop() else {
            let value = render(&Vec::new(), "");
            let intent = Intent::Malformed("an empty object".into(), "invalid_event");
            let partition = self.rng.random_range(0..self.partitions);
            self.records.push(Record {
                partition,
                hash: partition.unsigned_abs(),
                key: None,
                value: Some(value),
                content_type: None,
                intent,
            });
            return;
        };
        let partition = self.rng.random_range(0..self.partitions);
        let key = self.rng.random_bool(0.8).then(|| b"run-200000".to_vec());
        let intent = Intent::Malformed(spoilt.kind, spoilt.reason);
        let (value, content_type) = (spoilt.value, spoilt.content_type);
        self.records.push(Record {
            partition,
            hash: partition.unsigned_abs(),
            key,
            value,
            content_type,
            intent,
        });
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
