//! Every rule of the contract's envelope table, broken and just kept: the reason of the rejection
//! and the field that its detail names. No database, no Kafka.
#![allow(clippy::unwrap_used, clippy::panic)]

mod record;

use record::{Record, arrays, objects};
use run_events::json::{Decoded, decode};
use run_events::{EventType, Reason, Rejection};

const IDS: [&str; 6] = [
    "tenantId",
    "projectId",
    "environmentId",
    "runId",
    "planId",
    "planVersion",
];
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

fn accepted(text: &str) -> Decoded {
    decode(text.as_bytes()).unwrap_or_else(|e| panic!("refused: {e}\n{}", start_of(text)))
}

/// The rejection of `text`, which must have this reason and this fragment in its detail.
fn refused(text: &str, reason: Reason, fragment: &str) -> Rejection {
    let rejection = match decode(text.as_bytes()) {
        Ok(_) => panic!("accepted, but {fragment:?} expected:\n{}", start_of(text)),
        Err(rejection) => rejection,
    };
    let shown = start_of(text);
    assert_eq!(rejection.reason, reason, "{rejection}\n{shown}");
    assert!(
        rejection.detail.contains(fragment),
        "{:?} lacks {fragment:?}\n{shown}",
        rejection.detail
    );
    rejection
}

/// Refused as `invalid_event`, with a detail that begins with the field's name.
fn breaks(record: &Record, field: &str, problem: &str) {
    let fragment = format!("{field}: ");
    let rejection = refused(&record.text(), Reason::InvalidEvent, problem);
    assert!(rejection.detail.starts_with(&fragment), "{rejection}");
}

fn start_of(text: &str) -> String {
    text.chars().take(700).collect()
}

#[test]
fn a_full_record_decodes_to_its_fields() {
    let Decoded {
        event,
        unknown_fields,
    } = accepted(&Record::step().text());
    assert_eq!(unknown_fields, 0);
    assert_eq!(
        event.event_id.to_string(),
        "0197a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
    );
    assert_eq!(event.event_type.as_str(), "StepStarted");
    assert_eq!(event.tenant_id, "acme");
    assert_eq!(event.project_id, "warehouse");
    assert_eq!(event.environment_id, "prod");
    assert_eq!(event.run_id, "run-1");
    assert_eq!(event.plan_id, "plan_abc");
    assert_eq!(event.plan_version, "v2");
    assert_eq!(event.engine_attempt_id, 3);
    assert_eq!(event.logical_attempt_id, 2);
    assert_eq!(
        event.idempotency_key.to_string(),
        "0123456789abcdef".repeat(4)
    );
    assert_eq!(event.emitted_at.to_string(), "2026-01-02T03:04:05.123456Z");
    assert_eq!(event.step_id.as_deref(), Some("model.orders"));
    assert_eq!(
        serde_json::to_string(&event.payload).unwrap(),
        r#"{"rows":7}"#
    );
}

#[test]
fn a_required_field_may_not_be_absent_or_null() {
    for field in REQUIRED {
        breaks(&Record::step().without(field), field, "is missing");
        breaks(&Record::step().with(field, "null"), field, "is missing");
    }
}

#[test]
fn an_optional_field_may_be_null_which_is_absent() {
    let record = Record::run("RunStarted");
    assert_eq!(accepted(&record.text()).event.step_id, None);
    let record = record.with("stepId", "null").with("payload", "null");
    let event = accepted(&record.text()).event;
    assert_eq!((event.step_id, event.payload), (None, None));
    assert_eq!(
        accepted(&Record::step().without("payload").text())
            .event
            .payload,
        None
    );
}

