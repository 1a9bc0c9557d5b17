//! Times, durations, numbers and foreign bytes as people read them. Called by the commands.

use chrono::{DateTime, Utc};
use run_events::Micros;
use serde::{Serialize, Serializer};

/// A point in time of the database; its text is RFC 3339 UTC with six digits everywhere.
#[derive(Debug, Clone, Copy, PartialEq, sqlx::Type)]
#[sqlx(transparent)]
pub(crate) struct Time(pub(crate) DateTime<Utc>);

impl std::fmt::Display for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Micros::from(self.0).fmt(f)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A value, or "-" where there is none.
pub(crate) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Milliseconds as a person says them: 340ms, 1.2s, 3m 12s, 2h 05m, 3d 04h.
pub(crate) fn duration(milliseconds: i64) -> String {
    let sign = if milliseconds < 0 { "-" } else { "" };
    let ms = milliseconds.unsigned_abs();
    let (seconds, minutes, hours) = (ms / 1_000, ms / 60_000, ms / 3_600_000);
    let text = match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..60_000 => format!("{seconds}.{}s", ms % 1_000 / 100),
        60_000..3_600_000 => format!("{minutes}m {:02}s", seconds % 60),
        3_600_000..86_400_000 => format!("{hours}h {:02}m", minutes % 60),
        _ => format!("{}d {:02}h", hours / 24, hours % 24),
    };
    format!("{sign}{text}")
}

/// A duration, or "-" where there is none.
pub(crate) fn duration_or_dash(milliseconds: Option<i64>) -> String {
    or_dash(milliseconds.map(duration))
}

/// A count with its thousands apart: 1,234,567.
pub(crate) fn count<T: Into<i128>>(number: T) -> String {
    let number = number.into();
    let digits = number.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    if number < 0 {
        text.push('-');
    }
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// At most `width` characters on one line, with a mark where something was left out.
pub(crate) fn shortened(text: &str, width: usize) -> String {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().count() <= width {
        return text;
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// Bytes from outside as text that a terminal can be shown: `None` where they are not UTF-8.
/// Control characters other than tab and line end are written as escapes, since a record could
/// hold a terminal's commands.
pub(crate) fn printable(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !matches!(c, '\n' | '\t') {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    Some(shown)
}

/// Bytes as a dump: offset, sixteen bytes in hex, and the printable ones as text.
pub(crate) fn hex_dump(bytes: &[u8]) -> String {
    let mut lines = Vec::with_capacity(bytes.len() / 16 + 1);
    for (index, chunk) in bytes.chunks(16).enumerate() {
        let pairs: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown: String = chunk
            .iter()
            .map(|&byte| {
                if byte.is_ascii_graphic() || byte == b' ' {
                    char::from(byte)
                } else {
                    '.'
                }
            })
            .collect();
        lines.push(format!(
            "{:08x}  {:<47}  {shown}",
            index * 16,
            pairs.join(" ")
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        for (ms, text) in [
            (0, "0ms"),
            (999, "999ms"),
            (1_250, "1.2s"),
            (59_999, "59.9s"),
            (192_000, "3m 12s"),
            (7_500_000, "2h 05m"),
            (273_600_000, "3d 04h"),
            (-1_500, "-1.5s"),
        ] {
            assert_eq!(duration(ms), text);
        }
    }

    #[test]
    fn counts_have_their_thousands_apart() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (-1_234_567, "-1,234,567"),
        ] {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn a_short_text_is_kept_and_a_long_one_is_marked() {
        assert_eq!(shortened("abc", 3), "abc");
        assert_eq!(shortened("äbcd", 3), "äb…");
        assert_eq!(shortened("a\nb", 9), "a b");
    }

    #[test]
    fn a_records_escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(printable(b"a\x1b[2Jb\n").as_deref(), Some("a\\u{1b}[2Jb\n"));
        assert_eq!(printable(b"\xff"), None);
    }

    #[test]
    fn a_dump_shows_offset_bytes_and_text() {
        let dump = hex_dump(b"\x00\x01Runlog is here!!x");
        let mut lines = dump.lines();
        assert_eq!(
            lines.next(),
            Some("00000000  00 01 52 75 6e 6c 6f 67 20 69 73 20 68 65 72 65  ..Runlog is here")
        );
        assert!(
            lines
                .next()
                .is_some_and(|line| line.starts_with("00000010  21 21 78 "))
        );
    }

    #[test]
    fn a_time_has_six_digits() {
        let time = Time(DateTime::from_timestamp(1, 0).unwrap_or_default());
        assert_eq!(time.to_string(), "1970-01-01T00:00:01.000000Z");
    }
}
