//! From a record's bytes to an event, or to the reason of its dead letter.
//!
//! Called by [`super::log`]. The order of the checks is the contract's: size, decoding,
//! validation. Where the contract leaves two reasons open (a parser may refuse first), all of them
//! are accepted.

use super::json::{Json, JsonError};
use super::{Produced, log::Content};
use chrono::NaiveDate;
use std::collections::BTreeMap;

/// The default limit of a record's value, in bytes.
pub const MAX_RECORD_BYTES: usize = 1024 * 1024;
/// The deepest payload, in levels of objects and arrays, the payload itself included.
pub const MAX_PAYLOAD_DEPTH: usize = 128;

const RUN_EVENTS: [&str; 7] = [
    "RunQueued",
    "RunStarted",
    "RunPaused",
    "RunResumed",
    "RunCompleted",
    "RunFailed",
    "RunCancelled",
];
const STEP_EVENTS: [&str; 4] = ["StepStarted", "StepCompleted", "StepFailed", "StepSkipped"];

/// A valid event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Lower-case hyphenated UUID.
    pub event_id: String,
    /// Who owns the run.
    pub tenant_id: String,
    /// The run, unique within its tenant.
    pub run_id: String,
    /// The engine's own attempt counter; not part of the content.
    pub engine_attempt_id: i64,
    /// 64 hex digits, as sent.
    pub idempotency_key: String,
    /// The producer's clock, in microseconds since 1970 UTC, finer digits cut.
    pub emitted_at: i64,
    /// What decides between duplicate and conflict.
    pub content: Content,
}

/// A record that must become a dead letter.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The reasons that the contract allows; one of them must be given.
    pub reasons: &'static [&'static str],
    /// The field that the detail must name.
    pub field: Option<&'static str>,
    /// The tenant, where the record names a valid one.
    pub tenant_id: Option<String>,
    /// The run, where the record names a valid one.
    pub run_id: Option<String>,
}

impl Refusal {
    fn of(reasons: &'static [&'static str]) -> Self {
        Self {
            reasons,
            field: None,
            tenant_id: None,
            run_id: None,
        }
    }
}

/// Reads one record.
///
/// # Errors
/// The [`Refusal`] that names the dead letter's reason.
pub fn read(record: &Produced) -> Result<Event, Refusal> {
    let Some(bytes) = record.value.as_deref() else {
        return Err(Refusal::of(&["tombstone"]));
    };
    if bytes.len() > MAX_RECORD_BYTES {
        return Err(Refusal::of(&["too_large"]));
    }
    if let Some(header) = &record.content_type {
        let media_type = header.split(';').next().unwrap_or_default().trim();
        if media_type != "application/json" {
            return Err(Refusal::of(&["unknown_content_type"]));
        }
    }
    let document = Json::read(bytes).map_err(|error| match error {
        JsonError::Malformed => Refusal::of(&["invalid_json"]),
        JsonError::TooDeep => Refusal::of(&["invalid_json", "invalid_event", "unstorable"]),
    })?;
    let members = match &document {
        Json::Object(members) => members,
        Json::Unpresentable => return Err(Refusal::of(&["invalid_json", "unstorable"])),
        _ => return Err(Refusal::of(&["invalid_json", "invalid_event"])),
    };
    event(members).map_err(|(reasons, field)| Refusal {
        reasons,
        // An empty object breaks every rule: any field may be named.
        field: field.filter(|_| !members.is_empty()),
        tenant_id: identity(members, "tenantId", false).ok(),
        run_id: identity(members, "runId", true).ok(),
    })
}

/// Reasons and field of a failed validation.
type Fault = (&'static [&'static str], Option<&'static str>);
type Members = BTreeMap<String, Json>;

fn invalid(field: &'static str) -> Fault {
    (&["invalid_event"], Some(field))
}

fn event(members: &Members) -> Result<Event, Fault> {
    let event_type = text(members, "eventType", 128, true)?;
    let step_id = match members.get("stepId") {
        None | Some(Json::Null) => None,
        Some(_) => Some(identity(members, "stepId", true)?),
    };
    let needs_step = STEP_EVENTS.contains(&event_type.as_str());
    let refuses_step = RUN_EVENTS.contains(&event_type.as_str());
    if needs_step && step_id.is_none() || refuses_step && step_id.is_some() {
        return Err(invalid("stepId"));
    }
    Ok(Event {
        event_id: uuid(members)?,
        tenant_id: identity(members, "tenantId", false)?,
        run_id: identity(members, "runId", true)?,
        engine_attempt_id: attempt(members, "engineAttemptId")?,
        idempotency_key: key(members)?,
        emitted_at: emitted_at(members)?,
        content: Content {
            event_type,
            step_id,
            logical_attempt_id: attempt(members, "logicalAttemptId")?,
            plan_id: identity(members, "planId", true)?,
            plan_version: identity(members, "planVersion", true)?,
            project_id: identity(members, "projectId", false)?,
            environment_id: identity(members, "environmentId", false)?,
            payload: payload(members)?,
        },
    })
}

