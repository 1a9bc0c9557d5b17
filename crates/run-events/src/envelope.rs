//! The envelope: an event's fields, and the rules that a field must keep.
//!
//! A [`RunEvent`] that comes from the wire has passed [`RawEnvelope::validate`]. Rules and their
//! order are the contract's table "The event, as the producer sends it".

use std::borrow::Cow;

use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{EventType, IdempotencyKey, Micros, Reason, Rejection};

/// One event as its producer sent it, valid by the contract.
#[derive(Debug, Clone, PartialEq)]
pub struct RunEvent {
    /// Globally unique identity. UUIDv7 is kindest to the index.
    pub event_id: Uuid,
    /// What happened.
    pub event_type: EventType,
    /// The tenant that owns the run. 1 to 256 bytes, as all ids here; no control characters.
    pub tenant_id: String,
    /// The project.
    pub project_id: String,
    /// The environment.
    pub environment_id: String,
    /// The run; unique within its tenant. No `|`.
    pub run_id: String,
    /// The plan that the run executes. No `|`.
    pub plan_id: String,
    /// The plan's version. No `|`.
    pub plan_version: String,
    /// The engine's own attempt counter, from 1.
    pub engine_attempt_id: i32,
    /// The attempt as the plan counts it, from 1. A retry of a step is a new one.
    pub logical_attempt_id: i32,
    /// Unique per (tenant, run).
    pub idempotency_key: IdempotencyKey,
    /// The producer's clock. Kept, never used for order.
    pub emitted_at: Micros,
    /// The step; present on step events, absent on run events. No `|`.
    pub step_id: Option<String>,
    /// Any JSON object, nested at most [`crate::json::MAX_NESTING`] levels.
    pub payload: Option<Map<String, Value>>,
}

impl RunEvent {
    /// The key that the contract derives for this event. It may differ from the one the event
    /// carries, which is then still a unique key.
    pub fn derived_key(&self) -> IdempotencyKey {
        IdempotencyKey::derive(
            &self.run_id,
            self.step_id.as_deref(),
            self.logical_attempt_id,
            self.event_type.as_str(),
            &self.plan_id,
            &self.plan_version,
        )
    }
}

/// The envelope's fields before validation, whatever the codec. `None` = absent or null.
#[derive(Debug, Default)]
pub(crate) struct RawEnvelope<'a> {
    pub(crate) event_id: Option<Field<'a>>,
    pub(crate) event_type: Option<Field<'a>>,
    pub(crate) tenant_id: Option<Field<'a>>,
    pub(crate) project_id: Option<Field<'a>>,
    pub(crate) environment_id: Option<Field<'a>>,
    pub(crate) run_id: Option<Field<'a>>,
    pub(crate) plan_id: Option<Field<'a>>,
    pub(crate) plan_version: Option<Field<'a>>,
    pub(crate) engine_attempt_id: Option<Field<'a>>,
    pub(crate) logical_attempt_id: Option<Field<'a>>,
    pub(crate) idempotency_key: Option<Field<'a>>,
    pub(crate) emitted_at: Option<Field<'a>>,
    pub(crate) step_id: Option<Field<'a>>,
    pub(crate) payload: Option<Field<'a>>,
    /// Whether U+0000 stands in the payload, in a key or a text, at any depth: JSON can say it, and jsonb
    /// cannot hold it.
    pub(crate) payload_holds_nul: bool,
}

/// A field's value.
#[derive(Debug)]
pub(crate) enum Field<'a> {
    /// A text, borrowed from the record where it stands there as it is.
    Text(Cow<'a, str>),
    /// Any other value.
    Other(Value),
}

impl Field<'_> {
    fn wrong_type(&self, field: &'static str, expected: &str) -> Broken {
        let found = match self {
            Self::Text(_) | Self::Other(Value::String(_)) => "a text",
            Self::Other(Value::Null) => "null",
            Self::Other(Value::Bool(_)) => "a boolean",
            Self::Other(Value::Number(_)) => "a number",
            Self::Other(Value::Array(_)) => "an array",
            Self::Other(Value::Object(_)) => "an object",
        };
        let problem = format!("must be {expected}, not {found}");
        Broken { field, problem }
    }
}

/// A broken rule: the field's wire name and what is wrong with it.
struct Broken {
    field: &'static str,
    problem: String,
}

type Checked<T> = Result<T, Broken>;

const MAX_ID_BYTES: usize = 256;
const MAX_TYPE_BYTES: usize = 128;

