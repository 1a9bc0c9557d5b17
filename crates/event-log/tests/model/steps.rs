//! What may happen to the log, as data: proptest makes sequences of it and shrinks them.

use event_log::Record;
use event_log::record::Header;
use proptest::collection::vec;
use proptest::prelude::*;
use run_events::{EventType, IdempotencyKey, Micros, Reason, Rejection, RunEvent};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::support::proxy::Cut;

/// Partitions of the topic. Runs are written to all of them.
pub const PARTITIONS: usize = 3;

/// One thing that happens.
#[derive(Debug, Clone)]
pub enum Step {
    /// The partition's owner appends its next records, and something may go wrong.
    Append {
        partition: usize,
        slots: Vec<Slot>,
        fault: Option<Fault>,
        then: Then,
    },
    /// Two partitions are appended to at the same time.
    Race {
        spared: usize,
        slots: [Vec<Slot>; 2],
    },
    /// Somebody claims the partition: the writer before becomes a zombie, the next one is cold.
    Claim { partition: usize },
    /// The zombie of the partition appends what its owner would append next.
    Zombie { partition: usize },
    /// The last batch is appended again under the same claim, by this writer or by a cold one.
    Again { partition: usize, cold: bool },
    /// The writer appends a batch that starts where the log is not.
    Lost { partition: usize, by: i64 },
    /// An operator closes the generation and opens the next one, this many offsets back.
    Rewind { partition: usize, back: usize },
}

/// What interrupts an append.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Its future is dropped when it waits for this many times.
    Dropped(usize),
    /// Its backend is terminated then.
    Killed(usize),
    /// The network fails around its COMMIT.
    Network(Cut),
}

/// What follows an interrupted append.
#[derive(Debug, Clone, Copy)]
pub enum Then {
    /// The same writer appends the same batch again.
    Retry,
    /// Another writer takes over from the stored offset.
    Claim,
}

/// One offset of a partition.
#[derive(Debug, Clone)]
pub enum Slot {
    /// No record for a reader: a control record, an aborted or a compacted one.
    Gap,
    Event(EventSpec),
    /// A record that was refused before it came to the log.
    Rejected(Reason),
}

/// An event in a small world, so that keys, contents and ids meet each other often.
#[derive(Debug, Clone)]
pub struct EventSpec {
    tenant: usize,
    run: usize,
    key: u8,
    content: usize,
    /// Reuses the id of an event that was made before, if there is one.
    reused_id: Option<usize>,
}

