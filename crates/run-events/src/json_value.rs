//! Reads JSON into the raw envelope: every object's keys unique, nesting bounded, no recursion
//! beyond the bound. `serde_json` alone would keep the last of two equal keys in silence.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

use crate::envelope::{Field, RawEnvelope};

/// Reads one value of any type, with at most `levels` containers open at once.
///
/// `serde_json`'s own `Value` gives a meaning to a key of its private namespace when any crate of
/// the build turns its `raw_value` feature on, and has its own nesting limit; this has neither.
pub(crate) fn any_value<'de, D: Deserializer<'de>>(
    levels: usize,
    deserializer: D,
) -> Result<Value, D::Error> {
    let found = &Found::default();
    ValueSeed { levels, found }.deserialize(deserializer)
}

/// What reading a value found in it, at any depth.
#[derive(Default)]
struct Found {
    too_deep: Cell<bool>,
    /// U+0000 in a key or a text.
    nul: Cell<bool>,
}

impl Found {
    /// Takes note of a key or text that stands in JSON with escapes: only so can one hold U+0000.
    fn look_at(&self, text: &str) {
        if text.contains('\0') {
            self.nul.set(true);
        }
    }
}

/// Reads one value; `levels` is how many more containers may be opened.
#[derive(Clone, Copy)]
struct ValueSeed<'a> {
    levels: usize,
    found: &'a Found,
}

impl ValueSeed<'_> {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        match self.levels.checked_sub(1) {
            Some(levels) => Ok(Self { levels, ..self }),
            None => {
                self.found.too_deep.set(true);
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

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        self.found.look_at(value);
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut map = Map::new();
        while let Some(Key(key)) = access.next_key()? {
            if let Cow::Owned(key) = &key {
                self.found.look_at(key);
            }
            match map.entry(key) {
                Entry::Vacant(place) => place.insert(access.next_value_seed(inner)?),
                Entry::Occupied(taken) => return Err(repeated(taken.key())),
            };
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

/// A key, borrowed from the text where it holds no escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads a top-level field's value to where it belongs, which spares moving it there: a text as it stands
/// in the record, null as absent, anything else as a [`ValueSeed`].
struct FieldSeed<'a, 'de> {
    value: ValueSeed<'a>,
    field: &'a mut Option<Field<'de>>,
}

impl<'de> FieldSeed<'_, 'de> {
    fn set(self, field: Field<'de>) {
        *self.field = Some(field);
    }
}

impl<'de> DeserializeSeed<'de> for FieldSeed<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FieldSeed<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.expecting(f)
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<(), E> {
        self.set(Field::Text(Cow::Borrowed(value)));
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.set(Field::Text(Cow::Owned(value.to_owned())));
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        let value = self.value.visit_bool(value)?;
        self.set(Field::Other(value));
        Ok(())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        let value = self.value.visit_i64(value)?;
        self.set(Field::Other(value));
        Ok(())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        let value = self.value.visit_u64(value)?;
        self.set(Field::Other(value));
        Ok(())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        let value = self.value.visit_f64(value)?;
        self.set(Field::Other(value));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        let value = self.value.visit_seq(seq)?;
        self.set(Field::Other(value));
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<(), A::Error> {
        let value = self.value.visit_map(access)?;
        self.set(Field::Other(value));
        Ok(())
    }
}

/// Reads the top-level object into a [`RawEnvelope`].
pub(crate) struct EnvelopeSeed<'a, 'de> {
    pub(crate) max_nesting: usize,
    pub(crate) raw: &'a mut RawEnvelope<'de>,
    pub(crate) seen: &'a mut Seen,
}

impl<'de> DeserializeSeed<'de> for EnvelopeSeed<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EnvelopeSeed<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let levels = self.max_nesting;
        let mut known = [false; KNOWN_FIELDS];
        let mut others = BTreeSet::new();
        while let Some(Key(key)) = access.next_key()? {
            let found = &Found::default();
            let mut ignored = None;
            let (index, field) = match slot(self.raw, &key) {
                Some((index, field)) => (Some(index), field),
                None => (None, &mut ignored),
            };
            let is_new = match index {
                Some(index) => !std::mem::replace(&mut known[index], true),
                None => others.insert(key.clone()),
            };
            if !is_new {
                return Err(repeated(&key));
            }
            let value = ValueSeed { levels, found };
            let read = access.next_value_seed(FieldSeed { value, field });
            read.inspect_err(|_| {
                if found.too_deep.get() {
                    self.seen.too_deep_in = Some(TooDeep {
                        field: key.into_owned(),
                        is_known: index.is_some(),
                    });
                }
            })?;
            match index {
                Some(PAYLOAD) => self.raw.payload_holds_nul = found.nul.get(),
                Some(_) => {}
                None => self.seen.unknown_fields += 1,
            }
        }
        Ok(())
    }
}

const KNOWN_FIELDS: usize = 14;
const PAYLOAD: usize = 13;

fn slot<'r, 'de>(
    raw: &'r mut RawEnvelope<'de>,
    key: &str,
) -> Option<(usize, &'r mut Option<Field<'de>>)> {
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
        "payload" => (PAYLOAD, &mut raw.payload),
        _ => return None,
    })
}
