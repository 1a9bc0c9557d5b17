//! Field values with something special about them.
//!
//! Called by [`super::runs`].

use super::draft::{Payload, quoted};
use chrono::{DateTime, FixedOffset};
use rand::RngExt;
use rand::rngs::StdRng;

/// Content, another spelling of it, and other content.
const PAYLOADS: [(&str, &str, &str); 14] = [
    ("{}", "{ }", "{\"a\":1}"),
    ("{\"n\":1}", "{\"n\":1.0}", "{\"n\":1.5}"),
    ("{\"n\":-0}", "{\"n\":0.0}", "{\"n\":null}"),
    (
        "{\"a\":1,\"b\":[true,null]}",
        "{ \"b\" : [true, null], \"a\" : 1e0 }",
        "{\"a\":1,\"b\":[null,true]}",
    ),
    (
        "{\"big\":9007199254740993}",
        "{\"big\":9007199254740992}",
        "{\"big\":9007199254740994}",
    ),
    ("{\"big\":1e308}", "{\"big\":10.0E307}", "{\"big\":-1e308}"),
    (
        "{\"big\":123456789012345678901234567890}",
        "{\"big\":1.2345678901234568e29}",
        "{\"big\":1.3e29}",
    ),
    (
        "{\"small\":5e-324}",
        "{\"small\":4.9406564584124654e-324}",
        "{\"small\":0}",
    ),
    (
        "{\"pi\":3.14159265358979323846}",
        "{\"pi\":3.141592653589793}",
        "{\"pi\":3.1415926535897936}",
    ),
    (
        "{\"third\":0.333333333333333314829616256247}",
        "{\"third\":0.3333333333333333}",
        "{\"third\":0.33333333333333337}",
    ),
    (
        "{\"s\":\"\\u00e9 \\ud83d\\ude00\"}",
        "{\"s\":\"é 😀\"}",
        "{\"s\":\"e\\u0301 😀\"}",
    ),
    (
        "{\"s\":\"\\u0001\\u001f\\u007f\\n\\/\"}",
        "{\"s\":\"\\u0001\\u001F\u{7f}\\u000a/\"}",
        "{\"s\":\"\"}",
    ),
    (
        "{\"é\":1,\"z\":2,\"\":3,\"😀\":4}",
        "{\"😀\":4,\"\":3,\"\\u00e9\":1,\"z\":2}",
        "{\"é\":1,\"z\":2,\"\":3}",
    ),
    (
        "{\"sql\":\"'); DROP TABLE event; --\",\"tab\":\"\\t\"}",
        "{\"tab\":\"\\u0009\",\"sql\":\"'); DROP TABLE event; --\"}",
        "{\"sql\":0}",
    ),
];

/// What a failure may say. The first has an `error` that is JSON null, the last none at all.
const ERRORS: [(&str, &str, &str); 8] = [
    ("{\"error\":null}", "{ \"error\" : null }", "{\"error\":0}"),
    (
        "{\"error\":\"out of memory\"}",
        "{\"error\":\"out of \\u006demory\"}",
        "{\"error\":\"out of disk\"}",
    ),
    (
        "{\"error\":{\"code\":137,\"stack\":[\"a\",\"b\"]}}",
        "{\"error\":{\"stack\":[\"a\",\"b\"],\"code\":1.37e2}}",
        "{\"error\":{}}",
    ),
    (
        "{\"error\":[1,2.50,\"three\"]}",
        "{\"error\":[1.0,2.5,\"three\"]}",
        "{\"error\":[]}",
    ),
    ("{\"error\":42}", "{\"error\":42.0}", "{\"error\":43}"),
    (
        "{\"error\":false}",
        "{\"error\": false}",
        "{\"error\":true}",
    ),
    ("{\"error\":\"\"}", "{\"error\": \"\"}", "{}"),
    (
        "{\"message\":\"no error field\"}",
        "{\"message\": \"no error field\"}",
        "{\"error\":\"now there is\"}",
    ),
];

