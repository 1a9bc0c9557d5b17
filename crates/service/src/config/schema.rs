//! Which keys exist and of what kind they are, read off the default [`Config`] itself, and the
//! messages that need to know it: unknown keys with their nearest neighbour, wrong types.

use figment::error::Kind;
use figment::value::{Dict, Value};

use super::Config;
use super::error::ConfigError;
use super::load::{Layer, parse_toml};
use super::secret::is_secret_name;
use super::source::Source;

/// The table whose keys are librdkafka's, not ours.
const OPEN_TABLE: [&str; 2] = ["kafka", "properties"];

/// All known keys, as the tree of their default values.
pub(super) struct Schema {
    defaults: Dict,
}

impl Schema {
    pub(super) fn of(config: &Config) -> Self {
        let defaults = Value::serialize(config).ok().and_then(Value::into_dict);
        Schema {
            defaults: defaults.unwrap_or_default(),
        }
    }

    /// The value that a text from a variable or a flag means: for a key that holds text (a
    /// string, a duration, a size, a path) the text as it is, so that a group called 123 needs
    /// no quotes; for others a TOML value. What is no TOML stays text, and typing refuses it.
    pub(super) fn read(&self, path: &[String], text: &str) -> Value {
        match self.default_of(path) {
            None | Some(Value::String(..) | Value::Empty(..)) => Value::from(text),
            Some(_) => parse_toml(&format!("value = {text}"))
                .ok()
                .and_then(|mut parsed| parsed.remove("value"))
                .unwrap_or_else(|| Value::from(text)),
        }
    }

    fn default_of(&self, path: &[String]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter()
            .try_fold(self.defaults.get(first)?, |value, segment| {
                value.as_dict()?.get(segment)
            })
    }

    /// Refuses a key of `layer` that does not exist.
    pub(super) fn check_keys(&self, layer: &Layer) -> Result<(), ConfigError> {
        self.check_table(&layer.origin, &[], &layer.keys, &self.defaults)
    }

    fn check_table(
        &self,
        origin: &Source,
        path: &[&str],
        set: &Dict,
        known: &Dict,
    ) -> Result<(), ConfigError> {
        for (name, value) in set {
            let here = [path, &[name.as_str()]].concat();
            match (known.get(name), value) {
                (None, _) => return Err(self.unknown(origin, &here, value)),
                (Some(_), _) if here == OPEN_TABLE => {}
                (Some(Value::Dict(_, known)), Value::Dict(_, set)) => {
                    self.check_table(origin, &here, set, known)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn unknown(&self, origin: &Source, path: &[&str], value: &Value) -> ConfigError {
        // An unknown section is best named with the key that stands in it.
        let mut key = path.join(".");
        let mut value = value;
        while let Some((name, inner)) = value.as_dict().and_then(Dict::first_key_value) {
            key = format!("{key}.{name}");
            value = inner;
        }
        let mut known = Vec::new();
        list_keys("", &self.defaults, &mut known);
        let nearest = nearest(&key, known.iter().map(String::as_str));
        ConfigError::UnknownKey {
            key,
            origin: origin.clone(),
            nearest,
        }
    }

    /// The message for a value that could not be typed. `origin_of` says which layer set a path.
    pub(super) fn explain(
        &self,
        error: figment::Error,
        origin_of: impl Fn(&[String]) -> Source,
    ) -> ConfigError {
        let origin = origin_of(&error.path);
        let key = error.path.join(".");
        match error.kind {
            Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected) => {
                let expected = in_words(&expected);
                let found = if is_secret_name(&key) || key == "database.url" {
                    "something else".to_owned()
                } else {
                    found.to_string()
                };
                ConfigError::WrongType {
                    key,
                    origin,
                    expected,
                    found,
                }
            }
            Kind::UnknownVariant(found, known) => ConfigError::WrongType {
                key,
                origin,
                expected: format!("one of {}", known.join(", ")),
                found: format!("{found:?}"),
            },
            Kind::UnknownField(name, known) => {
                let nearest = nearest(&name, known.iter().copied());
                // The path may end at the table or at the field, by who noticed it.
                let table = key
                    .strip_suffix(&name)
                    .map_or(key.as_str(), |k| k.trim_end_matches('.'));
                ConfigError::UnknownKey {
                    key: format!("{table}.{name}"),
                    origin,
                    nearest: format!("{table}.{nearest}"),
                }
            }
            Kind::MissingField(name) => ConfigError::Invalid {
                key,
                origin,
                detail: format!("lacks {name:?}"),
            },
            other => ConfigError::Invalid {
                key,
                origin,
                detail: format!("is wrong: {other}"),
            },
        }
    }
}

/// Every key below `table`, tables included, dotted.
fn list_keys(prefix: &str, table: &Dict, keys: &mut Vec<String>) {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        if let Value::Dict(_, inner) = value {
            list_keys(&key, inner, keys);
        }
        keys.push(key);
    }
}

/// The known key that looks most like `key`.
fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> String {
    let likeness = |other: &str| strsim::normalized_damerau_levenshtein(key, other);
    known
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .unwrap_or_default()
        .to_owned()
}

/// What serde expected, for people who do not read Rust.
fn in_words(expected: &str) -> String {
    match expected {
        "u32" => "a whole number from 0 to 4294967295".to_owned(),
        "usize" => "a whole number, 0 or more".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a string" => "text".to_owned(),
        "path string" => "the path of a file".to_owned(),
        "a sequence" => "a list such as [\"a\", \"b\"]".to_owned(),
        "struct TopicConfig" => "a table such as { name = \"run-events\" }".to_owned(),
        other if other.starts_with("struct ") => "a table of keys".to_owned(),
        other => other.to_owned(),
    }
}
