//! The log as the contract describes it ("What append guarantees"), in memory and as plain as it
//! can be. Nothing here asks the product what to do with a record: keys, contents, event ids and
//! the ledger are compared with rules of its own.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use event_log::{Original, Outcome, Record};
use run_events::{Reason, RunEvent};
use serde_json::Value;
use uuid::Uuid;

/// A partition and its generation.
pub type StreamName = (i32, i32);
/// A tenant and a run.
pub type RunName = (String, String);

/// What the log should hold.
#[derive(Clone, Default)]
pub struct Reference {
    /// Events in runSeq order.
    pub runs: BTreeMap<RunName, Vec<Logged>>,
    pub event_ids: HashSet<Uuid>,
    /// In the order in which they were refused.
    pub dead_letters: Vec<Refused>,
    pub ledger: BTreeMap<StreamName, Ledger>,
}

/// An event and where it came from.
#[derive(Clone, Debug)]
pub struct Logged {
    pub event: RunEvent,
    pub stream: StreamName,
    pub offset: i64,
    pub persisted_at: DateTime<Utc>,
}

/// A record that cannot be appended.
#[derive(Clone, Debug)]
pub struct Refused {
    pub record: Record,
    pub stream: StreamName,
    pub reason: Reason,
    pub received_at: DateTime<Utc>,
}

/// One generation's account of its offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    pub start_offset: i64,
    pub next_offset: i64,
    pub appended: i64,
    pub duplicates: i64,
    pub dead_lettered: i64,
    pub skipped: i64,
    pub closed: bool,
}

impl Ledger {
    pub fn starting_at(offset: i64) -> Self {
        Self {
            start_offset: offset,
            next_offset: offset,
            appended: 0,
            duplicates: 0,
            dead_lettered: 0,
            skipped: 0,
            closed: false,
        }
    }
}

impl Reference {
    /// Takes a batch: `slots` are consecutive offsets, `None` where there is no record.
    pub fn append(
        &mut self,
        stream: StreamName,
        slots: &[Option<Record>],
        persisted_at: DateTime<Utc>,
    ) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for record in slots {
            let outcome = record.as_ref().map(|r| self.take(stream, r, persisted_at));
            let ledger = self.ledger.get_mut(&stream).unwrap();
            ledger.next_offset += 1;
            match outcome {
                None => ledger.skipped += 1,
                Some(Outcome::Appended { .. }) => ledger.appended += 1,
                Some(Outcome::Duplicate(_)) => ledger.duplicates += 1,
                Some(Outcome::Conflict(_) | Outcome::DeadLetter(_)) => ledger.dead_lettered += 1,
            }
            outcomes.extend(outcome);
        }
        outcomes
    }

    fn take(
        &mut self,
        stream: StreamName,
        record: &Record,
        persisted_at: DateTime<Utc>,
    ) -> Outcome {
        let (outcome, reason) = match &record.verdict {
            Err(rejection) => (Outcome::DeadLetter(rejection.reason), rejection.reason),
            Ok(event) => match self.decide(event) {
                Ok(Some(original)) => return Outcome::Duplicate(original),
                Ok(None) => {
                    let name = (event.tenant_id.clone(), event.run_id.clone());
                    let run = self.runs.entry(name).or_default();
                    self.event_ids.insert(event.event_id);
                    run.push(Logged {
                        event: event.clone(),
                        stream,
                        offset: record.offset,
                        persisted_at,
                    });
                    return Outcome::Appended {
                        run_seq: run.len() as i64,
                    };
                }
                Err(Why::Conflict(original)) => {
                    (Outcome::Conflict(original), Reason::IdempotencyConflict)
                }
                Err(Why::Other(reason)) => (Outcome::DeadLetter(reason), reason),
            },
        };
        self.dead_letters.push(Refused {
            record: record.clone(),
            stream,
            reason,
            received_at: persisted_at,
        });
        outcome
    }

    /// The original of a duplicate, nothing for a new event, or why it is refused. The order of the
    /// checks is the contract's: the key first, then the event id.
    fn decide(&self, event: &RunEvent) -> Result<Option<Original>, Why> {
        let name = (event.tenant_id.clone(), event.run_id.clone());
        let run = self.runs.get(&name).map_or(&[][..], Vec::as_slice);
        for (i, logged) in run.iter().enumerate() {
            if logged.event.idempotency_key.0 != event.idempotency_key.0 {
                continue;
            }
            let original = Original {
                event_id: logged.event.event_id,
                run_seq: i as i64 + 1,
                persisted_at: logged.persisted_at,
            };
            return match same_content(&logged.event, event) {
                true => Ok(Some(original)),
                false => Err(Why::Conflict(original)),
            };
        }
        if self.event_ids.contains(&event.event_id) {
            return Err(Why::Other(Reason::EventIdReused));
        }
        // Validation refuses such an event; should one come through, the database does.
        let payload = event.payload.clone().map(Value::Object);
        if payload.is_some_and(|p| p.to_string().contains("\\u0000")) {
            return Err(Why::Other(Reason::Unstorable));
        }
        Ok(None)
    }
}

enum Why {
    Conflict(Original),
    Other(Reason),
}

/// Whether two events with the same key are the same event.
fn same_content(one: &RunEvent, other: &RunEvent) -> bool {
    one.event_type == other.event_type
        && one.step_id == other.step_id
        && one.logical_attempt_id == other.logical_attempt_id
        && one.plan_id == other.plan_id
        && one.plan_version == other.plan_version
        && one.project_id == other.project_id
        && one.environment_id == other.environment_id
        && match (&one.payload, &other.payload) {
            (None, None) => true,
            (Some(one), Some(other)) => same_object(one, other),
            _ => false,
        }
}

type Object = serde_json::Map<String, Value>;

fn same_object(one: &Object, other: &Object) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .all(|(key, value)| other.get(key).is_some_and(|o| same_json(value, o)))
}

/// Equality of JSON values whose numbers are doubles: 1 = 1.0, 0 = -0.
pub fn same_json(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| same_json(a, b))
        }
        (Value::Object(one), Value::Object(other)) => same_object(one, other),
        _ => one == other,
    }
}
