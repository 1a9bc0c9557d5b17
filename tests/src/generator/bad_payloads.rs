//! Payloads that must make their record a dead letter.
//!
//! Called by [`super::malformed`].

use super::draft::Fields;
use super::malformed::{Spoilt, add, with};
use super::values;

/// Adds every kind.
pub(super) fn add_all(list: &mut Vec<Spoilt>, valid: &Fields) {
    for (what, raw) in [
        ("an array", "[]"),
        ("a string", "\"a\""),
        ("a number", "1"),
        ("true", "true"),
    ] {
        add(
            list,
            format!("payload {what}"),
            "invalid_event",
            with(valid, "payload", raw),
        );
    }
    for (what, raw) in [
        ("NUL", "{\"a\":\"b\\u0000\"}"),
        ("NUL in a key", "{\"a\\u0000\":1}"),
        ("NUL deep inside", "{\"a\":[{\"b\":[\"\\u0000\"]}]}"),
    ] {
        add(
            list,
            format!("payload with {what}"),
            "unstorable",
            with(valid, "payload", raw),
        );
    }
    for (what, raw) in [
        ("a lone high surrogate", "{\"a\":\"\\ud800\"}"),
        ("a lone low surrogate", "{\"a\":[\"x\\udc00y\"]}"),
        (
            "surrogates in the wrong order",
            "{\"a\":\"\\udc00\\ud800\"}",
        ),
        ("a lone surrogate in a key", "{\"\\ud83d\":1}"),
        ("1e400", "{\"a\":1e400}"),
        ("-1e400", "{\"a\":[-1e400]}"),
        ("1e131073", "{\"a\":1e131073}"),
    ] {
        add(
            list,
            format!("payload with {what}"),
            "unstorable",
            with(valid, "payload", raw),
        );
    }
    for (what, raw) in [
        ("a key twice", "{\"a\":1,\"a\":1}"),
        (
            "a key twice, once escaped",
            "{\"a\":1,\"b\":{\"c\":1,\"\\u0063\":2}}",
        ),
        ("NaN", "{\"a\":NaN}"),
        ("Infinity", "{\"a\":Infinity}"),
        ("a leading zero", "{\"a\":01}"),
        ("a comma too many", "{\"a\":[1,]}"),
        ("a raw line break in a string", "{\"a\":\"\n\"}"),
        ("a comment", "{/**/}"),
        ("single quotes", "{'a':1}"),
    ] {
        add(
            list,
            format!("payload with {what}"),
            "invalid_json",
            with(valid, "payload", raw),
        );
    }
    for levels in [129, 200, 100_000] {
        add(
            list,
            format!("payload of {levels} levels"),
            "invalid_json",
            with(valid, "payload", &values::nested(levels)),
        );
    }
    let unclosed = format!("{{\"a\":{}", "[".repeat(100_000));
    add(
        list,
        "payload that never ends",
        "invalid_json",
        with(valid, "payload", &unclosed),
    );
}
