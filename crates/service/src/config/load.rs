//! Loading: layers in, one checked [`Config`] out, and the memory of which layer set what.
//!
//! figment merges the layers and types the result. Keys are checked here, layer by layer and
//! before the merge, because only then can a message name the exact variable or flag.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Value};
use figment::{Figment, Profile, Provider};

use super::error::{ConfigError, Problem};
use super::kafka_security::FILE_KEYS;
use super::schema::Schema;
use super::secret::read_secret;
use super::source::Source;
use super::{Config, ConfigArgs};

/// The file that is read where `--config` names none.
pub(super) const DEFAULT_FILE: &str = "runlog.toml";

const ENV_PREFIX: &str = "RUNLOG_";

/// A configuration and where each of its values came from.
pub struct LoadedConfig {
    /// The values, all checked.
    pub config: Config,
    layers: Vec<Layer>,
    database_url_file: Option<PathBuf>,
}

impl fmt::Debug for LoadedConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The layers hold secrets as they were written; the config's own Debug masks them.
        f.debug_struct("LoadedConfig")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl LoadedConfig {
    /// Where the value of `key` (dotted, such as `ingest.writers`) came from.
    pub fn source(&self, key: &str) -> Source {
        match &self.database_url_file {
            Some(path) if key == "database.url" => Source::SecretFile(path.clone()),
            _ => set_by(&self.layers, &split_key(key)),
        }
    }
}

/// The keys that one file, one variable or one flag set.
pub(super) struct Layer {
    pub(super) origin: Source,
    pub(super) keys: Dict,
}

impl Layer {
    /// Whether this layer set the key at `path`, or a list that holds it.
    fn sets<S: AsRef<str>>(&self, path: &[S]) -> bool {
        let mut keys = &self.keys;
        for segment in path {
            match keys.get(segment.as_ref()) {
                Some(Value::Dict(_, inner)) => keys = inner,
                Some(_) => return true,
                None => return false,
            }
        }
        true
    }
}

/// The last layer that set `path`.
fn set_by<S: AsRef<str>>(layers: &[Layer], path: &[S]) -> Source {
    let layer = layers.iter().rev().find(|layer| layer.sets(path));
    layer.map_or(Source::Default, |layer| layer.origin.clone())
}

/// The segments of a dotted key. What follows `kafka.properties.` is one name, dots and all.
pub(super) fn split_key(key: &str) -> Vec<String> {
    match key.strip_prefix("kafka.properties.") {
        Some(name) => vec!["kafka".to_owned(), "properties".to_owned(), name.to_owned()],
        None => key.split('.').map(str::to_owned).collect(),
    }
}

/// The whole of loading, with the process's surroundings passed in.
pub(super) fn load(
    args: &ConfigArgs,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    default_file: &Path,
) -> Result<LoadedConfig, ConfigError> {
    let schema = Schema::of(&Config::default());
    let mut layers = Vec::new();
    layers.extend(file_layer(args.config.as_deref(), default_file)?);
    layers.extend(environment_layers(environment, &schema)?);
    for flag in &args.set {
        layers.push(flag_layer(flag, &schema)?);
    }
    for layer in &mut layers {
        join_property_names(&mut layer.keys);
        schema.check_keys(layer)?;
    }

    let mut figment = Figment::from(Serialized::defaults(Config::default()));
    for layer in &layers {
        figment = figment.merge(Serialized::defaults(&layer.keys));
    }
    let mut config: Config = figment
        .extract()
        .map_err(|error| schema.explain(error, |path| set_by(&layers, path)))?;

    let database_url_file = read_database_url(&mut config, &layers)?;
    let mut loaded = LoadedConfig {
        config,
        layers,
        database_url_file,
    };
    check_values(&loaded)?;
    loaded.config.database.url_source = loaded.source("database.url");
    loaded.config.database.password_file_source = loaded.source("database.password_file");
    loaded.config.kafka.security.sources = FILE_KEYS
        .into_iter()
        .map(|key| (key, loaded.source(key)))
        .collect();
    loaded.config.kafka.bootstrap_servers_source = loaded.source("kafka.bootstrap_servers");
    loaded.config.telemetry.listen_source = loaded.source("telemetry.listen");
    Ok(loaded)
}

fn file_layer(named: Option<&Path>, default: &Path) -> Result<Option<Layer>, ConfigError> {
    let path = named.unwrap_or(default);
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(cause) => {
            return Err(ConfigError::Unreadable {
                path: path.to_owned(),
                cause,
            });
        }
    };
    let origin = Source::File(path.to_owned());
    match parse_toml(&text) {
        Ok(keys) => Ok(Some(Layer { origin, keys })),
        Err(detail) => Err(ConfigError::Syntax { origin, detail }),
    }
}