fn identity(members: &Members, field: &'static str, no_bar: bool) -> Result<String, Fault> {
    text(members, field, 256, no_bar)
}

fn text(members: &Members, field: &'static str, max: usize, no_bar: bool) -> Result<String, Fault> {
    match members.get(field) {
        Some(Json::Text(value))
            if (1..=max).contains(&value.len())
                && !value.chars().any(char::is_control)
                && !(no_bar && value.contains('|')) =>
        {
            Ok(value.clone())
        }
        // A parser that refuses lone surrogates never sees which field it was.
        Some(Json::Unpresentable) => Err((&["invalid_event", "invalid_json"], None)),
        _ => Err(invalid(field)),
    }
}

fn uuid(members: &Members) -> Result<String, Fault> {
    let value = text(members, "eventId", 36, false)?.to_ascii_lowercase();
    let shaped = value.len() == 36
        && value.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    if shaped {
        Ok(value)
    } else {
        Err(invalid("eventId"))
    }
}

fn attempt(members: &Members, field: &'static str) -> Result<i64, Fault> {
    match members.get(field) {
        Some(Json::Number {
            integer: Some(value),
            ..
        }) if (1..=2_147_483_647).contains(value) => Ok(*value),
        Some(Json::Unpresentable) => Err((&["invalid_event", "invalid_json"], None)),
        _ => Err(invalid(field)),
    }
}

fn key(members: &Members) -> Result<String, Fault> {
    let value = text(members, "idempotencyKey", 64, false)?;
    let shaped = value.len() == 64
        && value
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if shaped {
        Ok(value)
    } else {
        Err(invalid("idempotencyKey"))
    }
}

fn payload(members: &Members) -> Result<Option<Json>, Fault> {
    match members.get("payload") {
        None | Some(Json::Null) => Ok(None),
        Some(Json::Unpresentable) => Err((&["unstorable", "invalid_json"], None)),
        Some(payload @ Json::Object(_)) => {
            if payload.depth() > MAX_PAYLOAD_DEPTH {
                Err((&["invalid_event", "invalid_json"], None))
            } else if unpresentable_within(payload) {
                Err((&["unstorable", "invalid_json"], None))
            } else if payload.unstorable() {
                Err((&["unstorable"], None))
            } else {
                Ok(Some(payload.clone()))
            }
        }
        Some(_) => Err(invalid("payload")),
    }
}

/// Whether a parser may refuse the payload before anybody can ask whether it is storable.
fn unpresentable_within(value: &Json) -> bool {
    match value {
        Json::Unpresentable => true,
        Json::Array(items) => items.iter().any(unpresentable_within),
        Json::Object(members) => members.values().any(unpresentable_within),
        _ => false,
    }
}

fn emitted_at(members: &Members) -> Result<i64, Fault> {
    let value = text(members, "emittedAt", 64, false)?;
    rfc3339_micros(&value).ok_or_else(|| invalid("emittedAt"))
}

/// Microseconds since 1970 UTC of an RFC 3339 time; finer digits are cut.
fn rfc3339_micros(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let shape = b"dddd-dd-ddTdd:dd:dd";
    let head = bytes.get(..shape.len())?;
    let shaped = head
        .iter()
        .zip(shape)
        .all(|(byte, expected)| match expected {
            b'd' => byte.is_ascii_digit(),
            other => byte == other,
        });
    if !shaped {
        return None;
    }
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u32>().ok();
    let date = NaiveDate::from_ymd_opt(
        number(0, 4)?.try_into().ok()?,
        number(5, 7)?,
        number(8, 10)?,
    )?;
    let seconds = date
        .and_hms_opt(number(11, 13)?, number(14, 16)?, number(17, 19)?)?
        .and_utc()
        .timestamp();
    let mut rest = &text[shape.len()..];
    let mut micros = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return None;
        }
        let padded = format!("{:0<6}", &fraction[..digits]);
        micros = padded[..6].parse::<i64>().ok()?;
        rest = &fraction[digits..];
    }
    Some((seconds - offset_seconds(rest)?) * 1_000_000 + micros)
}

fn offset_seconds(text: &str) -> Option<i64> {
    if text == "Z" {
        return Some(0);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let two = |part: &str| {
        (part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit()))
            .then(|| part.parse::<i64>().ok())?
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::rfc3339_micros;

    #[test]
    fn times_are_cut_to_microseconds_in_utc() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01T00:00:00.1Z", Some(100_000)),
            ("1970-01-01T00:00:00.123456789Z", Some(123_456)),
            ("1970-01-01T05:30:00+05:30", Some(0)),
            ("1969-12-31T18:30:00-05:30", Some(0)),
            ("1969-12-31T23:59:59.999999999Z", Some(-1)),
            ("2026-02-30T00:00:00Z", None),
            ("10000-01-01T00:00:00Z", None),
            ("2026-01-01T00:00:00", None),
            ("2026-01-01T24:00:00Z", None),
            ("2026-01-01T00:00:00.Z", None),
            ("2026-01-01T00:00:00+0530", None),
            ("2026-01-01", None),
        ] {
            assert_eq!(rfc3339_micros(text), expected, "{text}");
        }
    }
}