#[test]
fn a_field_of_another_type_is_refused() {
    let values = [
        ("true", "not a boolean"),
        ("7", "not a number"),
        ("[]", "not an array"),
        ("{}", "not an object"),
    ];
    for field in IDS
        .iter()
        .chain(&["eventId", "eventType", "idempotencyKey", "emittedAt"])
        .chain(&["stepId"])
    {
        for (value, found) in values {
            let problem = format!("must be a text, {found}");
            breaks(&Record::step().with(field, value), field, &problem);
        }
    }
    for field in ["engineAttemptId", "logicalAttemptId"] {
        for (value, found) in values.into_iter().filter(|(value, _)| *value != "7") {
            let problem = format!("must be an integer, {found}");
            breaks(&Record::step().with(field, value), field, &problem);
        }
        breaks(
            &Record::step().with(field, r#""1""#),
            field,
            "must be an integer, not a text",
        );
    }
    for (value, found) in values.into_iter().filter(|(value, _)| *value != "{}") {
        let problem = format!("must be an object, {found}");
        breaks(&Record::step().with("payload", value), "payload", &problem);
    }
}

#[test]
fn an_id_has_1_to_256_bytes_and_a_type_1_to_128() {
    let limits = IDS
        .iter()
        .chain(&["stepId"])
        .map(|id| (*id, 256))
        .chain([("eventType", 128)]);
    for (field, limit) in limits {
        let record = |text: &str| Record::step().with(field, format!("{text:?}"));
        breaks(&record(""), field, "is empty");
        let too_long = format!("has {} bytes, more than {limit}", limit + 1);
        for unit in ["a", "é", "€", "😀"] {
            // Filled up with one-byte characters to exactly the limit, then one byte more.
            let many = unit.repeat(limit / unit.len());
            let full = format!("{many}{}", "a".repeat(limit - many.len()));
            assert_eq!(full.len(), limit);
            accepted(&record(&full).text());
            breaks(&record(&format!("{full}a")), field, &too_long);
        }
    }
}

#[test]
fn a_control_character_is_refused_in_every_text() {
    for field in IDS.iter().chain(&["stepId", "eventType"]) {
        for escape in [r"\u0000", r"\n", r"\u001f", r"\u007f", r"\u0085", r"\u009f"] {
            let record = Record::step().with(field, format!(r#""a{escape}b""#));
            breaks(&record, field, "holds a control character");
        }
        // The first characters that are no control characters, and one that only looks like one.
        for text in [" ", "~", "\u{a0}", "\u{2028}", "\u{feff}"] {
            accepted(&Record::step().with(field, format!("\"a{text}b\"")).text());
        }
    }
}

#[test]
fn a_pipe_is_refused_where_it_would_blur_the_key_and_only_there() {
    for field in ["runId", "eventType", "planId", "planVersion", "stepId"] {
        breaks(
            &Record::step().with(field, r#""a|b""#),
            field,
            "holds a '|'",
        );
    }
    for field in ["tenantId", "projectId", "environmentId"] {
        accepted(&Record::step().with(field, r#""a|b""#).text());
    }
}

#[test]
fn an_event_id_is_a_hyphenated_uuid_of_any_version_and_case() {
    let record = |id: &str| Record::step().with("eventId", format!("{id:?}"));
    for id in [
        "0197a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b",
        "0197A1B2-C3D4-7E5F-8A9B-0C1D2E3F4A5B",
        "0197a1B2-c3D4-4e5f-8a9b-0c1d2e3f4a5b",
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
    ] {
        let event = accepted(&record(id).text()).event;
        assert_eq!(event.event_id.to_string(), id.to_lowercase());
    }
    for id in [
        "",
        "0197a1b2c3d47e5f8a9b0c1d2e3f4a5b",
        "{0197a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b}",
        "urn:uuid:0197a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b",
        "0197a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5",
        "0197a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b0",
        "0197a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5g",
        "0197a1b2c-3d4-7e5f-8a9b-0c1d2e3f4a5b",
        " 197a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b",
        "0197a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a\u{e9}",
    ] {
        breaks(&record(id), "eventId", "is not a hyphenated UUID");
    }
}

#[test]
fn an_attempt_is_an_integer_from_1_without_fraction_or_exponent() {
    for field in ["engineAttemptId", "logicalAttemptId"] {
        for value in ["1", "2147483647"] {
            let event = accepted(&Record::step().with(field, value).text()).event;
            let read = match field {
                "engineAttemptId" => event.engine_attempt_id,
                _ => event.logical_attempt_id,
            };
            assert_eq!(read.to_string(), value);
        }
        for value in [
            "0",
            "-0",
            "-1",
            "2147483648",
            "9223372036854775808",
            "18446744073709551616",
            "1.0",
            "1.5",
            "1e0",
            "1E0",
            "10e-1",
        ] {
            let problem = "is not an integer from 1 to 2147483647";
            breaks(&Record::step().with(field, value), field, problem);
        }
    }
}

#[test]
fn an_idempotency_key_is_64_lower_case_hex_digits() {
    let key = "0123456789abcdef".repeat(4);
    let record = |key: &str| Record::step().with("idempotencyKey", format!("{key:?}"));
    accepted(&record(&key).text());
    for bad in [
        String::new(),
        key.to_uppercase(),
        key.replace('f', "F"),
        key.replace('f', "g"),
        key[1..].to_owned(),
        key[2..].to_owned(),
        format!("{key}00"),
        format!(" {}", &key[1..]),
        format!("{}é", &key[2..]),
        format!("0x{}", &key[2..]),
    ] {
        breaks(
            &record(&bad),
            "idempotencyKey",
            "is not 64 lower-case hex digits",
        );
    }
}

#[test]
fn emitted_at_is_rfc_3339_with_an_offset_and_becomes_utc_microseconds() {
    let record = |time: &str| Record::step().with("emittedAt", format!("{time:?}"));
    for (sent, kept) in [
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000000Z"),
        ("2026-01-02t03:04:05z", "2026-01-02T03:04:05.000000Z"),
        ("2026-01-02T03:04:05.1Z", "2026-01-02T03:04:05.100000Z"),
        ("2026-01-02T03:04:05+05:30", "2026-01-01T21:34:05.000000Z"),
        ("2026-01-02T03:04:05-23:59", "2026-01-03T03:03:05.000000Z"),
        ("2026-01-02T03:04:05-00:00", "2026-01-02T03:04:05.000000Z"),
        (
            "2026-01-02T03:04:05.1234569Z",
            "2026-01-02T03:04:05.123456Z",
        ),
        (
            "2026-01-02T03:04:05.99999999999999999999Z",
            "2026-01-02T03:04:05.999999Z",
        ),
        (
            "1969-12-31T23:59:59.9999999Z",
            "1969-12-31T23:59:59.999999Z",
        ),
        ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00.000000Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00.000000Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000000Z"),
    ] {
        let event = accepted(&record(sent).text()).event;
        assert_eq!(event.emitted_at.to_string(), kept, "{sent}");
    }
    for bad in [
        "",
        "now",
        "1767323045",
        "2026-01-02",
        "2026-01-02T03:04:05",
        "2026-01-02 03:04:05Z",
        "2026-01-02T03:04Z",
        "2026-01-02T03:04:05.Z",
        "2026-01-02T03:04:05,5Z",
        "2026-01-02T03:04:05+0530",
        "2026-01-02T03:04:05+05",
        "2026-01-02T03:04:05+24:00",
        "2026-01-02T03:04:05+00:60",
        "2026-01-02T03:04:05\u{2212}01:00",
        "2026-01-02T03:04:05Z ",
        " 2026-01-02T03:04:05Z",
        "2026-01-02T03:04:05 Z",
        "2026-01-02T24:00:00Z",
        "2026-01-02T03:60:00Z",
        "2026-01-02T03:04:61Z",
        "2026-13-01T00:00:00Z",
        "2025-02-29T00:00:00Z",
        "2026-1-02T03:04:05Z",
        "+2026-01-02T03:04:05Z",
        "10000-01-01T00:00:00Z",
        "9999-12-31T23:59:59-00:01",
        "9999-12-31T23:59:60Z",
        "0000-01-01T00:00:00+00:01",
    ] {
        breaks(&record(bad), "emittedAt", "is not an RFC 3339 time");
    }
}

#[test]
fn a_step_event_has_a_step_a_run_event_has_none_and_an_unknown_type_is_free() {
    for event_type in ["StepStarted", "StepCompleted", "StepFailed", "StepSkipped"] {
        let record = Record::run(event_type);
        let problem = format!("is missing, and {event_type} is a step event");
        breaks(&record, "stepId", &problem);
        breaks(&record.clone().with("stepId", "null"), "stepId", &problem);
        accepted(&record.with("stepId", r#""s""#).text());
    }
    for event_type in [
        "RunQueued",
        "RunStarted",
        "RunPaused",
        "RunResumed",
        "RunCompleted",
        "RunFailed",
        "RunCancelled",
    ] {
        let record = Record::run(event_type);
        let problem = format!("must be absent, since {event_type} is a run event");
        breaks(&record.clone().with("stepId", r#""s""#), "stepId", &problem);
        accepted(&record.with("stepId", "null").text());
    }
    for event_type in ["RunRetried", "stepstarted", "RUNSTARTED", "StepStarted "] {
        let record = Record::run(event_type);
        let event = accepted(&record.text()).event;
        assert_eq!(event.event_type, EventType::Unknown(event_type.to_owned()));
        accepted(&record.with("stepId", r#""s""#).text());
    }
}

#[test]
fn the_first_broken_rule_in_the_order_of_the_table_is_the_one_named() {
    // Everything is wrong at first; each field put right reveals the next one.
    let right = Record::step();
    let mut record = Record::step();
    let in_order = [
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
        "stepId",
        "payload",
    ];
    for field in in_order {
        record = record.with(field, "false");
    }
    let right: serde_json::Value = serde_json::from_str(&right.text()).unwrap();
    for field in in_order {
        breaks(&record, field, "must be");
        record = record.with(field, right[field].to_string());
    }
    accepted(&record.text());
    // A step event without its step and with a wrong payload: the step comes first.
    let both = Record::run("StepStarted").with("payload", "7");
    breaks(&both, "stepId", "is missing");
}

#[test]
fn a_repeated_key_is_invalid_json_wherever_it_stands() {
    let twice = |key: &str| format!("the key {key:?} stands twice");
    let step = Record::step();
    for (text, key) in [
        (step.clone().and("runId", r#""run-1""#), "runId"),
        (step.clone().and("payload", "{}"), "payload"),
        (
            step.clone().with("payload", "null").and("payload", "null"),
            "payload",
        ),
        (step.clone().and(r"\u0072unId", r#""run-1""#), "runId"),
        (step.clone().and("extra", "1").and("extra", "1"), "extra"),
        (step.clone().and("a", "1").and(r"\u0061", "2"), "a"),
        (step.clone().and("", "1").and("", "2"), ""),
        (step.clone().with("payload", r#"{"a":1,"a":1}"#), "a"),
        (step.clone().with("payload", r#"{"a":1,"\u0061":1}"#), "a"),
        (
            step.clone()
                .with("payload", r#"{"x":[{"b":{"c":1,"d":2,"c":3}}]}"#),
            "c",
        ),
        (
            step.clone().with("payload", r#"{"\ud83d\ude00":1,"😀":2}"#),
            "😀",
        ),
        (step.clone().and("extra", r#"[{"e":1,"e":2}]"#), "e"),
        (step.clone().with("runId", r#"{"f":1,"f":2}"#), "f"),
    ] {
        refused(&text.text(), Reason::InvalidJson, &twice(key));
    }
    // Equal keys in different objects, and keys that differ in case, are not repeated.
    let payload = r#"{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}],"A":1}"#;
    accepted(&step.with("payload", payload).and("runid", "1").text());
}

#[test]
fn what_the_database_cannot_hold_is_unstorable_or_invalid_json() {
    let payload = |payload: &str| Record::step().with("payload", payload).text();
    for text in [
        r#"{"a":"\u0000"}"#,
        r#"{"\u0000":1}"#,
        r#"{"a":[[{"b":"x\u0000y"}]]}"#,
        r#"{"a":[{"k\u0000":1}]}"#,
    ] {
        let rejection = refused(&payload(text), Reason::Unstorable, "payload: holds U+0000");
        assert_eq!(rejection.tenant_id.as_deref(), Some("acme"));
        assert_eq!(rejection.run_id.as_deref(), Some("run-1"));
    }
    for text in [
        r#"{"a":"\ud800"}"#,
        r#"{"a":"\udc00"}"#,
        r#"{"a":"\ud800\ud800"}"#,
        r#"{"a":"\ud800x"}"#,
        r#"{"\udfff":1}"#,
    ] {
        refused(&payload(text), Reason::InvalidJson, "line 1 column");
    }
    let long = format!("{{\"a\":{}}}", "9".repeat(400));
    for text in [
        r#"{"a":1e999}"#,
        r#"{"a":-1e309}"#,
        r#"{"a":1e131072}"#,
        r#"{"a":[1e99999999999999999999]}"#,
        &long,
    ] {
        refused(&payload(text), Reason::InvalidJson, "number out of range");
    }
    for text in [
        "NaN",
        "Infinity",
        "-Infinity",
        "01",
        "1.",
        ".5",
        "+1",
        "0x1",
    ] {
        let text = payload(&format!("{{\"a\":{text}}}"));
        refused(&text, Reason::InvalidJson, "line 1 column");
    }
    for text in [
        r#"{"a":1.7976931348623157e308}"#,
        r#"{"a":5e-324}"#,
        r#"{"a":1e-99999}"#,
        r#"{"a":-0}"#,
        r#"{"a":18446744073709551615,"b":123456789012345678901234567890}"#,
        r#"{"a":"\ud83d\ude00 \u0001 \u007f","":null}"#,
        r#"{"$serde_json::private::RawValue":"[1]"}"#,
        r#"{"$serde_json::private::Number":"x"}"#,
    ] {
        let event = accepted(&payload(text)).event;
        assert!(event.content_digest().is_some(), "{text}");
    }
    // Only the payload is stored: an unknown field may hold U+0000, but must still be JSON.
    for text in [r#""\u0000""#, r#"{"a":"\u0000"}"#] {
        accepted(&Record::step().and("extra", text).text());
    }
    refused(
        &Record::step().and("extra", r#""\ud800""#).text(),
        Reason::InvalidJson,
        "line 1 column",
    );
}

#[test]
fn a_payload_may_be_nested_128_levels_and_no_more() {
    let payload = |payload: String| Record::step().with("payload", payload);
    accepted(&payload(objects(128)).text());
    accepted(&payload(format!("{{\"a\":{}}}", arrays(127))).text());
    for levels in [129, 100_000] {
        let problem = "is nested more than 128 levels deep";
        breaks(&payload(objects(levels)), "payload", problem);
        let mixed = format!("{{\"a\":{}}}", arrays(levels - 1));
        breaks(&payload(mixed), "payload", problem);
        // Unclosed, as an attacker would send it.
        let text = Record::step().without("payload").text();
        let open = format!(
            "{},\"payload\":{}",
            &text[..text.len() - 1],
            "[".repeat(levels)
        );
        refused(&open, Reason::InvalidEvent, problem);
    }
    for field in ["runId", "engineAttemptId", "stepId"] {
        let record = Record::step().with(field, arrays(129));
        breaks(&record, field, "is nested more than 128 levels deep");
    }
}

#[test]
fn an_unknown_field_is_bounded_like_the_payload() {
    let extra = |value: String| Record::step().and("extra", value).text();
    assert_eq!(accepted(&extra(arrays(128))).unknown_fields, 1);
    assert_eq!(accepted(&extra(objects(128))).unknown_fields, 1);
    for levels in [129, 100_000] {
        let problem = "the unknown field \"extra\" is nested more than 128 levels deep";
        refused(&extra(arrays(levels)), Reason::InvalidJson, problem);
        refused(&extra(objects(levels)), Reason::InvalidJson, problem);
    }
}

#[test]
fn a_record_that_is_json_but_no_object_is_no_event() {
    for (text, found) in [
        ("[]", "sequence"),
        ("[{\"a\":1}]", "sequence"),
        ("7", "integer"),
        ("-7", "integer"),
        ("1.5", "floating point"),
        ("\"text\"", "string"),
        ("true", "boolean"),
        ("null", "null"),
        (" null ", "null"),
    ] {
        let rejection = refused(text, Reason::InvalidEvent, "the record: invalid type");
        assert!(rejection.detail.contains(found), "{rejection}");
    }
    refused(&arrays(128), Reason::InvalidEvent, "the record");
    for levels in [129, 100_000] {
        refused(&arrays(levels), Reason::InvalidJson, "nesting is too deep");
    }
    // No object at the first byte, and no JSON later on.
    for text in [
        "[",
        "[1",
        "7 7",
        "[{\"a\":1,\"a\":2}]",
        "[]]",
        "\"a",
        "null,",
    ] {
        refused(text, Reason::InvalidJson, "");
    }
    // An empty object lacks its first field.
    refused("{}", Reason::InvalidEvent, "eventId: is missing");
}

#[test]
fn bytes_that_are_not_one_json_text_are_invalid_json() {
    let valid = Record::step().text();
    for text in [
        String::new(),
        " \n\t".to_owned(),
        "nul".to_owned(),
        format!("\u{feff}{valid}"),
        format!("{valid}x"),
        format!("{valid}{valid}"),
        format!("{valid}\0"),
        format!("{valid},"),
        valid[..valid.len() - 1].to_owned(),
        valid.replace(':', " "),
        valid.replacen(',', ",,", 1),
        valid.replacen('{', "{,", 1),
        valid.replace('"', "'"),
        valid.replace("}}", "},}"),
        valid.replace("acme", "ac\nme"),
        valid.replace("acme", r"ac\xme"),
        valid.replace("acme", r"ac\u12me"),
    ] {
        let rejection = refused(&text, Reason::InvalidJson, "line ");
        assert_eq!((rejection.tenant_id, rejection.run_id), (None, None));
    }
    for bytes in [
        b"\xff\xfe{\0}\0".to_vec(),
        b"\xc3\x28".to_vec(),
        b"\xed\xa0\x80".to_vec(),
        b"\xf4\x90\x80\x80".to_vec(),
        b"\xc0\x80".to_vec(),
        b"{\"a\":\"\xe2\x82".to_vec(),
        [valid.as_bytes(), b"\x80"].concat(),
    ] {
        let rejection = decode(&bytes).unwrap_err();
        assert_eq!(rejection.reason, Reason::InvalidJson);
        assert!(rejection.detail.starts_with("not UTF-8"), "{rejection}");
    }
    accepted(&format!(" \r\n\t{valid} \n"));
}

#[test]
fn a_rejection_names_tenant_and_run_only_where_they_are_valid() {
    let owner = |record: Record| {
        let rejection = decode(record.text().as_bytes()).unwrap_err();
        (rejection.tenant_id, rejection.run_id)
    };
    let (acme, run) = (Some("acme".to_owned()), Some("run-1".to_owned()));
    let step = Record::step();
    // Another field is wrong, before and after the two in the table.
    for field in ["eventId", "projectId", "emittedAt", "payload"] {
        let record = step.clone().with(field, "7");
        assert_eq!(owner(record), (acme.clone(), run.clone()), "{field}");
    }
    let too_long = format!("{:?}", "é".repeat(129));
    for bad in ["7", "null", r#""""#, r#""\u0000""#, &too_long] {
        assert_eq!(
            owner(step.clone().with("tenantId", bad)),
            (None, run.clone()),
            "{bad}"
        );
        assert_eq!(
            owner(step.clone().with("runId", bad)),
            (acme.clone(), None),
            "{bad}"
        );
        let neither = step.clone().with("runId", bad).with("tenantId", bad);
        assert_eq!(owner(neither), (None, None), "{bad}");
    }
    assert_eq!(
        owner(step.clone().with("runId", r#""a|b""#)),
        (acme.clone(), None)
    );
    // A tenant may hold a pipe, so it is named.
    let piped = step
        .clone()
        .with("tenantId", r#""a|b""#)
        .with("eventId", "7");
    assert_eq!(owner(piped), (Some("a|b".to_owned()), run));
    assert_eq!(owner(step.and("runId", r#""other""#)), (None, None));
}

#[test]
fn unknown_fields_are_ignored_and_counted() {
    let plain = accepted(&Record::step().text()).event;
    let record = Record::step()
        .and("extra", "null")
        .and("runid", r#""other""#)
        .and("EventId", "[1,{}]")
        .and("", r#"{"payload":{}}"#)
        .and("run_id", "1e3");
    let decoded = accepted(&record.text());
    assert_eq!(decoded.unknown_fields, 5);
    assert_eq!(decoded.event, plain);
    // A known key is known however it is written.
    let escaped = Record::step()
        .without("runId")
        .and(r"run\u0049d", r#""run-1""#);
    let decoded = accepted(&escaped.text());
    assert_eq!((decoded.unknown_fields, decoded.event), (0, plain));
}

#[test]
fn a_detail_is_short_and_free_of_control_characters_whatever_was_sent() {
    let long = "\u{1F600}".repeat(10_000);
    for text in [
        Record::step().and(&long, "1").and(&long, "1").text(),
        Record::step().and(&long, arrays(129)).text(),
        Record::step()
            .and(r"\u0000\u001b\u0085", arrays(129))
            .text(),
        Record::step().with("eventId", format!("{long:?}")).text(),
        Record::step()
            .with("eventId", r#""\u0000\u001b[31m""#)
            .text(),
        Record::step().with("emittedAt", r#""\u0007\u0085""#).text(),
        Record::run(&long[..128]).with("stepId", "1").text(),
        format!("{:?}", long),
    ] {
        let detail = decode(text.as_bytes()).unwrap_err().detail;
        assert!(
            detail.len() <= Rejection::MAX_DETAIL_BYTES,
            "{}",
            detail.len()
        );
        assert!(!detail.chars().any(char::is_control), "{detail:?}");
    }
}
