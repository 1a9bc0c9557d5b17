//! The configuration as a list of keys for people: `runlog config show`.

use figment::value::{Dict, Value};
use serde::Serialize;

use super::load::LoadedConfig;
use super::source::Source;

/// One key, its value as it may be shown, and where the value came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigEntry {
    /// The dotted key.
    pub key: String,
    /// The value: text as it is, lists in TOML's form, secrets masked; empty where nothing is set.
    pub value: String,
    /// What set it.
    pub source: Source,
}

impl LoadedConfig {
    /// Every key, in alphabetical order, secrets masked. Each property of `kafka.properties`
    /// has an entry of its own.
    pub fn entries(&self) -> Vec<ConfigEntry> {
        // The sections' own Serialize masks: nothing that is read here can hold a secret.
        let shown = Value::serialize(&self.config)
            .ok()
            .and_then(Value::into_dict);
        let mut values = Vec::new();
        flatten("", shown.unwrap_or_default(), &mut values);
        let entry = |(key, value): (String, String)| {
            let source = self.source(&key);
            ConfigEntry { key, value, source }
        };
        values.into_iter().map(entry).collect()
    }
}

fn flatten(prefix: &str, table: Dict, values: &mut Vec<(String, String)>) {
    for (name, value) in table {
        let key = if prefix.is_empty() {
            name
        } else {
            format!("{prefix}.{name}")
        };
        match value {
            Value::Dict(_, inner) if !inner.is_empty() => flatten(&key, inner, values),
            Value::String(_, text) => values.push((key, text)),
            Value::Empty(..) => values.push((key, String::new())),
            other => values.push((key, in_toml(&other))),
        }
    }
}

/// A value as it would stand on the right side of a TOML line.
fn in_toml(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Array(_, items) => {
            format!(
                "[{}]",
                items.iter().map(in_toml).collect::<Vec<_>>().join(", ")
            )
        }
        Value::Dict(_, table) if table.is_empty() => "{}".to_owned(),
        Value::Dict(_, table) => {
            let pairs = table
                .iter()
                .map(|(name, value)| format!("{name} = {}", in_toml(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        }
        Value::Bool(_, value) => value.to_string(),
        Value::Num(_, number) => number
            .to_i128()
            .map(|n| n.to_string())
            .or_else(|| number.to_u128().map(|n| n.to_string()))
            .or_else(|| number.to_f64().map(|n| n.to_string()))
            .unwrap_or_default(),
        Value::Char(_, c) => format!("\"{c}\""),
        Value::Empty(..) => String::new(),
    }
}
