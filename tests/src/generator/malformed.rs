//! Records that must become dead letters, one kind for each thing that can be wrong.
//!
//! Called by [`super::generate`] with a valid event, which each kind spoils in exactly one way.

use super::bad_payloads;
use super::draft::{Draft, Fields, quoted, render};
use super::values;

const REQUIRED: [&str; 12] = [
    "eventId",
    "eventType",
    "tenantId",
    "projectId",
    "environmentId",
    "runId",
    "planId",
    "planVersion",
    "engineAttemptId",
    "logicalAttemptId",
    "idempotencyKey",
    "emittedAt",
];
const NAMES: [&str; 7] = [
    "eventType",
    "tenantId",
    "projectId",
    "environmentId",
    "runId",
    "planId",
    "planVersion",
];

/// A spoilt record.
#[derive(Clone, Debug)]
pub struct Spoilt {
    /// What is wrong, for messages.
    pub kind: String,
    /// The reason that the dead letter must be allowed to have.
    pub reason: &'static str,
    /// The record's value.
    pub value: Option<Vec<u8>>,
    /// The record's `content-type` header.
    pub content_type: Option<String>,
}

/// Every kind, made of the two events, each kind once. `run_event` is a valid run event and
/// `step_event` a valid step event.
#[must_use]
pub fn all(run_event: &Draft, step_event: &Draft) -> Vec<Spoilt> {
    let mut list = Vec::new();
    framing(&mut list, run_event);
    fields(&mut list, &run_event.fields());
    numbers_and_times(&mut list, &run_event.fields());
    steps(&mut list, run_event, step_event);
    bad_payloads::add_all(&mut list, &run_event.fields());
    list
}

/// The fields with one of them replaced by a raw JSON value.
pub(super) fn with(fields: &Fields, name: &str, raw: &str) -> Vec<u8> {
    let mut fields = fields.clone();
    fields.retain(|(field, _)| field != name);
    fields.push((name.to_owned(), raw.to_owned()));
    render(&fields, "")
}

/// Adds a kind without headers.
pub(super) fn add(
    list: &mut Vec<Spoilt>,
    kind: impl Into<String>,
    reason: &'static str,
    value: Vec<u8>,
) {
    list.push(Spoilt {
        kind: kind.into(),
        reason,
        value: Some(value),
        content_type: None,
    });
}

/// What is wrong with the bytes as a whole.
fn framing(list: &mut Vec<Spoilt>, event: &Draft) {
    let whole = render(&event.fields(), "");
    list.push(Spoilt {
        kind: "tombstone".into(),
        reason: "tombstone",
        value: None,
        content_type: None,
    });
    for media_type in ["text/plain", "application/xml; charset=utf-8"] {
        list.push(Spoilt {
            kind: format!("content type {media_type}"),
            reason: "unknown_content_type",
            value: Some(whole.clone()),
            content_type: Some(media_type.to_owned()),
        });
    }
    for (kind, bytes) in [
        ("empty value", &b""[..]),
        ("white space", b" \n"),
        ("not JSON", b"hello"),
        ("an array", b"[]"),
        ("a string", b"\"event\""),
        ("null", b"null"),
        ("an empty object", b"{}"),
    ] {
        let reason = if kind == "an empty object" {
            "invalid_event"
        } else {
            "invalid_json"
        };
        add(list, kind, reason, bytes.to_vec());
    }
    add(
        list,
        "truncated",
        "invalid_json",
        whole[..whole.len() - 1].to_vec(),
    );
    add(
        list,
        "trailing bytes",
        "invalid_json",
        [&whole[..], b"}"].concat(),
    );
    add(
        list,
        "two documents",
        "invalid_json",
        [&whole[..], &whole].concat(),
    );
    let mut twice = event.fields();
    twice.push(twice[0].clone());
    add(list, "a key twice", "invalid_json", render(&twice, ""));
    let mut utf8 = with(&event.fields(), "payload", "{\"a\":\"?\"}");
    if let Some(at) = utf8.iter().rposition(|byte| *byte == b'?') {
        utf8[at] = 0xff;
    }
    add(list, "invalid UTF-8", "invalid_json", utf8);
    for bytes in [1024 * 1024 + 1, 3 * 1024 * 1024] {
        let value = with(&event.fields(), "payload", &values::bulky(bytes));
        add(list, format!("oversize {bytes}"), "too_large", value);
    }
}

