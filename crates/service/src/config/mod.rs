//! The configuration of every Runlog process: one struct per concern, one loader.
//!
//! Values come from four layers, each over the one before: the defaults written here, one
//! TOML file (`--config`, else `runlog.toml` where present), environment variables
//! `RUNLOG_SECTION__KEY`, and `--set section.key=value` flags. All three processes read the
//! same file, so every section is known to each of them.
//!
//! Called by the mains and by `runlog config show`; calls figment for merging and typing.

mod database;
mod error;
mod ingest;
mod kafka;
mod kafka_security;
mod limits;
mod load;
mod projectors;
mod quantity;
mod schema;
mod secret;
mod show;
mod source;
mod telemetry;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use database::DatabaseConfig;
pub use error::ConfigError;
pub use ingest::{BatchConfig, IngestConfig, TopicConfig};
pub use kafka::KafkaConfig;
pub use kafka_security::{KafkaProtocol, KafkaSecurityConfig, SaslMechanism};
pub use limits::LimitsConfig;
pub use load::LoadedConfig;
pub use projectors::ProjectorsConfig;
pub use secret::Secret;
pub(crate) use secret::{MASK, is_secret_name, read_secret};
pub use show::ConfigEntry;
pub use source::Source;
pub use telemetry::{LogFormat, TelemetryConfig};

/// Everything that can be configured. Built by [`Config::load`]; [`Config::default`] holds the
/// documented defaults and is what a test starts from.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// PostgreSQL: where it is and how long to wait for it.
    pub database: DatabaseConfig,
    /// Kafka: where it is and what librdkafka is told.
    pub kafka: KafkaConfig,
    /// `runlog-ingest`: which topics, how they are batched and written.
    pub ingest: IngestConfig,
    /// `runlog-projectors`: which projections, how they read.
    pub projectors: ProjectorsConfig,
    /// Logs and the HTTP port of health and metrics.
    pub telemetry: TelemetryConfig,
    /// Bounds on what is accepted.
    pub limits: LimitsConfig,
}

impl Config {
    /// Reads all layers, checks every value and reads the files that hold secrets.
    ///
    /// # Errors
    /// The first thing that is wrong, with the key, where it was set and what to do.
    pub fn load(args: &ConfigArgs) -> Result<LoadedConfig, ConfigError> {
        load::load(args, std::env::vars_os(), load::DEFAULT_FILE.as_ref())
    }
}

/// The flags that choose the configuration; `#[command(flatten)]` them into a command line.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigArgs {
    /// Configuration file (TOML). Without it, runlog.toml is read where present
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,

    /// Set one configuration key, over file and environment: --set ingest.writers=8
    #[arg(long = "set", value_name = "KEY=VALUE", global = true)]
    pub set: Vec<String>,
}
