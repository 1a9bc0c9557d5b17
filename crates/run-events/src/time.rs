//! Points in time as the log keeps them: UTC, whole microseconds.

use chrono::{DateTime, Datelike, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time in microseconds since 1970-01-01T00:00:00Z. May be negative.
///
/// Its text form, also in snapshots, is RFC 3339 UTC with six digits (contract, "State").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub i64);

impl Micros {
    /// Reads RFC 3339 with an offset; digits finer than a microsecond are cut.
    ///
    /// `None` where the text is not RFC 3339, or where the year in UTC is not 0000..=9999, since
    /// such a time has no RFC 3339 form. A leap second (`:60`) is the next second's beginning.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        // chrono also takes a space for the `T` and U+2212 for the minus; RFC 3339's own grammar
        // does not.
        if !text.is_ascii() || !matches!(text.as_bytes().get(10), Some(b'T' | b't')) {
            return None;
        }
        let parsed = DateTime::parse_from_rfc3339(text).ok()?;
        let micros = parsed
            .timestamp()
            .checked_mul(1_000_000)?
            .checked_add(i64::from(parsed.timestamp_subsec_nanos()) / 1_000)?;
        let year = DateTime::from_timestamp_micros(micros)?.year();
        (0..=9999).contains(&year).then_some(Self(micros))
    }

    /// Whole milliseconds from `start` to `self`, floored once; a negative interval counts 0
    /// (contract, "What the read models say").
    pub fn millis_since(self, start: Self) -> i64 {
        self.micros_since(start) / 1_000
    }

    /// Microseconds from `start` to `self`; a negative interval counts 0.
    pub fn micros_since(self, start: Self) -> i64 {
        self.0.saturating_sub(start.0).max(0)
    }

    /// The same point for chrono and the database driver. Times outside chrono's range (which no
    /// parsed or stored time reaches) become the epoch.
    pub fn to_datetime(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).unwrap_or_default()
    }
}

impl From<DateTime<Utc>> for Micros {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_micros())
    }
}

impl std::fmt::Display for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            &self
                .to_datetime()
                .to_rfc3339_opts(SecondsFormat::Micros, true),
        )
    }
}

impl Serialize for Micros {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Micros {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse_rfc3339(&text)
            .ok_or_else(|| de::Error::custom(format!("{text:?} is not an RFC 3339 time")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finer_digits_are_cut_and_offsets_become_utc() {
        let time =
            Micros::parse_rfc3339("2026-01-02T03:04:05.123456789+02:00").map(|t| t.to_string());
        assert_eq!(time.as_deref(), Some("2026-01-02T01:04:05.123456Z"));
    }

    #[test]
    fn times_without_an_rfc3339_form_are_refused() {
        for text in [
            "10000-01-01T00:00:00Z",
            "9999-12-31T23:59:59-01:00",
            "0000-01-01T00:00:00+01:00",
            "2026-01-02 03:04:05Z",
            "2026-01-02T03:04:05",
            "2026-01-02T03:04:05\u{2212}01:00",
            "2026-02-30T00:00:00Z",
            "",
        ] {
            assert_eq!(Micros::parse_rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_before_the_epoch_keeps_its_microseconds() {
        let time = Micros::parse_rfc3339("1969-12-31T23:59:59.999999Z");
        assert_eq!(time, Some(Micros(-1)));
        assert_eq!(Micros(-1).to_string(), "1969-12-31T23:59:59.999999Z");
    }

    #[test]
    fn intervals_floor_once_and_never_go_below_zero() {
        assert_eq!(Micros(1_999).millis_since(Micros(0)), 1);
        assert_eq!(Micros(0).millis_since(Micros(5_000)), 0);
    }
}
