//! Reads JSON that may come from anybody into the parts of proofs and seals. Strict: a value has one form,
//! so that nothing can be changed without being another value.

use chrono::NaiveDate;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::json::value_within;
use crate::{Digest, IdempotencyKey, Micros};

/// Why something is not a proof or a seal at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(pub String);

/// Any JSON, nested at most `levels` deep and without equal keys.
pub(super) fn parse(text: &str, levels: usize) -> Result<Value, Unreadable> {
    value_within(text, levels)
        .map_err(|error| Unreadable(format!("no JSON that is used here: {error}")))
}

/// An object whose fields are taken out one by one.
pub(super) struct Object<'a> {
    fields: &'a Map<String, Value>,
    /// What it is called in messages.
    name: &'a str,
    taken: Vec<&'static str>,
}

impl<'a> Object<'a> {
    pub(super) fn new(value: &'a Value, name: &'a str) -> Result<Self, Unreadable> {
        match value {
            Value::Object(fields) => Ok(Self {
                fields,
                name,
                taken: Vec::new(),
            }),
            _ => Err(Unreadable(format!("{name} is no object"))),
        }
    }

    /// Nothing else may stand in it.
    pub(super) fn end(self) -> Result<(), Unreadable> {
        let mut unknown = self.fields.keys();
        match unknown.find(|key| !self.taken.contains(&key.as_str())) {
            Some(key) => Err(Unreadable(format!(
                "{}: {key:?} is no field of it",
                self.name
            ))),
            None => Ok(()),
        }
    }

    pub(super) fn value(&mut self, key: &'static str) -> Result<&'a Value, Unreadable> {
        self.taken.push(key);
        let found = self.fields.get(key);
        found.ok_or_else(|| Unreadable(format!("{}: {key} is missing", self.name)))
    }

    fn read<T>(
        &mut self,
        key: &'static str,
        what: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T, Unreadable> {
        let value = self.value(key)?;
        read(value).ok_or_else(|| Unreadable(format!("{}: {key} is no {what}", self.name)))
    }

    pub(super) fn exactly(&mut self, key: &'static str, text: &str) -> Result<(), Unreadable> {
        let what = format!("{text:?}, which is what this version reads");
        self.read(key, &what, |value| {
            (value.as_str() == Some(text)).then_some(())
        })
    }

    pub(super) fn text(&mut self, key: &'static str) -> Result<&'a str, Unreadable> {
        self.read(key, "text", Value::as_str)
    }

    /// Text, or null.
    pub(super) fn text_or_null(
        &mut self,
        key: &'static str,
    ) -> Result<Option<&'a str>, Unreadable> {
        self.read(key, "text", |value| match value {
            Value::Null => Some(None),
            value => value.as_str().map(Some),
        })
    }

    /// An object, or null.
    pub(super) fn object_or_null(
        &mut self,
        key: &'static str,
    ) -> Result<Option<&'a Map<String, Value>>, Unreadable> {
        self.read(key, "object", |value| match value {
            Value::Null => Some(None),
            value => value.as_object().map(Some),
        })
    }

    pub(super) fn array(&mut self, key: &'static str) -> Result<&'a [Value], Unreadable> {
        self.read(key, "array", |value| value.as_array().map(Vec::as_slice))
    }

    pub(super) fn count(&mut self, key: &'static str) -> Result<u64, Unreadable> {
        self.read(key, "whole number from 0", Value::as_u64)
    }

    /// A whole number from 1 that the log can hold.
    pub(super) fn sequence(&mut self, key: &'static str) -> Result<i64, Unreadable> {
        let read = |value: &Value| value.as_i64().filter(|number| *number >= 1);
        self.read(key, "whole number from 1", read)
    }

    pub(super) fn attempt(&mut self, key: &'static str) -> Result<i32, Unreadable> {
        let read = |value: &Value| i32::try_from(value.as_i64()?).ok();
        self.read(key, "attempt", read)
    }

    pub(super) fn digest(&mut self, key: &'static str) -> Result<Digest, Unreadable> {
        self.read(key, "digest of 64 lower-case hexadecimal digits", digest)
    }

    pub(super) fn key(&mut self, key: &'static str) -> Result<IdempotencyKey, Unreadable> {
        let read = |value: &Value| IdempotencyKey::parse(value.as_str()?);
        self.read(key, "key of 64 lower-case hexadecimal digits", read)
    }

    pub(super) fn uuid(&mut self, key: &'static str) -> Result<Uuid, Unreadable> {
        let read = |value: &Value| {
            let uuid = Uuid::try_parse(value.as_str()?).ok()?;
            same_text(uuid, value)
        };
        self.read(key, "lower-case UUID", read)
    }

    pub(super) fn time(&mut self, key: &'static str) -> Result<Micros, Unreadable> {
        let read = |value: &Value| same_text(Micros::parse_rfc3339(value.as_str()?)?, value);
        self.read(key, "UTC time with six digits", read)
    }

    pub(super) fn day(&mut self, key: &'static str) -> Result<NaiveDate, Unreadable> {
        let read = |value: &Value| same_text(value.as_str()?.parse::<NaiveDate>().ok()?, value);
        self.read(key, "day as 2026-01-31", read)
    }
}

/// A digest in its one form.
pub(super) fn digest(value: &Value) -> Option<Digest> {
    IdempotencyKey::parse(value.as_str()?).map(|key| Digest(key.0))
}

/// What was read, if it is written as it is here.
fn same_text<T: ToString>(read: T, value: &Value) -> Option<T> {
    (value.as_str() == Some(read.to_string().as_str())).then_some(read)
}
