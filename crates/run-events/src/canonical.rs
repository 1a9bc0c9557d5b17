//! The canonical form of JSON (RFC 8785), written in one pass into one buffer. Called by [`crate::digest`].
//!
//! Numbers are doubles: an integer above 2^53 has the form of its nearest double.

use serde_json::{Map, Number, Value};

/// Integers up to here are doubles as they are, and are written digit by digit as ECMAScript does.
const EXACT: u64 = 1 << 53;

/// Appends the canonical form of a value. `None` where it has none: a number that is not finite.
pub(crate) fn write_value(out: &mut Vec<u8>, value: &Value) -> Option<()> {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => write_number(out, number)?,
        Value::String(text) => write_text(out, text),
        Value::Array(items) => {
            out.push(b'[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                write_value(out, item)?;
            }
            out.push(b']');
        }
        Value::Object(map) => write_object(out, map)?,
    }
    Some(())
}

/// Appends the canonical form of an object: its members in the order of their keys' UTF-16 units.
pub(crate) fn write_object(out: &mut Vec<u8>, map: &Map<String, Value>) -> Option<()> {
    out.push(b'{');
    if has_sorted_keys(map) {
        write_members(out, map.iter())?;
    } else {
        let mut members: Vec<_> = map.iter().collect();
        members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
        write_members(out, members.into_iter())?;
    }
    out.push(b'}');
    Some(())
}

/// Whether the keys are sure to stand in the order of their UTF-16 units. The map has them in the order of
/// their bytes, which is another one only where characters from U+E000 on meet characters of two units.
fn has_sorted_keys(map: &Map<String, Value>) -> bool {
    const LEAD_OF_U_E000: u8 = 0xEE;
    map.keys().all(|k| k.bytes().all(|b| b < LEAD_OF_U_E000)) && map.keys().is_sorted()
}

fn write_members<'m>(
    out: &mut Vec<u8>,
    members: impl Iterator<Item = (&'m String, &'m Value)>,
) -> Option<()> {
    for (place, (key, value)) in members.enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write_text(out, key);
        out.push(b':');
        write_value(out, value)?;
    }
    Some(())
}

/// Appends a text in quotes. Only what JSON cannot hold as it is has an escape.
pub(crate) fn write_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    // Most texts hold no such byte, and looking at all of them without a branch is the fastest way to know.
    if rest.iter().fold(false, |any, b| any | needs_escape(*b)) {
        while let Some(at) = rest.iter().position(|b| needs_escape(*b)) {
            out.extend_from_slice(&rest[..at]);
            write_escape(out, rest[at]);
            rest = &rest[at + 1..];
        }
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn needs_escape(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

fn write_escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0C => b'f',
        b'\r' => b'r',
        _ => {
            let digits = [byte >> 4, byte & 0xF].map(|digit| HEX[usize::from(digit)]);
            out.extend_from_slice(b"\\u00");
            return out.extend_from_slice(&digits);
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn write_number(out: &mut Vec<u8>, number: &Number) -> Option<()> {
    match number.as_i64() {
        Some(integer) if integer.unsigned_abs() <= EXACT => write_integer(out, integer),
        _ => {
            let double = number.as_f64().filter(|double| double.is_finite())?;
            out.extend_from_slice(ryu_js::Buffer::new().format_finite(double).as_bytes());
        }
    }
    Some(())
}

/// Appends the digits of an integer, which must not be beyond 2^53.
pub(crate) fn write_integer(out: &mut Vec<u8>, integer: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(integer).as_bytes());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn canonical(json: &str) -> String {
        let value: Value = serde_json::from_str(json).unwrap();
        let mut out = Vec::new();
        write_value(&mut out, &value).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn equal_numbers_have_one_form() {
        assert_eq!(canonical("[1.0, 1, 1e0, -0, 0.0]"), "[1,1,1,0,0]");
        assert_eq!(canonical("9007199254740993"), canonical("9007199254740992"));
        assert_eq!(canonical("-9007199254740993"), "-9007199254740992");
        assert_eq!(canonical("1e21"), "1e+21");
        assert_eq!(canonical("18446744073709551615"), "18446744073709552000");
    }

    #[test]
    fn keys_are_sorted_by_utf16_as_rfc_8785_shows() {
        // RFC 8785, section 3.2.3: the expected order of these keys.
        let json = "{\"\\u20ac\":1,\"\\r\":2,\"\\ufb33\":3,\"1\":4,\"\\ud83d\\ude00\":5,\"\\u0080\":6,\"\\u00f6\":7}";
        assert_eq!(
            canonical(json),
            "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"\u{f6}\":7,\"\u{20ac}\":1,\"\u{1f600}\":5,\"\u{fb33}\":3}"
        );
    }

    #[test]
    fn literals_and_escapes_are_as_rfc_8785_shows() {
        // RFC 8785, section 3.2.2.
        let json = r#"{
          "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
          "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
          "literals": [null, true, false]
        }"#;
        assert_eq!(
            canonical(json),
            r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}"#
        );
    }

    #[test]
    fn a_text_has_the_escapes_that_it_must_have_and_no_others() {
        // RFC 8785, section 3.2.2.2: these seven, hex digits below U+0020, everything else as it is.
        let short = [
            ('\u{8}', "\\b"),
            ('\t', "\\t"),
            ('\n', "\\n"),
            ('\u{c}', "\\f"),
            ('\r', "\\r"),
            ('"', "\\\""),
            ('\\', "\\\\"),
        ];
        for c in '\0'..='\u{2100}' {
            let expected = match short.iter().find(|(escaped, _)| *escaped == c) {
                Some((_, escape)) => (*escape).to_owned(),
                None if c < ' ' => format!("\\u{:04x}", u32::from(c)),
                None => c.to_string(),
            };
            let mut out = Vec::new();
            write_text(&mut out, &format!("a{c}é{c}"));
            let expected = format!("\"a{expected}é{expected}\"");
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