fn one_of(rng: &mut StdRng, choices: &[(&str, &str, &str)]) -> Payload {
    let (text, twin, other) = choices[rng.random_range(0..choices.len())];
    Payload::new(text, twin, other)
}

/// Most events have a small payload, some a special one or a large one, some none.
pub fn payload(rng: &mut StdRng) -> Option<Payload> {
    match rng.random_range(0..100) {
        0..40 => None,
        40..60 => Some(one_of(rng, &PAYLOADS)),
        60..61 => {
            let text = "x".repeat(rng.random_range(10_000..40_000));
            let document = format!("{{\"large\":\"{text}\"}}");
            Some(Payload::new(
                &document,
                &format!(" {document}"),
                "{\"large\":\"\"}",
            ))
        }
        _ => {
            let rows = rng.random_range(0..1_000_000);
            let (text, twin) = (
                format!("{{\"rows\":{rows}}}"),
                format!("{{\"rows\":{rows}.00}}"),
            );
            Some(Payload::new(
                &text,
                &twin,
                &format!("{{\"rows\":{}}}", rows + 1),
            ))
        }
    }
}

/// The payload of a failure.
pub fn error_payload(rng: &mut StdRng) -> Option<Payload> {
    rng.random_bool(0.9).then(|| one_of(rng, &ERRORS))
}

/// An event type that the contract does not know; at most 128 bytes, without `|`.
pub fn unknown_type(rng: &mut StdRng) -> String {
    match rng.random_range(0..6) {
        0 => "x".repeat(128),
        1 => "😀".repeat(32),
        2 => "runstarted".to_owned(),
        3 => "Step Started".to_owned(),
        4 => "RunRetried".to_owned(),
        _ => "StepHeartbeat".to_owned(),
    }
}

/// The text in digits of four bytes, filled up to 64 characters.
pub fn wide(text: &str) -> String {
    let digit = |byte: u8| char::from_u32(0x1_d7d8 + u32::from(byte % 10)).unwrap_or('\u{1d7d8}');
    let mut wide: String = text
        .bytes()
        .flat_map(|byte| [digit(byte / 10), digit(byte)])
        .take(64)
        .collect();
    while wide.len() < 256 {
        wide.push('\u{1d7d8}');
    }
    wide
}

/// A time in one of the spellings of RFC 3339: any offset, none to nine digits of a second.
pub fn emitted_at(rng: &mut StdRng, micros: i64) -> String {
    let minutes = [0, 0, 60, 330, -705, -300, 840][rng.random_range(0..7)];
    let offset = FixedOffset::east_opt(minutes * 60);
    let time = DateTime::from_timestamp_micros(micros).unwrap_or_default();
    let local = offset
        .map(|offset| time.with_timezone(&offset).naive_local())
        .unwrap_or_default();
    let mut text = local.format("%Y-%m-%dT%H:%M:%S").to_string();
    let digits = rng.random_range(0..=9);
    if digits > 0 {
        let fraction = format!(
            "{:06}{:03}",
            micros.rem_euclid(1_000_000),
            rng.random_range(0..1000)
        );
        text.push('.');
        text.push_str(&fraction[..digits]);
    }
    if minutes == 0 && rng.random_bool(0.8) {
        text.push('Z');
    } else {
        let sign = if minutes < 0 { '-' } else { '+' };
        let minutes = minutes.abs();
        text.push_str(&format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60));
    }
    text
}

/// A payload with `levels` levels, itself included.
pub fn nested(levels: usize) -> String {
    format!(
        "{{\"a\":{}{}}}",
        "[".repeat(levels - 1),
        "]".repeat(levels - 1)
    )
}

/// A payload whose text has about `bytes` bytes.
pub fn bulky(bytes: usize) -> String {
    format!("{{\"bulk\":{}}}", quoted(&"b".repeat(bytes)))
}
