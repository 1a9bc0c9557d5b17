//! One line of NDJSON into one record: fills in what the contract derives, and validates.
//! Pure but for the clock and randomness of a new event id. Called by `publish`.

use run_events::json::decode;
use run_events::{IdempotencyKey, Micros, Reason, Rejection};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::kafka::publisher::HEADER_BYTES;

/// A line that may be published.
#[derive(Debug, PartialEq)]
pub(super) struct Line {
    /// The record's key: the run.
    pub(super) run_id: Option<String>,
    /// The record's value.
    pub(super) value: Vec<u8>,
}

/// Checks a line, and fills in eventId, emittedAt and idempotencyKey where they are absent or null.
/// A line that needs nothing is kept byte for byte.
///
/// # Errors
/// What ingest would say of it: the reason and the field.
pub(super) fn checked(line: &[u8], now: Micros, max_bytes: usize) -> Result<Line, Rejection> {
    let value = match decode(line) {
        Ok(decoded) => {
            return within(max_bytes, line.to_vec(), decoded.event.run_id);
        }
        Err(rejection) if rejection.reason == Reason::InvalidEvent => {
            filled(line, now).ok_or(rejection)?
        }
        Err(rejection) => return Err(rejection),
    };
    let run_id = decode(&value)?.event.run_id;
    within(max_bytes, value, run_id)
}

/// A line as it is, keyed by its run as far as that can be read.
pub(super) fn unchecked(line: &[u8]) -> Line {
    let parsed: Option<Value> = serde_json::from_slice(line).ok();
    let run_id = parsed.and_then(|value| Some(value.get("runId")?.as_str()?.to_owned()));
    Line {
        run_id: run_id.filter(|run_id| !run_id.is_empty()),
        value: line.to_vec(),
    }
}

/// Ingest measures a record by its key, value and headers.
fn within(max_bytes: usize, value: Vec<u8>, run_id: String) -> Result<Line, Rejection> {
    let bytes = value.len() + run_id.len() + HEADER_BYTES;
    if bytes > max_bytes {
        let detail = format!(
            "{bytes} bytes with its key and headers; limits.max_record_bytes is {max_bytes}"
        );
        return Err(Rejection::new(Reason::TooLarge, detail));
    }
    Ok(Line {
        run_id: Some(run_id),
        value,
    })
}

/// The line with the three fields filled in; `None` where it is no object.
fn filled(line: &[u8], now: Micros) -> Option<Vec<u8>> {
    let mut event: Map<String, Value> = serde_json::from_slice(line).ok()?;
    let mut fill = |field: &str, value: Option<String>| {
        if let (None | Some(Value::Null), Some(value)) = (event.get(field), value) {
            event.insert(field.to_owned(), Value::String(value));
        }
    };
    fill("eventId", Some(Uuid::now_v7().to_string()));
    fill("emittedAt", Some(now.to_string()));
    let key = derived_key(&event);
    if let (None | Some(Value::Null), Some(key)) = (event.get("idempotencyKey"), key) {
        event.insert("idempotencyKey".to_owned(), Value::String(key));
    }
    serde_json::to_vec(&event).ok()
}

/// The key, where everything that makes it is there; else validation names what is missing.
fn derived_key(event: &Map<String, Value>) -> Option<String> {
    let text = |field: &str| event.get(field).and_then(Value::as_str);
    let attempt = event.get("logicalAttemptId").and_then(Value::as_i64);
    let key = IdempotencyKey::derive(
        text("runId")?,
        text("stepId"),
        i32::try_from(attempt?).ok()?,
        text("eventType")?,
        text("planId")?,
        text("planVersion")?,
    );
    Some(key.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use run_events::json::decode;
    use run_events::{Micros, Reason};
    use serde_json::{Value, json};

    use super::{checked, unchecked};

    const NOW: Micros = Micros(1_700_000_000_000_000);
    const MAX: usize = 1 << 20;

    fn event() -> Value {
        json!({
            "eventType": "StepStarted", "tenantId": "acme", "projectId": "p", "environmentId": "e",
            "runId": "0d3c6a9e-4f0c-4a8e-9d5d-3d4c0f7dbb8a", "planId": "plan_abc",
            "planVersion": "2", "engineAttemptId": 1, "logicalAttemptId": 1,
            "stepId": "model.orders", "payload": {"n": 1}
        })
    }

    #[test]
    fn absent_and_null_fields_are_derived_as_the_contract_says() {
        let mut line = event();
        line["eventId"] = Value::Null;
        let line = checked(line.to_string().as_bytes(), NOW, MAX).unwrap();
        assert_eq!(
            line.run_id.as_deref(),
            Some("0d3c6a9e-4f0c-4a8e-9d5d-3d4c0f7dbb8a")
        );
        let event = decode(&line.value).unwrap().event;
        // The contract's first golden vector.
        assert_eq!(
            event.idempotency_key.to_string(),
            "7f4b974658a54fb2aee9ecb9cefebd2eec27f3fd01f0f8c0d031dfc4a5b96e3c"
        );
        assert_eq!(event.emitted_at, NOW);
        assert_eq!(event.event_id.get_version_num(), 7);
    }

    #[test]
    fn a_complete_line_is_kept_byte_for_byte() {
        let mut full = event();
        full["eventId"] = json!("0d3c6a9e-4f0c-4a8e-9d5d-3d4c0f7dbb8a");
        full["emittedAt"] = json!("2026-01-02T03:04:05Z");
        full["idempotencyKey"] = json!("a".repeat(64));
        let line = format!("  {full}  ");
        assert_eq!(
            checked(line.as_bytes(), NOW, MAX).unwrap().value,
            line.as_bytes()
        );
    }

    #[test]
    fn what_is_still_wrong_is_named() {
        let mut line = event();
        line.as_object_mut().unwrap().remove("runId");
        let rejection = checked(line.to_string().as_bytes(), NOW, MAX).unwrap_err();
        assert_eq!(rejection.reason, Reason::InvalidEvent);
        assert!(
            rejection.detail.starts_with("runId"),
            "{}",
            rejection.detail
        );
        let rejection = checked(b"{\"a\":1,\"a\":2}", NOW, MAX).unwrap_err();
        assert_eq!(rejection.reason, Reason::InvalidJson);
        let rejection = checked(b"[]", NOW, MAX).unwrap_err();
        assert_eq!(rejection.reason, Reason::InvalidEvent);
        let rejection = checked(event().to_string().as_bytes(), NOW, 100).unwrap_err();
        assert_eq!(rejection.reason, Reason::TooLarge);
    }

    #[test]
    fn a_record_is_measured_with_its_key_and_headers_as_ingest_does() {
        let whole = checked(event().to_string().as_bytes(), NOW, MAX).unwrap();
        let run_id = whole.run_id.unwrap_or_default();
        let bytes = whole.value.len() + run_id.len() + "content-typeapplication/json".len();
        assert!(checked(&whole.value, NOW, bytes).is_ok());
        let rejection = checked(&whole.value, NOW, bytes - 1).unwrap_err();
        assert_eq!(rejection.reason, Reason::TooLarge);
    }

    #[test]
    fn unchecked_bytes_are_kept_and_keyed_where_possible() {
        let line = unchecked(b"{\"runId\":\"r1\",\"bad\":true}");
        assert_eq!(line.run_id.as_deref(), Some("r1"));
        assert_eq!(unchecked(b"\xff{").run_id, None);
        assert_eq!(unchecked(b"\xff{").value, b"\xff{");
    }
}
