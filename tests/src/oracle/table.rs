//! Rows as cells, and the list of differences between what is expected and what is there.
//!
//! Called by [`super::log`]'s and [`super::fold`]'s users: both sides of every comparison are
//! [`Table`]s, so one function compares the log, the dead letters, the ledger and the read models.

use super::json::Json;
use std::collections::BTreeMap;
use std::fmt;

/// One value. The first three are what a database answers; the others only stand on the expected
/// side.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// SQL NULL.
    Null,
    /// A number; times are microseconds since 1970 UTC.
    Int(i64),
    /// Text; bytes are hex digits.
    Text(String),
    /// Expected: JSON text that is equal to this value.
    Json(Json),
    /// Expected: one of these texts.
    OneOf(&'static [&'static str]),
    /// Expected: text that contains this one.
    Containing(&'static str),
    /// Expected: this text, or NULL.
    OrNull(String),
    /// Expected: anything but NULL.
    Present,
}

impl Cell {
    /// Text, or NULL for `None`.
    pub fn text(value: Option<impl Into<String>>) -> Self {
        value.map_or(Self::Null, |value| Self::Text(value.into()))
    }

    /// A number, or NULL for `None`.
    #[must_use]
    pub fn int(value: Option<i64>) -> Self {
        value.map_or(Self::Null, Self::Int)
    }

    /// JSON, or NULL for `None`.
    #[must_use]
    pub fn json(value: Option<Json>) -> Self {
        value.map_or(Self::Null, Self::Json)
    }

    /// Whether the actual cell is what this expected cell asks for.
    #[must_use]
    pub fn admits(&self, actual: &Self) -> bool {
        match (self, actual) {
            (Self::Json(expected), Self::Text(text)) => {
                Json::read(text.as_bytes()).as_ref() == Ok(expected)
            }
            (Self::OneOf(choices), Self::Text(text)) => choices.contains(&text.as_str()),
            (Self::Containing(part), Self::Text(text)) => text.contains(part),
            (Self::OrNull(_), Self::Null) => true,
            (Self::OrNull(expected), Self::Text(text)) => expected == text,
            (Self::Present, other) => *other != Self::Null,
            (expected, actual) => expected == actual,
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Null => "NULL".to_owned(),
            Self::Int(value) => value.to_string(),
            Self::Text(text) => format!("{text:?}"),
            Self::Json(json) => format!("JSON {json:?}"),
            Self::OneOf(choices) => format!("one of {choices:?}"),
            Self::Containing(part) => format!("text with {part:?}"),
            Self::OrNull(text) => format!("{text:?} or NULL"),
            Self::Present => "a value".to_owned(),
        };
        if text.chars().count() > 160 {
            write!(f, "{}...", text.chars().take(160).collect::<String>())
        } else {
            f.write_str(&text)
        }
    }
}

/// A row's columns by name.
pub type Row = BTreeMap<&'static str, Cell>;
/// Rows by their identity, for example tenant, run and step.
pub type Table = BTreeMap<Vec<String>, Row>;

/// Every difference, one line each, in the order of the identities.
#[must_use]
pub fn differences(name: &str, expected: &Table, actual: &Table) -> Vec<String> {
    let mut lines = Vec::new();
    for (identity, row) in expected {
        let place = format!("{name} [{}]", identity.join(", "));
        let Some(found) = actual.get(identity) else {
            lines.push(format!("{place}: missing"));
            continue;
        };
        for (column, cell) in row {
            match found.get(column) {
                None => lines.push(format!("{place}.{column}: no such column was read")),
                Some(value) if !cell.admits(value) => {
                    lines.push(format!("{place}.{column}: expected {cell}, found {value}"));
                }
                Some(_) => {}
            }
        }
    }
    for identity in actual
        .keys()
        .filter(|identity| !expected.contains_key(*identity))
    {
        lines.push(format!("{name} [{}]: not expected", identity.join(", ")));
    }
    lines
}

/// The first `limit` differences as one readable text.
#[must_use]
pub fn report(differences: &[String], limit: usize) -> String {
    let mut text = format!(
        "{} differences between the oracle and the database",
        differences.len()
    );
    for line in differences.iter().take(limit) {
        text.push_str("\n  ");
        text.push_str(line);
    }
    if differences.len() > limit {
        text.push_str("\n  ...");
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{Cell, Json, Row, Table, differences};

    #[test]
    fn cells_admit_what_they_say() {
        let text = |value: &str| Cell::Text(value.to_owned());
        let json = Cell::Json(Json::read(b"{\"a\":1}").unwrap());
        assert!(json.admits(&text("{\"a\": 1.0}")));
        assert!(!json.admits(&text("{\"a\": 2}")));
        assert!(
            !Cell::Json(Json::Null).admits(&Cell::Null),
            "JSON null is not SQL NULL"
        );
        assert!(Cell::Json(Json::Null).admits(&text("null")));
        assert!(
            Cell::OneOf(&["a", "b"]).admits(&text("b")) && !Cell::OneOf(&["a"]).admits(&text("b"))
        );
        assert!(
            Cell::Containing("runId").admits(&text("the field runId"))
                && !Cell::Containing("x").admits(&Cell::Null)
        );
        assert!(
            Cell::OrNull("a".into()).admits(&Cell::Null)
                && !Cell::OrNull("a".into()).admits(&text("b"))
        );
        assert!(Cell::Present.admits(&Cell::Int(0)) && !Cell::Present.admits(&Cell::Null));
        assert!(Cell::Int(1).admits(&Cell::Int(1)) && !Cell::Int(1).admits(&Cell::Null));
    }

    #[test]
    fn every_kind_of_difference_is_named() {
        let row = |value| Row::from([("n", Cell::Int(value))]);
        let expected = Table::from([(vec!["a".into()], row(1)), (vec!["b".into()], row(2))]);
        let actual = Table::from([(vec!["b".into()], row(3)), (vec!["c".into()], row(4))]);
        assert_eq!(
            differences("t", &expected, &actual),
            [
                "t [a]: missing",
                "t [b].n: expected 2, found 3",
                "t [c]: not expected"
            ]
        );
        assert!(differences("t", &expected, &expected).is_empty());
    }
}
