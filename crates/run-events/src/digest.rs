//! Canonical JSON (RFC 8785) and the digests built on it.
//!
//! The content digest decides duplicate or conflict; the chain digest makes an edit of history
//! visible. Both are stored with every event by the log.

use std::fmt;

use serde::Serialize;
use serde::ser::{SerializeMap, SerializeSeq, Serializer};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{IdempotencyKey, Micros, RunEvent};

/// A SHA-256. Its text form is 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The chain digest before a run's first event: 32 zero bytes.
    pub const CHAIN_START: Self = Self([0; 32]);

    /// SHA-256 over the RFC 8785 form of `value`. `None` where it has none (a number that is not
    /// finite, a map key that is not text).
    pub fn of_canonical(value: &impl Serialize) -> Option<Self> {
        let canonical = serde_json_canonicalizer::to_vec(value).ok()?;
        Some(Self(Sha256::digest(canonical).into()))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What two events with the same key must have in common to be the same event (contract, "What
/// append guarantees"), borrowed from wherever the event is.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Content<'a> {
    /// The type's name.
    pub event_type: &'a str,
    /// The step; absent = null.
    pub step_id: Option<&'a str>,
    /// The attempt as the plan counts it.
    pub logical_attempt_id: i32,
    /// The plan.
    pub plan_id: &'a str,
    /// The plan's version.
    pub plan_version: &'a str,
    /// The project.
    pub project_id: &'a str,
    /// The environment.
    pub environment_id: &'a str,
    /// What the producer attached; absent = null.
    #[serde(serialize_with = "as_doubles")]
    pub payload: Option<&'a serde_json::Map<String, Value>>,
}

impl Content<'_> {
    /// SHA-256 over the RFC 8785 form. Numbers are doubles, so 1 = 1.0.
    ///
    /// `None` where a number of the payload is not finite; decoding refuses such a payload.
    pub fn digest(&self) -> Option<Digest> {
        Digest::of_canonical(self)
    }
}

fn as_doubles<S: Serializer>(
    payload: &Option<&serde_json::Map<String, Value>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    payload.map(AsDoubles).serialize(serializer)
}

impl RunEvent {
    /// The digest of the event's [`Content`].
    pub fn content_digest(&self) -> Option<Digest> {
        let content = Content {
            event_type: self.event_type.as_str(),
            step_id: self.step_id.as_deref(),
            logical_attempt_id: self.logical_attempt_id,
            plan_id: &self.plan_id,
            plan_version: &self.plan_version,
            project_id: &self.project_id,
            environment_id: &self.environment_id,
            payload: self.payload.as_ref(),
        };
        content.digest()
    }
}

/// One link of a run's chain: SHA-256 over, in this order, the previous digest (32 bytes), runSeq
/// (8 bytes), eventId (16), idempotencyKey (32), emittedAt in microseconds (8), engineAttemptId (4)
/// and the content digest (32); integers big-endian.
pub fn chain_digest(
    previous: Digest,
    run_seq: i64,
    event_id: Uuid,
    key: IdempotencyKey,
    emitted_at: Micros,
    engine_attempt_id: i32,
    content: Digest,
) -> Digest {
    let mut hash = Sha256::new();
    hash.update(previous.0);
    hash.update(run_seq.to_be_bytes());
    hash.update(event_id.as_bytes());
    hash.update(key.0);
    hash.update(emitted_at.0.to_be_bytes());
    hash.update(engine_attempt_id.to_be_bytes());
    hash.update(content.0);
    Digest(hash.finalize().into())
}

/// Serialises a JSON value with every number as a double, without copying it. RFC 8785 numbers are
/// doubles: an integer above 2^53 has the canonical form of its nearest double.
pub(crate) struct AsDoubles<'a, T: ?Sized = serde_json::Map<String, Value>>(pub(crate) &'a T);

impl Serialize for AsDoubles<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0 {
            map.serialize_entry(key, &AsDoubles(value))?;
        }
        map.end()
    }
}

impl Serialize for AsDoubles<'_, Value> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Number(number) => match number.as_f64() {
                Some(double) => serializer.serialize_f64(double),
                None => Err(serde::ser::Error::custom("a number is not a double")),
            },
            Value::Array(items) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    seq.serialize_element(&AsDoubles(item))?;
                }
                seq.end()
            }
            Value::Object(map) => AsDoubles(map).serialize(serializer),
            other => other.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn canonical(json: &str) -> String {
        let value: Value = serde_json::from_str(json).unwrap();
        String::from_utf8(serde_json_canonicalizer::to_vec(&AsDoubles(&value)).unwrap()).unwrap()
    }

    #[test]
    fn equal_numbers_have_one_form() {
        assert_eq!(canonical("[1.0, 1, 1e0, -0, 0.0]"), "[1,1,1,0,0]");
        assert_eq!(canonical("9007199254740993"), canonical("9007199254740992"));
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
}
