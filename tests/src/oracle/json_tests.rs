//! The oracle's JSON reader on the cases that decide something in the contract.
#![allow(clippy::unwrap_used)]

use super::{Json, JsonError};

fn read(text: &str) -> Json {
    Json::read(text.as_bytes()).unwrap()
}

#[test]
fn equal_where_the_canonical_forms_are_equal() {
    for (a, b) in [
        ("1", "1.0"),
        ("-0", "0"),
        ("1e2", "100"),
        ("9007199254740993", "9007199254740992"),
        ("\"\\u0041\"", "\"A\""),
        ("\"\\ud83d\\ude00\"", "\"😀\""),
        ("{\"a\":1,\"b\":[ ]}", " { \"b\":[], \"a\":1.0 } "),
    ] {
        assert_eq!(read(a), read(b), "{a} and {b}");
    }
    for (a, b) in [
        ("1", "\"1\""),
        ("[1,2]", "[2,1]"),
        ("null", "false"),
        ("{}", "[]"),
        ("{\"a\":null}", "{}"),
    ] {
        assert_ne!(read(a), read(b), "{a} and {b}");
    }
}

#[test]
fn what_is_not_json_is_refused() {
    for text in [
        "",
        " ",
        "{",
        "[1,]",
        "{\"a\":1,}",
        "{a:1}",
        "01",
        "1.",
        ".5",
        "+1",
        "1e",
        "NaN",
        "'a'",
        "\"\t\"",
        "\"\\x\"",
        "\"\\u12\"",
        "tru",
        "1 2",
        "{\"a\":1,\"a\":1}",
        "{\"b\":{\"a\":1,\"\\u0061\":2}}",
        "\"",
        "\"\\",
    ] {
        assert_eq!(
            Json::read(text.as_bytes()),
            Err(JsonError::Malformed),
            "{text}"
        );
    }
    assert_eq!(Json::read(b"\"\xff\""), Err(JsonError::Malformed));
    assert_eq!(
        Json::read("[".repeat(100_000).as_bytes()),
        Err(JsonError::TooDeep)
    );
}

#[test]
fn what_the_database_cannot_hold_is_seen() {
    for text in [
        "\"\\u0000\"",
        "{\"\\u0000\":1}",
        "[1e400]",
        "{\"a\":[\"\\ud800\"]}",
        "\"\\udc00x\"",
        "{\"\\ud800\":1}",
    ] {
        assert!(read(text).unstorable(), "{text}");
    }
    for text in ["1e308", "\"\\u0001\"", "5e-324", "1e-400"] {
        assert!(!read(text).unstorable(), "{text}");
    }
}

#[test]
fn only_plain_integers_are_integers() {
    let integer = |text: &str| match read(text) {
        Json::Number { integer, .. } => integer,
        _ => None,
    };
    assert_eq!(integer("12"), Some(12));
    assert_eq!(integer("-12"), Some(-12));
    for text in ["1.0", "1e0", "-0", "99999999999999999999"] {
        assert_eq!(integer(text), None, "{text}");
    }
}

#[test]
fn depth_counts_containers() {
    assert_eq!(read("1").depth(), 0);
    assert_eq!(read("{}").depth(), 1);
    assert_eq!(read("{\"a\":[{}],\"b\":1}").depth(), 3);
}
