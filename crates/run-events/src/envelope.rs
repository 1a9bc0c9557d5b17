//! The envelope: an event's fields, and the rules that a field must keep.
//!
//! A [`RunEvent`] that comes from the wire has passed [`RawEnvelope::validate`]. Rules and their
//! order are the contract's table "The event, as the producer sends it".

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
pub(crate) struct RawEnvelope {
    pub(crate) event_id: Option<Value>,
    pub(crate) event_type: Option<Value>,
    pub(crate) tenant_id: Option<Value>,
    pub(crate) project_id: Option<Value>,
    pub(crate) environment_id: Option<Value>,
    pub(crate) run_id: Option<Value>,
    pub(crate) plan_id: Option<Value>,
    pub(crate) plan_version: Option<Value>,
    pub(crate) engine_attempt_id: Option<Value>,
    pub(crate) logical_attempt_id: Option<Value>,
    pub(crate) idempotency_key: Option<Value>,
    pub(crate) emitted_at: Option<Value>,
    pub(crate) step_id: Option<Value>,
    pub(crate) payload: Option<Value>,
}

/// A broken rule: the field's wire name and what is wrong with it.
struct Broken {
    field: &'static str,
    problem: String,
}

type Checked<T> = Result<T, Broken>;

const MAX_ID_BYTES: usize = 256;
const MAX_TYPE_BYTES: usize = 128;

impl RawEnvelope {
    /// Checks every rule in the order of the contract's table; the first broken one is the
    /// rejection, which names the field and carries the tenant and run where those are valid.
    pub(crate) fn validate(mut self) -> Result<RunEvent, Rejection> {
        let tenant_id = text(
            "tenantId",
            self.tenant_id.take(),
            MAX_ID_BYTES,
            Pipe::Allowed,
        );
        let run_id = text("runId", self.run_id.take(), MAX_ID_BYTES, Pipe::Refused);
        let owner = (
            tenant_id.as_ref().ok().cloned(),
            run_id.as_ref().ok().cloned(),
        );
        self.checked(tenant_id, run_id)
            .map_err(|broken| {
                let detail = format!("{}: {}", broken.field, broken.problem);
                Rejection::new(Reason::InvalidEvent, detail)
                    .owned_by(owner.0.clone(), owner.1.clone())
            })
            .and_then(|event| match event.payload.as_ref().and_then(unstorable) {
                None => Ok(event),
                Some(problem) => {
                    Err(Rejection::new(Reason::Unstorable, problem).owned_by(owner.0, owner.1))
                }
            })
    }

    fn checked(self, tenant_id: Checked<String>, run_id: Checked<String>) -> Checked<RunEvent> {
        let id = |field, value| text(field, value, MAX_ID_BYTES, Pipe::Refused);
        let event_id = uuid(self.event_id)?;
        let event_type = text("eventType", self.event_type, MAX_TYPE_BYTES, Pipe::Refused)?;
        let event_type = EventType::from_name(event_type);
        Ok(RunEvent {
            event_id,
            tenant_id: tenant_id?,
            project_id: text("projectId", self.project_id, MAX_ID_BYTES, Pipe::Allowed)?,
            environment_id: text(
                "environmentId",
                self.environment_id,
                MAX_ID_BYTES,
                Pipe::Allowed,
            )?,
            run_id: run_id?,
            plan_id: id("planId", self.plan_id)?,
            plan_version: id("planVersion", self.plan_version)?,
            engine_attempt_id: attempt("engineAttemptId", self.engine_attempt_id)?,
            logical_attempt_id: attempt("logicalAttemptId", self.logical_attempt_id)?,
            idempotency_key: key(self.idempotency_key)?,
            emitted_at: emitted_at(self.emitted_at)?,
            step_id: step_id(&event_type, self.step_id)?,
            payload: payload(self.payload)?,
            event_type,
        })
    }
}

enum Pipe {
    Allowed,
    Refused,
}

