//! Durations ("5ms", "30s") and byte sizes (1048576, "8MiB") as they are written in the
//! configuration. Used through `#[serde(with = "...")]` by the section structs.

/// `Duration` as text such as `"250ms"`, `"30s"` or `"1m 30s"`.
pub(super) mod duration {
    use std::fmt;
    use std::time::Duration;

    use serde::de::{Error, Unexpected, Visitor};
    use serde::{Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        from.deserialize_any(DurationText)
    }

    struct DurationText;

    impl Visitor<'_> for DurationText {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(r#"a duration with its unit, such as "250ms", "30s" or "5m""#)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
            humantime::parse_duration(text)
                .map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
        }
    }
}

/// A number of bytes: an integer, or text such as `"512 KiB"`, `"8MiB"` or `"1MB"`.
pub(super) mod byte_size {
    use std::fmt;

    use serde::de::{Error, Unexpected, Visitor};
    use serde::{Deserializer, Serializer};

    const UNITS: [(&str, u64); 8] = [
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("kB", 1_000),
        ("KB", 1_000),
        ("B", 1),
    ];

    pub(crate) fn serialize<S: Serializer>(value: &usize, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&text(value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
        from.deserialize_any(ByteSize)
    }

    struct ByteSize;

    impl Visitor<'_> for ByteSize {
        type Value = usize;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(r#"a number of bytes such as 1048576, "512KiB" or "8MiB""#)
        }

        fn visit_u64<E: Error>(self, bytes: u64) -> Result<usize, E> {
            usize::try_from(bytes).map_err(|_| E::invalid_value(Unexpected::Unsigned(bytes), &self))
        }

        fn visit_i64<E: Error>(self, bytes: i64) -> Result<usize, E> {
            usize::try_from(bytes).map_err(|_| E::invalid_value(Unexpected::Signed(bytes), &self))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<usize, E> {
            parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
        }
    }

    /// The number of bytes that `text` means, or `None` where it means none.
    fn parse(text: &str) -> Option<usize> {
        let text = text.trim();
        let (number, unit) = UNITS
            .iter()
            .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))
            .unwrap_or((text, 1));
        let number = number.trim_end();
        // `u64::from_str` also takes a leading plus sign, which no size needs.
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        usize::try_from(number.parse::<u64>().ok()?.checked_mul(unit)?).ok()
    }

    /// The shortest exact text: a whole number of the largest binary unit that divides it.
    pub(crate) fn text(bytes: &usize) -> String {
        let bytes = *bytes as u64;
        UNITS
            .iter()
            .filter(|(suffix, _)| suffix.ends_with("iB"))
            .find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit))
            .map_or_else(
                || bytes.to_string(),
                |(suffix, unit)| format!("{}{suffix}", bytes / unit),
            )
    }

    #[cfg(test)]
    mod tests {
        use super::{parse, text};

        #[test]
        fn sizes_are_read_with_and_without_a_unit() {
            assert_eq!(parse("1048576"), Some(1_048_576));
            assert_eq!(parse("8MiB"), Some(8 << 20));
            assert_eq!(parse(" 512 KiB "), Some(512 << 10));
            assert_eq!(parse("2GB"), Some(2_000_000_000));
            assert_eq!(parse("7B"), Some(7));
            for bad in ["", "MiB", "-1", "+1", "1.5MiB", "8 megs", "99999999999GiB"] {
                assert_eq!(parse(bad), None, "{bad}");
            }
        }

        #[test]
        fn a_shown_size_reads_back_as_itself() {
            for (bytes, shown) in [
                (0, "0"),
                (1000, "1000"),
                (1024, "1KiB"),
                (8 << 20, "8MiB"),
                (3 << 30, "3GiB"),
            ] {
                assert_eq!(text(&bytes), shown);
                assert_eq!(parse(shown), Some(bytes));
            }
        }
    }
}