/// Equal contents: 1 and 2, 4 and 5. The last cannot be stored (a NUL that validation refuses).
const PAYLOADS: [Option<&str>; 9] = [
    None,
    Some(r#"{"n": 1, "at": {"x": [1, 2]}}"#),
    Some(r#"{"at": {"x": [1.0, 2e0]}, "n": 1.0}"#),
    Some(r#"{"n": 1, "at": {"x": [2, 1]}}"#),
    Some(r#"{"z": 9007199254740993, "é": "\" \\ \n ₤"}"#),
    Some(r#"{"z": 9007199254740992, "é": "\" \\ \n \u20a4"}"#),
    Some(r#"{}"#),
    Some(r#"{"n": null}"#),
    Some(r#"{"n": "a\u0000b"}"#),
];

/// Makes the events of a case. Its name keeps the cases apart that share a database.
pub struct Maker {
    pub case: String,
    ids: Vec<Uuid>,
    made: i64,
}

impl Maker {
    pub fn new() -> Self {
        Self {
            case: Uuid::new_v4().simple().to_string(),
            ids: Vec::new(),
            made: 0,
        }
    }

    pub fn record(&mut self, offset: i64, slot: &Slot) -> Option<Record> {
        self.made += 1;
        let verdict = match slot {
            Slot::Gap => return None,
            Slot::Event(spec) => Ok(self.event(spec)),
            Slot::Rejected(reason) => {
                let owner = Some(format!("tenant-0-{}", self.case)).filter(|_| self.made % 2 == 0);
                let rejection = Rejection::new(*reason, format!("refused as {reason}"));
                Err(rejection.owned_by(owner, None))
            }
        };
        let (value, headers) = match verdict {
            Err(Rejection {
                reason: Reason::Tombstone,
                ..
            }) => (None, Vec::new()),
            _ => {
                let name = vec![b'n', 0xff, self.made as u8];
                let value = Some(vec![0, 0xff]).filter(|_| self.made % 3 == 0);
                (
                    Some(format!("\0 value {}", self.made).into_bytes()),
                    vec![Header { name, value }],
                )
            }
        };
        Some(Record {
            offset,
            timestamp_ms: Some(self.made).filter(|n| n % 5 > 0),
            key: Some(vec![0xff, 0, self.made as u8]).filter(|_| self.made % 4 > 0),
            value,
            headers,
            verdict,
        })
    }

    fn event(&mut self, spec: &EventSpec) -> RunEvent {
        let event_id = match spec.reused_id {
            Some(n) if !self.ids.is_empty() => self.ids[n % self.ids.len()],
            _ => Uuid::now_v7(),
        };
        self.ids.push(event_id);
        // What is below the key: type, step, attempt, plan; contents differ beside it.
        let event_type = ["StepStarted", "StepCompleted", "Custom"][usize::from(spec.key) % 3];
        let run_id = format!("run-{}", spec.run);
        RunEvent {
            event_id,
            event_type: EventType::from_name(event_type.to_owned()),
            tenant_id: format!("tenant-{}-{}", spec.tenant, self.case),
            project_id: if spec.content == PAYLOADS.len() {
                "other"
            } else {
                "project"
            }
            .to_owned(),
            environment_id: "environment".to_owned(),
            idempotency_key: IdempotencyKey(
                Sha256::digest(format!("{run_id}|{}", spec.key)).into(),
            ),
            run_id,
            plan_id: "plan".to_owned(),
            plan_version: "v1".to_owned(),
            engine_attempt_id: (self.made % 7) as i32 + 1,
            logical_attempt_id: i32::from(spec.key) + 1,
            emitted_at: Micros(1_767_225_600_000_001 - self.made * 1_000_003),
            step_id: Some(format!("step-{}", spec.key)),
            payload: PAYLOADS
                .get(spec.content)
                .copied()
                .flatten()
                .map(|json| serde_json::from_str(json).unwrap()),
        }
    }
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..24)
}

fn step() -> impl Strategy<Value = Step> {
    let partition = || 0..PARTITIONS;
    let append = (partition(), vec(slot(), 0..12), fault(), then());
    prop_oneof![
        12 => append.prop_map(|(partition, slots, fault, then)| Step::Append { partition, slots, fault, then }),
        4 => (partition(), [vec(slot(), 0..8), vec(slot(), 0..8)])
            .prop_map(|(spared, slots)| Step::Race { spared, slots }),
        1 => partition().prop_map(|partition| Step::Claim { partition }),
        2 => partition().prop_map(|partition| Step::Zombie { partition }),
        2 => (partition(), any::<bool>()).prop_map(|(partition, cold)| Step::Again { partition, cold }),
        1 => (partition(), prop_oneof![-9..0i64, 1..9i64])
            .prop_map(|(partition, by)| Step::Lost { partition, by }),
        1 => (partition(), 0..20usize).prop_map(|(partition, back)| Step::Rewind { partition, back }),
    ]
}

fn fault() -> impl Strategy<Value = Option<Fault>> {
    let cut = prop_oneof![
        Just(Cut::BeforeCommit),
        Just(Cut::AfterCommitIsSent),
        Just(Cut::BeforeAnswer)
    ];
    prop_oneof![
        5 => Just(None),
        1 => (0..14usize).prop_map(|polls| Some(Fault::Dropped(polls))),
        1 => (0..14usize).prop_map(|polls| Some(Fault::Killed(polls))),
        2 => cut.prop_map(|cut| Some(Fault::Network(cut))),
    ]
}

fn then() -> impl Strategy<Value = Then> {
    prop_oneof![Just(Then::Retry), Just(Then::Claim)]
}

fn slot() -> impl Strategy<Value = Slot> {
    let rejected = prop_oneof![
        Just(Reason::InvalidJson),
        Just(Reason::InvalidEvent),
        Just(Reason::Tombstone),
        Just(Reason::TenantNotAllowed),
    ];
    prop_oneof![
        1 => Just(Slot::Gap),
        1 => rejected.prop_map(Slot::Rejected),
        12 => event().prop_map(Slot::Event),
    ]
}

fn event() -> impl Strategy<Value = EventSpec> {
    // Most events with one key have one content: the rest are conflicts.
    let content = prop_oneof![
        3 => 1..3usize,
        1 => 0..PAYLOADS.len() + 1,
    ];
    let reused_id = prop_oneof![9 => Just(None), 1 => (0..40usize).prop_map(Some)];
    (0..2usize, 0..3usize, 0..16u8, content, reused_id).prop_map(
        |(tenant, run, key, content, reused_id)| EventSpec {
            tenant,
            run,
            key,
            content,
            reused_id,
        },
    )
}
