//! Section `telemetry`: what a process says about itself, in logs and over HTTP.

use std::net::{SocketAddr, ToSocketAddrs};

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use super::error::{ConfigError, Problem};
use super::source::Source;

/// Logs, and the address of health and metrics.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// Form of the log lines. Default: `human` on a terminal, else `json`.
    pub log_format: LogFormat,
    /// What is logged: a level (off, error, warn, info, debug, trace), or levels by target,
    /// separated by commas (`info,sqlx=warn`). Default "info".
    pub log_level: String,
    /// `host:port` of /healthz, /readyz and /metrics; port 0 takes any free one. Default: the
    /// process's own ([`TelemetryConfig::listen_address`]).
    pub listen: Option<String>,
    /// Where `listen` came from, for messages. Not a key: the loader fills it in.
    #[serde(skip)]
    pub listen_source: Source,
}

/// Form of the log lines on stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `Human` where stderr is a terminal, else `Json`.
    #[default]
    Auto,
    /// Lines for people, in colour on a terminal unless NO_COLOR is set.
    Human,
    /// One JSON object per line.
    Json,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        TelemetryConfig {
            log_format: LogFormat::Auto,
            log_level: "info".to_owned(),
            listen: None,
            listen_source: Source::Default,
        }
    }
}

impl TelemetryConfig {
    /// The address to serve health and metrics on: `listen`, its host name looked up, or the
    /// process's `default` where `listen` is not set. The look-up blocks: call it at start.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] where the host name is not known.
    pub fn listen_address(&self, default: SocketAddr) -> Result<SocketAddr, ConfigError> {
        let Some(listen) = &self.listen else {
            return Ok(default);
        };
        let invalid = |detail: String| ConfigError::Invalid {
            key: "telemetry.listen".to_owned(),
            origin: self.listen_source.clone(),
            detail,
        };
        listen
            .to_socket_addrs()
            .map_err(|error| invalid(format!("is {listen:?}, which cannot be looked up: {error}")))?
            .next()
            .ok_or_else(|| invalid(format!("is {listen:?}, a name without an address")))
    }

    /// The filter that `log_level` means.
    pub(crate) fn filter(&self) -> Result<EnvFilter, String> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        for part in self.log_level.split(',').map(str::trim) {
            // EnvFilter takes a bare unknown word for a target at level trace, so "debgu" would
            // silence everything else without a word.
            let level_alone = !part.contains(['=', '[']);
            if level_alone && !LEVELS.contains(&part.to_ascii_lowercase().as_str()) {
                return Err(format!(
                    "holds {part:?}; each part must be a level ({}) or target=level",
                    LEVELS.join(", ")
                ));
            }
        }
        EnvFilter::builder()
            .parse(&self.log_level)
            .map_err(|error| format!("is {:?}, which cannot be read: {error}", self.log_level))
    }

    pub(super) fn check(&self) -> Result<(), Problem> {
        if let Err(detail) = self.filter() {
            return Problem::err("telemetry.log_level", detail);
        }
        if let Some(listen) = &self.listen {
            let port = listen
                .rsplit_once(':')
                .map(|(host, port)| (host, port.parse::<u16>()));
            if !matches!(port, Some((host, Ok(_))) if !host.is_empty()) {
                return Problem::err(
                    "telemetry.listen",
                    format!("is {listen:?}; it must be host:port, such as 127.0.0.1:9600"),
                );
            }
        }
        Ok(())
    }
}