/// Variables that carry the prefix and a double underscore count; others, such as those that
/// Kubernetes makes for a service called `runlog-ingest`, are not ours. An empty one is as good
/// as none: it is what compose files and charts give where nothing was chosen.
fn environment_layers(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    schema: &Schema,
) -> Result<Vec<Layer>, ConfigError> {
    let mut layers = Vec::new();
    for (name, value) in environment {
        let Some(name) = name.to_str() else { continue };
        let Some(key) = name
            .strip_prefix(ENV_PREFIX)
            .filter(|key| key.contains("__"))
        else {
            continue;
        };
        let origin = Source::Environment(name.to_owned());
        let Some(value) = value.to_str() else {
            let detail = "its value is not UTF-8".to_owned();
            return Err(ConfigError::Malformed { origin, detail });
        };
        if value.is_empty() {
            continue;
        }
        let key = key.to_ascii_lowercase();
        let path = match key.strip_prefix("kafka__properties__") {
            Some(name) => split_key(&format!("kafka.properties.{}", name.replace('_', "."))),
            None => key.split("__").map(str::to_owned).collect(),
        };
        layers.push(Layer {
            origin,
            keys: nest(&path, schema.read(&path, value)),
        });
    }
    // The environment has no order of its own; messages and merges should not depend on it.
    layers.sort_by_key(|layer| layer.origin.to_string());
    Ok(layers)
}

fn flag_layer(flag: &str, schema: &Schema) -> Result<Layer, ConfigError> {
    let Some((key, value)) = flag.split_once('=') else {
        return Err(ConfigError::Malformed {
            origin: Source::Flag(flag.to_owned()),
            detail: "it must be KEY=VALUE, such as --set ingest.writers=8".to_owned(),
        });
    };
    let key = key.trim();
    let path = split_key(key);
    let origin = Source::Flag(key.to_owned());
    Ok(Layer {
        origin,
        keys: nest(&path, schema.read(&path, value.trim())),
    })
}

/// `a.b.c = value` as nested tables.
fn nest(path: &[String], value: Value) -> Dict {
    let mut value = value;
    for segment in path.iter().skip(1).rev() {
        value = Value::from(Dict::from([(segment.clone(), value)]));
    }
    path.first()
        .map(|first| Dict::from([(first.clone(), value)]))
        .unwrap_or_default()
}

/// A TOML text as figment values; the error keeps line, column and reason, and drops the copy
/// of the offending line, which may hold a password.
pub(super) fn parse_toml(text: &str) -> Result<Dict, String> {
    let mut data = Toml::string(text).data().map_err(|error| {
        let text = error.kind.to_string();
        let lines = text.lines().map(str::trim).filter(|line| {
            let quoted = line
                .trim_start_matches(|c: char| c.is_ascii_digit())
                .trim_start();
            !line.is_empty() && !quoted.starts_with('|')
        });
        lines.collect::<Vec<_>>().join(": ")
    })?;
    Ok(data.remove(&Profile::Default).unwrap_or_default())
}

/// Lets a property be written `socket.timeout.ms = 6000` under `[kafka.properties]`, which TOML
/// takes for tables in tables, as well as with its name in quotes.
fn join_property_names(keys: &mut Dict) {
    let Some(Value::Dict(_, kafka)) = keys.get_mut("kafka") else {
        return;
    };
    let Some(Value::Dict(_, properties)) = kafka.get_mut("properties") else {
        return;
    };
    let mut joined = Dict::new();
    join_into(&mut joined, "", std::mem::take(properties));
    *properties = joined;
}

fn join_into(joined: &mut Dict, prefix: &str, table: Dict) {
    for (name, value) in table {
        let name = if prefix.is_empty() {
            name
        } else {
            format!("{prefix}.{name}")
        };
        match value {
            Value::Dict(_, inner) => join_into(joined, &name, inner),
            value => drop(joined.insert(name, value)),
        }
    }
}

/// Puts the content of `database.url_file` in the place of `database.url`, and returns the
/// path where that happened.
fn read_database_url(
    config: &mut Config,
    layers: &[Layer],
) -> Result<Option<PathBuf>, ConfigError> {
    let Some(path) = config.database.url_file.clone() else {
        return Ok(None);
    };
    let origin = set_by(layers, &["database", "url"]);
    let file_origin = set_by(layers, &["database", "url_file"]);
    if config.database.url.is_some() {
        return Err(ConfigError::Ambiguous {
            key: "database.url",
            origin,
            file_origin,
        });
    }
    config.database.url = Some(read_secret("database.url_file", &file_origin, &path)?);
    Ok(Some(path))
}

/// Ranges and rules of every section.
fn check_values(loaded: &LoadedConfig) -> Result<(), ConfigError> {
    let config = &loaded.config;
    let checks = || -> Result<(), Problem> {
        config.database.check()?;
        config.kafka.check()?;
        config.ingest.check()?;
        config.projectors.check()?;
        config.telemetry.check()?;
        config.limits.check()
    };
    checks().map_err(|Problem { key, detail }| ConfigError::Invalid {
        origin: loaded.source(&key),
        key: key.into_owned(),
        detail,
    })
}