fn fields(list: &mut Vec<Spoilt>, valid: &Fields) {
    for name in REQUIRED {
        let mut missing = valid.clone();
        missing.retain(|(field, _)| field != name);
        add(
            list,
            format!("{name} missing"),
            "invalid_event",
            render(&missing, ""),
        );
        let wrong_type = if name.ends_with("AttemptId") {
            "\"1\""
        } else {
            "1"
        };
        for (what, raw) in [
            ("null", "null"),
            ("wrong type", wrong_type),
            ("object", "{}"),
            ("array", "[\"a\"]"),
            ("true", "true"),
        ] {
            add(
                list,
                format!("{name} is {what}"),
                "invalid_event",
                with(valid, name, raw),
            );
        }
    }
    for name in NAMES {
        let limit = if name == "eventType" { 128 } else { 256 };
        for (what, text) in [
            ("empty", String::new()),
            ("too long", "x".repeat(limit + 1)),
            ("too long in bytes", "\u{1f600}".repeat(limit / 4 + 1)),
            ("256 characters of four bytes", "\u{1f600}".repeat(256)),
            ("with NUL", "a\0b".to_owned()),
            ("with a control character", "a\u{7}b".to_owned()),
            ("with a line break", "a\nb".to_owned()),
            ("with DEL", "a\u{7f}b".to_owned()),
        ] {
            add(
                list,
                format!("{name} {what}"),
                "invalid_event",
                with(valid, name, &quoted(&text)),
            );
        }
        add(
            list,
            format!("{name} with a lone surrogate"),
            "invalid_json",
            with(valid, name, "\"\\ud800\""),
        );
    }
    for name in ["eventType", "runId", "planId", "planVersion"] {
        add(
            list,
            format!("{name} with a bar"),
            "invalid_event",
            with(valid, name, "\"a|b\""),
        );
    }
    for (what, text) in [
        ("without hyphens", "0d3c6a9e4f0c4a8e9d5d3d4c0f7dbb8a"),
        ("in braces", "{0d3c6a9e-4f0c-4a8e-9d5d-3d4c0f7dbb8a}"),
        ("as URN", "urn:uuid:0d3c6a9e-4f0c-4a8e-9d5d-3d4c0f7dbb8a"),
        ("short", "0d3c6a9e-4f0c-4a8e-9d5d-3d4c0f7dbb8"),
        ("with a letter g", "gd3c6a9e-4f0c-4a8e-9d5d-3d4c0f7dbb8a"),
        ("empty", ""),
    ] {
        add(
            list,
            format!("eventId {what}"),
            "invalid_event",
            with(valid, "eventId", &quoted(text)),
        );
    }
    let hex = "0123456789abcdef".repeat(4);
    for (what, text) in [
        ("upper case", hex.to_uppercase()),
        ("63 digits", hex[1..].to_owned()),
        ("65 digits", format!("{hex}0")),
        ("not hex", hex.replace('f', "g")),
        ("with prefix", format!("0x{}", &hex[2..])),
        ("empty", String::new()),
    ] {
        add(
            list,
            format!("idempotencyKey {what}"),
            "invalid_event",
            with(valid, "idempotencyKey", &quoted(&text)),
        );
    }
}

fn numbers_and_times(list: &mut Vec<Spoilt>, valid: &Fields) {
    for name in ["engineAttemptId", "logicalAttemptId"] {
        for raw in [
            "0",
            "-1",
            "-0",
            "1.0",
            "1e0",
            "1.5",
            "2147483648",
            "99999999999999999999",
            "-99999999999999999999",
        ] {
            add(
                list,
                format!("{name} {raw}"),
                "invalid_event",
                with(valid, name, raw),
            );
        }
        add(
            list,
            format!("{name} 1e400"),
            "invalid_json",
            with(valid, name, "1e400"),
        );
    }
    for text in [
        "10000-01-01T00:00:00Z",
        "+10000-01-01T00:00:00Z",
        "2026-01-01T00:00:00",
        "2026-01-01",
        "2026-02-30T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01T00:00:00+25:00",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00Z",
        "1790000000",
        "yesterday",
        "",
        "infinity",
    ] {
        add(
            list,
            format!("emittedAt {text:?}"),
            "invalid_event",
            with(valid, "emittedAt", &quoted(text)),
        );
    }
}

fn steps(list: &mut Vec<Spoilt>, run_event: &Draft, step_event: &Draft) {
    let (run, step) = (run_event.fields(), step_event.fields());
    add(
        list,
        "a run event with a step",
        "invalid_event",
        with(&run, "stepId", "\"a\""),
    );
    add(
        list,
        "a step event with step null",
        "invalid_event",
        with(&step, "stepId", "null"),
    );
    let mut missing = step.clone();
    missing.retain(|(name, _)| name != "stepId");
    add(
        list,
        "a step event without step",
        "invalid_event",
        render(&missing, ""),
    );
    for (what, raw) in [
        ("empty", "\"\"".to_owned()),
        ("with a bar", "\"a|b\"".to_owned()),
        ("with NUL", "\"a\\u0000b\"".to_owned()),
        ("too long", quoted(&"x".repeat(257))),
        ("a number", "1".to_owned()),
    ] {
        add(
            list,
            format!("stepId {what}"),
            "invalid_event",
            with(&step, "stepId", &raw),
        );
    }
}