fn text(
    field: &'static str,
    value: Option<Value>,
    max_bytes: usize,
    pipe: Pipe,
) -> Checked<String> {
    let text = string(field, value)?;
    let problem = if text.is_empty() {
        "is empty".to_owned()
    } else if text.len() > max_bytes {
        format!("has {} bytes, more than {max_bytes}", text.len())
    } else if text.chars().any(char::is_control) {
        "holds a control character".to_owned()
    } else if matches!(pipe, Pipe::Refused) && text.contains('|') {
        "holds a '|', which separates the parts of the idempotency key".to_owned()
    } else {
        return Ok(text);
    };
    Err(Broken { field, problem })
}

fn string(field: &'static str, value: Option<Value>) -> Checked<String> {
    match value {
        Some(Value::String(text)) => Ok(text),
        Some(other) => Err(wrong_type(field, "a text", &other)),
        None => Err(Broken {
            field,
            problem: "is missing".to_owned(),
        }),
    }
}

fn wrong_type(field: &'static str, expected: &str, value: &Value) -> Broken {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    Broken {
        field,
        problem: format!("must be {expected}, not {found}"),
    }
}

fn uuid(value: Option<Value>) -> Checked<Uuid> {
    let field = "eventId";
    let text = string(field, value)?;
    // The uuid crate also reads braced, URN and simple forms; the contract wants hyphens.
    let hyphenated = text.len() == 36;
    Uuid::try_parse(&text)
        .ok()
        .filter(|_| hyphenated)
        .ok_or_else(|| Broken {
            field,
            problem: format!("{:?} is not a hyphenated UUID", shortened(&text)),
        })
}

fn attempt(field: &'static str, value: Option<Value>) -> Checked<i32> {
    let Some(value) = value else {
        return Err(Broken {
            field,
            problem: "is missing".to_owned(),
        });
    };
    let Value::Number(number) = &value else {
        return Err(wrong_type(field, "an integer", &value));
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

fn key(value: Option<Value>) -> Checked<IdempotencyKey> {
    let field = "idempotencyKey";
    let text = string(field, value)?;
    IdempotencyKey::parse(&text).ok_or_else(|| Broken {
        field,
        problem: format!("{:?} is not 64 lower-case hex digits", shortened(&text)),
    })
}

fn emitted_at(value: Option<Value>) -> Checked<Micros> {
    let field = "emittedAt";
    let text = string(field, value)?;
    Micros::parse_rfc3339(&text).ok_or_else(|| Broken {
        field,
        problem: format!(
            "{:?} is not an RFC 3339 time with an offset, years 0000 to 9999 in UTC",
            shortened(&text)
        ),
    })
}

fn payload(value: Option<Value>) -> Checked<Option<Map<String, Value>>> {
    match value {
        None => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(other) => Err(wrong_type("payload", "an object", &other)),
    }
}

fn step_id(event_type: &EventType, value: Option<Value>) -> Checked<Option<String>> {
    let field = "stepId";
    let problem = match (event_type, &value) {
        (EventType::Step(_), None) => format!("is missing, and {event_type} is a step event"),
        (EventType::Run(_), Some(_)) => {
            format!("must be absent, since {event_type} is a run event")
        }
        _ => {
            return value
                .map(|step| text(field, Some(step), MAX_ID_BYTES, Pipe::Refused))
                .transpose();
        }
    };
    Err(Broken { field, problem })
}

/// What jsonb cannot hold although JSON can: U+0000, in a key or a text, at any depth.
fn unstorable(map: &Map<String, Value>) -> Option<&'static str> {
    const NUL: &str = "payload: holds U+0000, which the database cannot store";
    fn holds_nul(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains('\0'),
            Value::Array(items) => items.iter().any(holds_nul),
            Value::Object(map) => map.iter().any(|(k, v)| k.contains('\0') || holds_nul(v)),
            _ => false,
        }
    }
    map.iter()
        .any(|(k, v)| k.contains('\0') || holds_nul(v))
        .then_some(NUL)
}

/// A value for an error message, cut to 64 characters.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(64) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}
