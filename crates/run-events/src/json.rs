//! The JSON form of an event: decode with validation, encode. Called by ingest and the CLI.

use serde::Serialize;
use serde::de::DeserializeSeed;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::envelope::RawEnvelope;
use crate::json_value::{EnvelopeSeed, Seen, TooDeep, any_value};
use crate::{Micros, Reason, Rejection, RunEvent};

/// How many objects and arrays may be open at once in a payload, itself included.
pub const MAX_NESTING: usize = 128;

/// A decoded event, and what was noticed on the way.
#[derive(Debug)]
pub struct Decoded {
    /// The event, valid by the contract.
    pub event: RunEvent,
    /// How many fields the contract does not know. They are ignored, and worth counting.
    pub unknown_fields: u32,
}

/// Decodes and validates one record's value.
///
/// # Errors
/// [`Reason::InvalidJson`] where it is not JSON or repeats a key, [`Reason::InvalidEvent`] naming
/// the first field that breaks a rule, [`Reason::Unstorable`] for U+0000 in the payload.
pub fn decode(bytes: &[u8]) -> Result<Decoded, Rejection> {
    let text = std::str::from_utf8(bytes)
        .map_err(|e| Rejection::new(Reason::InvalidJson, format!("not UTF-8: {e}")))?;
    let mut seen = Seen::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    // The seed bounds the nesting itself, by the contract's number.
    deserializer.disable_recursion_limit();
    let mut raw = RawEnvelope::default();
    let seed = EnvelopeSeed {
        max_nesting: MAX_NESTING,
        raw: &mut raw,
        seen: &mut seen,
    };
    seed.deserialize(&mut deserializer)
        .and_then(|()| deserializer.end())
        .map_err(|error| unreadable(&error, &seen, text))?;
    let unknown_fields = seen.unknown_fields;
    raw.validate().map(|event| Decoded {
        event,
        unknown_fields,
    })
}

fn unreadable(error: &serde_json::Error, seen: &Seen, text: &str) -> Rejection {
    match &seen.too_deep_in {
        Some(TooDeep {
            field,
            is_known: true,
        }) => Rejection::new(
            Reason::InvalidEvent,
            format!("{field}: is nested more than {MAX_NESTING} levels deep"),
        ),
        Some(TooDeep { field, .. }) => Rejection::new(
            Reason::InvalidJson,
            format!("the unknown field {field:?} is nested more than {MAX_NESTING} levels deep"),
        ),
        // The only data error that the seeds leave to serde: the record is no object. That was
        // said at its first byte, so the rest may still be no JSON.
        None if error.is_data() && error.to_string().starts_with("invalid type") => {
            match value(text) {
                Ok(_) => Rejection::new(Reason::InvalidEvent, format!("the record: {error}")),
                Err(error) => Rejection::new(Reason::InvalidJson, error.to_string()),
            }
        }
        None => Rejection::new(Reason::InvalidJson, error.to_string()),
    }
}

/// Reads any JSON value by the rules of a payload: equal keys are refused, at most
/// [`MAX_NESTING`] levels. Reads back every payload that [`decode`] accepted, which
/// `serde_json::from_str` does not: its limit is one level lower.
///
/// # Errors
/// Where the text is not JSON, repeats a key or is nested too deep.
pub fn value(text: &str) -> serde_json::Result<Value> {
    value_within(text, MAX_NESTING)
}

/// The same with another number of levels.
pub(crate) fn value_within(text: &str, levels: usize) -> serde_json::Result<Value> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    deserializer.disable_recursion_limit();
    let value = any_value(levels, &mut deserializer)?;
    deserializer.end().map(|()| value)
}

/// Borrowed wire form; the order of the fields is the contract's.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    event_id: Uuid,
    event_type: &'a str,
    tenant_id: &'a str,
    project_id: &'a str,
    environment_id: &'a str,
    run_id: &'a str,
    plan_id: &'a str,
    plan_version: &'a str,
    engine_attempt_id: i32,
    logical_attempt_id: i32,
    idempotency_key: String,
    emitted_at: Micros,
    #[serde(skip_serializing_if = "Option::is_none")]
    step_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a Map<String, Value>>,
}

/// Encodes an event as compact JSON. Decoding the result gives the same event.
pub fn encode(event: &RunEvent) -> Vec<u8> {
    let wire = Wire {
        event_id: event.event_id,
        event_type: event.event_type.as_str(),
        tenant_id: &event.tenant_id,
        project_id: &event.project_id,
        environment_id: &event.environment_id,
        run_id: &event.run_id,
        plan_id: &event.plan_id,
        plan_version: &event.plan_version,
        engine_attempt_id: event.engine_attempt_id,
        logical_attempt_id: event.logical_attempt_id,
        idempotency_key: event.idempotency_key.to_string(),
        emitted_at: event.emitted_at,
        step_id: event.step_id.as_deref(),
        payload: event.payload.as_ref(),
    };
    // Texts, integers and JSON values always serialise; there is no error to report.
    serde_json::to_vec(&wire).unwrap_or_default()
}
