//! What every command gets: the loaded configuration and the way to write results.

use service::config::{Config, ConfigArgs, LoadedConfig, LogFormat, Source};
use service::telemetry;

use crate::output::{Format, Output};

/// The surroundings of one command.
pub(crate) struct App {
    /// The configuration and where its values came from.
    pub(crate) loaded: LoadedConfig,
    /// How results are written.
    pub(crate) output: Output,
}

impl App {
    /// Loads the configuration and starts logging.
    pub(crate) fn load(args: &ConfigArgs, format: Format) -> anyhow::Result<Self> {
        let mut loaded = Config::load(args)?;
        // Notes are this command's own; log lines of libraries are for those who ask for them.
        if loaded.source("telemetry.log_level") == Source::Default {
            loaded.config.telemetry.log_level = "warn,rdkafka=off,librdkafka=off".to_owned();
        }
        if loaded.config.telemetry.log_format == LogFormat::Auto {
            loaded.config.telemetry.log_format = LogFormat::Human;
        }
        telemetry::init(&loaded.config.telemetry)?;
        Ok(Self {
            loaded,
            output: Output::new(format),
        })
    }

    /// The configured values.
    pub(crate) fn config(&self) -> &Config {
        &self.loaded.config
    }
}
