//! The lines of a proof: written by whoever has the database, read by whoever has not.

use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::reader::{self, Object};
use super::{Seal, Unreadable, Written};
use crate::digest::Content;
use crate::json::MAX_NESTING;
use crate::{Digest, IdempotencyKey, Micros};

const FORMAT: &str = "runlog proof v1";

/// The first line of a proof: which run, where it stood, and how that is part of a seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofHead {
    /// The tenant that owns the run.
    pub tenant_id: String,
    /// The run.
    pub run_id: String,
    /// The runSeq that was sealed; an event line for each up to it follows.
    pub run_seq: i64,
    /// The run's events of the seal's day.
    pub events: u64,
    /// The leaf's place among the day's, from 0.
    pub leaf_index: u64,
    /// From the leaf upwards.
    pub path: Vec<Digest>,
    /// The seal of the day, and those of the days behind it: whoever kept any of them can compare.
    pub seals: Vec<Written>,
}

/// A line of a proof for one event.
#[derive(Debug, Clone, Copy)]
pub struct ProofEvent<'a> {
    /// Its place in the run.
    pub run_seq: i64,
    /// Its identity.
    pub event_id: Uuid,
    /// Its key.
    pub idempotency_key: IdempotencyKey,
    /// The producer's clock.
    pub emitted_at: Micros,
    /// The engine's own attempt counter.
    pub engine_attempt_id: i32,
    /// `None` = withheld, because a part of it was erased: only its digest is proved.
    pub content: Option<Content<'a>>,
    /// The digest of the content.
    pub content_digest: Digest,
    /// The digest of the run up to here.
    pub chain_digest: Digest,
}

#[derive(Serialize)]
struct HeadLine<'a> {
    format: &'static str,
    tenant_id: &'a str,
    run_id: &'a str,
    run_seq: i64,
    events_of_day: u64,
    leaf_index: u64,
    path: &'a [Digest],
    seals: Vec<Seal>,
}

#[derive(Serialize)]
struct EventLine<'a> {
    run_seq: i64,
    event_id: Uuid,
    idempotency_key: String,
    emitted_at: Micros,
    engine_attempt_id: i32,
    content: Option<ContentLine<'a>>,
    content_digest: Digest,
    chain_digest: Digest,
}

#[derive(Serialize)]
struct ContentLine<'a> {
    event_type: &'a str,
    step_id: Option<&'a str>,
    logical_attempt_id: i32,
    plan_id: &'a str,
    plan_version: &'a str,
    project_id: &'a str,
    environment_id: &'a str,
    payload: Option<&'a Map<String, Value>>,
}

impl ProofHead {
    /// Its line, without the end of line.
    pub fn line(&self) -> String {
        text(&HeadLine {
            format: FORMAT,
            tenant_id: &self.tenant_id,
            run_id: &self.run_id,
            run_seq: self.run_seq,
            events_of_day: self.events,
            leaf_index: self.leaf_index,
            path: &self.path,
            seals: self.seals.iter().map(|written| written.seal).collect(),
        })
    }

    /// Reads its line.
    ///
    /// # Errors
    /// Where the line is not one.
    pub fn read(line: &str) -> Result<Self, Unreadable> {
        let value = reader::parse(line, 4)?;
        let mut object = Object::new(&value, "the first line")?;
        object.exactly("format", FORMAT)?;
        let path = object.array("path")?.iter().map(reader::digest);
        let path: Option<Vec<_>> = path.collect();
        let seals = object.array("seals")?.iter().map(|value| {
            let mut seal = Object::new(value, "a seal")?;
            let written = Written::read(&mut seal)?;
            seal.end().map(|()| written)
        });
        let seals = seals.collect::<Result<Vec<_>, _>>()?;
        if seals.is_empty() {
            return Err(Unreadable("the first line has no seal".to_owned()));
        }
        let head = Self {
            tenant_id: object.text("tenant_id")?.to_owned(),
            run_id: object.text("run_id")?.to_owned(),
            run_seq: object.sequence("run_seq")?,
            events: object.count("events_of_day")?,
            leaf_index: object.count("leaf_index")?,
            path: path.ok_or_else(|| Unreadable("the path has what is no digest".to_owned()))?,
            seals,
        };
        object.end().map(|()| head)
    }
}

impl ProofEvent<'_> {
    /// Its line, without the end of line.
    pub fn line(&self) -> String {
        text(&EventLine {
            run_seq: self.run_seq,
            event_id: self.event_id,
            idempotency_key: self.idempotency_key.to_string(),
            emitted_at: self.emitted_at,
            engine_attempt_id: self.engine_attempt_id,
            content: self.content.map(|content| ContentLine {
                event_type: content.event_type,
                step_id: content.step_id,
                logical_attempt_id: content.logical_attempt_id,
                plan_id: content.plan_id,
                plan_version: content.plan_version,
                project_id: content.project_id,
                environment_id: content.environment_id,
                payload: content.payload,
            }),
            content_digest: self.content_digest,
            chain_digest: self.chain_digest,
        })
    }
}

/// Reads an event's line and gives it to `judge`, which borrows from it.
pub(super) fn read_event<T>(
    line: &str,
    judge: impl FnOnce(&ProofEvent<'_>) -> T,
) -> Result<T, Unreadable> {
    // The payload stands two levels deep.
    let value = reader::parse(line, MAX_NESTING + 2)?;
    let mut object = Object::new(&value, "the event")?;
    let content = match object.value("content")? {
        Value::Null => None,
        content => Some(read_content(content)?),
    };
    let event = ProofEvent {
        run_seq: object.sequence("run_seq")?,
        event_id: object.uuid("event_id")?,
        idempotency_key: object.key("idempotency_key")?,
        emitted_at: object.time("emitted_at")?,
        engine_attempt_id: object.attempt("engine_attempt_id")?,
        content,
        content_digest: object.digest("content_digest")?,
        chain_digest: object.digest("chain_digest")?,
    };
    object.end().map(|()| judge(&event))
}

fn read_content(value: &Value) -> Result<Content<'_>, Unreadable> {
    let mut object = Object::new(value, "the content")?;
    let content = Content {
        event_type: object.text("event_type")?,
        step_id: object.text_or_null("step_id")?,
        logical_attempt_id: object.attempt("logical_attempt_id")?,
        plan_id: object.text("plan_id")?,
        plan_version: object.text("plan_version")?,
        project_id: object.text("project_id")?,
        environment_id: object.text("environment_id")?,
        payload: object.object_or_null("payload")?,
    };
    object.end().map(|()| content)
}

/// JSON on one line: JSON has no raw line ends.
fn text(line: &impl Serialize) -> String {
    // Texts, integers and JSON values always serialise; there is no error to report.
    serde_json::to_string(line).unwrap_or_default()
}
