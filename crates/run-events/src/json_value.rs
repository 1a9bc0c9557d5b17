//! Reads JSON into the raw envelope: every object's keys unique, nesting bounded, no recursion
//! beyond the bound. `serde_json` alone would keep the last of two equal keys in silence.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::envelope::RawEnvelope;

/// Reads one value of any type, with at most `levels` containers open at once.
///
/// `serde_json`'s own `Value` gives a meaning to a key of its private namespace when any crate of
/// the build turns its `raw_value` feature on, and has its own nesting limit; this has neither.
pub(crate) fn any_value<'de, D: Deserializer<'de>>(
    levels: usize,
    deserializer: D,
) -> Result<Value, D::Error> {
    let too_deep = &Cell::new(false);
    ValueSeed { levels, too_deep }.deserialize(deserializer)
}

/// Reads one value; `levels` is how many more containers may be opened.
struct ValueSeed<'a> {
    levels: usize,
    too_deep: &'a Cell<bool>,
}

impl ValueSeed<'_> {
    fn deeper<E: de::Error>(&self) -> Result<Self, E> {
        match self.levels.checked_sub(1) {
            Some(levels) => Ok(Self {
                levels,
                too_deep: self.too_deep,
            }),
            None => {
                self.too_deep.set(true);
                Err(E::custom("nesting is too deep"))
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            match seq.next_element_seed(self.deeper()?)? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(repeated(&key));
            }
            let seed = ValueSeed {
                levels: inner.levels,
                too_deep: self.too_deep,
            };
            let value = access.next_value_seed(seed)?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

fn repeated<E: de::Error>(key: &str) -> E {
    E::custom(format_args!("the key {key:?} stands twice in one object"))
}

/// What reading the envelope found besides its fields.
#[derive(Default)]
pub(crate) struct Seen {
    /// Fields that the contract does not know; ignored.
    pub(crate) unknown_fields: u32,
    /// The field whose value is nested too deep, if that is what stopped the reading.
    pub(crate) too_deep_in: Option<TooDeep>,
}

/// A top-level field whose value is nested too deep.
pub(crate) struct TooDeep {
    pub(crate) field: String,
    /// Whether the contract knows the field.
    pub(crate) is_known: bool,
}

/// A top-level key, borrowed from the text where it holds no escapes: a record has fourteen.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads the top-level object into a [`RawEnvelope`].
pub(crate) struct EnvelopeSeed<'a> {
    pub(crate) max_nesting: usize,
    pub(crate) seen: &'a mut Seen,
}

impl<'de> DeserializeSeed<'de> for EnvelopeSeed<'_> {
    type Value = RawEnvelope;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawEnvelope, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EnvelopeSeed<'_> {
    type Value = RawEnvelope;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<RawEnvelope, A::Error> {
        let mut raw = RawEnvelope::default();
        let mut known = [false; KNOWN_FIELDS];
        let mut others = HashSet::new();
        while let Some(Key(key)) = access.next_key()? {
            let slot = slot(&mut raw, &key);
            let is_new = match &slot {
                Some((index, _)) => !std::mem::replace(&mut known[*index], true),
                None => others.insert(key.clone()),
            };
            if !is_new {
                return Err(repeated(&key));
            }
            let too_deep = Cell::new(false);
            let seed = ValueSeed {
                levels: self.max_nesting,
                too_deep: &too_deep,
            };
            let value = access.next_value_seed(seed).inspect_err(|_| {
                if too_deep.get() {
                    self.seen.too_deep_in = Some(TooDeep {
                        field: key.into_owned(),
                        is_known: slot.is_some(),
                    });
                }
            })?;
            match slot {
                Some((_, field)) => *field = Some(value).filter(|v| !v.is_null()),
                None => self.seen.unknown_fields += 1,
            }
        }
        Ok(raw)
    }
}

const KNOWN_FIELDS: usize = 14;

fn slot<'r>(raw: &'r mut RawEnvelope, key: &str) -> Option<(usize, &'r mut Option<Value>)> {
    Some(match key {
        "eventId" => (0, &mut raw.event_id),
        "eventType" => (1, &mut raw.event_type),
        "tenantId" => (2, &mut raw.tenant_id),
        "projectId" => (3, &mut raw.project_id),
        "environmentId" => (4, &mut raw.environment_id),
        "runId" => (5, &mut raw.run_id),
        "planId" => (6, &mut raw.plan_id),
        "planVersion" => (7, &mut raw.plan_version),
        "engineAttemptId" => (8, &mut raw.engine_attempt_id),
        "logicalAttemptId" => (9, &mut raw.logical_attempt_id),
        "idempotencyKey" => (10, &mut raw.idempotency_key),
        "emittedAt" => (11, &mut raw.emitted_at),
        "stepId" => (12, &mut raw.step_id),
        "payload" => (13, &mut raw.payload),
        _ => return None,
    })
}