impl RawEnvelope<'_> {
    /// Checks every rule in the order of the contract's table; the first broken one is the
    /// rejection, which names the field and carries the tenant and run where those are valid.
    pub(crate) fn validate(mut self) -> Result<RunEvent, Rejection> {
        let payload = self.payload.take();
        let event = self.checked(payload).map_err(|broken| {
            let detail = format!("{}: {}", broken.field, broken.problem);
            let tenant_id = self.tenant_id().ok().map(str::to_owned);
            let run_id = self.run_id().ok().map(str::to_owned);
            Rejection::new(Reason::InvalidEvent, detail).owned_by(tenant_id, run_id)
        })?;
        if self.payload_holds_nul {
            let detail = "payload: holds U+0000, which the database cannot store";
            return Err(Rejection::new(Reason::Unstorable, detail)
                .owned_by(Some(event.tenant_id), Some(event.run_id)));
        }
        Ok(event)
    }

    fn tenant_id(&self) -> Checked<&str> {
        text("tenantId", &self.tenant_id, MAX_ID_BYTES, Pipe::Allowed)
    }

    fn run_id(&self) -> Checked<&str> {
        text("runId", &self.run_id, MAX_ID_BYTES, Pipe::Refused)
    }

    fn checked(&self, payload: Option<Field<'_>>) -> Checked<RunEvent> {
        let id = |field, value, pipe| text(field, value, MAX_ID_BYTES, pipe).map(str::to_owned);
        let event_id = uuid(&self.event_id)?;
        let event_type = text("eventType", &self.event_type, MAX_TYPE_BYTES, Pipe::Refused)?;
        let event_type = EventType::from_name(event_type);
        Ok(RunEvent {
            event_id,
            tenant_id: self.tenant_id()?.to_owned(),
            project_id: id("projectId", &self.project_id, Pipe::Allowed)?,
            environment_id: id("environmentId", &self.environment_id, Pipe::Allowed)?,
            run_id: self.run_id()?.to_owned(),
            plan_id: id("planId", &self.plan_id, Pipe::Refused)?,
            plan_version: id("planVersion", &self.plan_version, Pipe::Refused)?,
            engine_attempt_id: attempt("engineAttemptId", &self.engine_attempt_id)?,
            logical_attempt_id: attempt("logicalAttemptId", &self.logical_attempt_id)?,
            idempotency_key: key(&self.idempotency_key)?,
            emitted_at: emitted_at(&self.emitted_at)?,
            step_id: step_id(&event_type, &self.step_id)?,
            payload: object("payload", payload)?,
            event_type,
        })
    }
}

enum Pipe {
    Allowed,
    Refused,
}

fn text<'v>(
    field: &'static str,
    value: &'v Option<Field<'_>>,
    max_bytes: usize,
    pipe: Pipe,
) -> Checked<&'v str> {
    let text = string(field, value)?;
    let problem = if text.is_empty() {
        "is empty".to_owned()
    } else if text.len() > max_bytes {
        format!("has {} bytes, more than {max_bytes}", text.len())
    } else if holds_control(text) {
        "holds a control character".to_owned()
    } else if matches!(pipe, Pipe::Refused) && text.contains('|') {
        "holds a '|', which separates the parts of the idempotency key".to_owned()
    } else {
        return Ok(text);
    };
    Err(Broken { field, problem })
}

/// U+0000 to U+001F and U+007F to U+009F. A text of ASCII alone, which most are, has its bytes looked at
/// without a branch between them.
fn holds_control(text: &str) -> bool {
    let is_plain = |byte: u8| (b' '..0x7F).contains(&byte);
    !text.bytes().fold(true, |all, byte| all & is_plain(byte)) && text.chars().any(char::is_control)
}

fn string<'v>(field: &'static str, value: &'v Option<Field<'_>>) -> Checked<&'v str> {
    match value {
        Some(Field::Text(text)) => Ok(text),
        Some(other) => Err(other.wrong_type(field, "a text")),
        None => Err(missing(field)),
    }
}

fn missing(field: &'static str) -> Broken {
    let problem = "is missing".to_owned();
    Broken { field, problem }
}

fn uuid(value: &Option<Field<'_>>) -> Checked<Uuid> {
    let field = "eventId";
    let text = string(field, value)?;
    // The uuid crate also reads braced, URN and simple forms; the contract wants hyphens.
    let hyphenated = text.len() == 36;
    Uuid::try_parse(text)
        .ok()
        .filter(|_| hyphenated)
        .ok_or_else(|| Broken {
            field,
            problem: format!("{:?} is not a hyphenated UUID", shortened(text)),
        })
}

fn attempt(field: &'static str, value: &Option<Field<'_>>) -> Checked<i32> {
    let number = match value {
        Some(Field::Other(Value::Number(number))) => number,
        Some(other) => return Err(other.wrong_type(field, "an integer")),
        None => return Err(missing(field)),
    };
    number
        .as_i64()
        .and_then(|n| i32::try_from(n).ok())
        .filter(|n| *n >= 1)
        .ok_or_else(|| Broken {
            field,
            problem: format!(
                "{number} is not an integer from 1 to {} written without fraction or exponent",
                i32::MAX
            ),
        })
}

fn key(value: &Option<Field<'_>>) -> Checked<IdempotencyKey> {
    let field = "idempotencyKey";
    let text = string(field, value)?;
    IdempotencyKey::parse(text).ok_or_else(|| Broken {
        field,
        problem: format!("{:?} is not 64 lower-case hex digits", shortened(text)),
    })
}

fn emitted_at(value: &Option<Field<'_>>) -> Checked<Micros> {
    let field = "emittedAt";
    let text = string(field, value)?;
    Micros::parse_rfc3339(text).ok_or_else(|| Broken {
        field,
        problem: format!(
            "{:?} is not an RFC 3339 time with an offset, years 0000 to 9999 in UTC",
            shortened(text)
        ),
    })
}

fn object(field: &'static str, value: Option<Field<'_>>) -> Checked<Option<Map<String, Value>>> {
    match value {
        None => Ok(None),
        Some(Field::Other(Value::Object(map))) => Ok(Some(map)),
        Some(other) => Err(other.wrong_type(field, "an object")),
    }
}

fn step_id(event_type: &EventType, value: &Option<Field<'_>>) -> Checked<Option<String>> {
    let field = "stepId";
    let problem = match (event_type, value) {
        (EventType::Step(_), None) => format!("is missing, and {event_type} is a step event"),
        (EventType::Run(_), Some(_)) => {
            format!("must be absent, since {event_type} is a run event")
        }
        (_, None) => return Ok(None),
        (_, Some(_)) => {
            let step_id = text(field, value, MAX_ID_BYTES, Pipe::Refused)?;
            return Ok(Some(step_id.to_owned()));
        }
    };
    Err(Broken { field, problem })
}

/// A value for an error message, cut to 64 characters.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
