//! Section `database`: where PostgreSQL is, and the time that is given to it.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::{ConfigError, Problem};
use super::quantity::duration;
use super::secret::Secret;
use super::source::Source;

/// How a process reaches PostgreSQL and how long it waits there.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseConfig {
    /// Connection URL, `postgres://user:password@host:port/database`. No default; the content
    /// of `url_file` stands here after loading. Ask for it with [`DatabaseConfig::require_url`].
    pub url: Option<Secret>,
    /// A file that holds the URL, in the place of `url`; blanks around it are cut off.
    pub url_file: Option<PathBuf>,
    /// Connections of one process at most. 1 to 1000, default 10.
    pub max_connections: u32,
    /// Time to wait for a connection, be it new or one of the pool's. 1 ms to 10 min, default 5s.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// PostgreSQL's `statement_timeout` of every connection. 1 ms to 24 h, default 30s.
    #[serde(with = "duration")]
    pub statement_timeout: Duration,
    /// PostgreSQL's `lock_timeout` of every connection. 1 ms to 24 h, default 10s.
    #[serde(with = "duration")]
    pub lock_timeout: Duration,
    /// PostgreSQL's `idle_in_transaction_session_timeout` of every connection: how long a process
    /// that hangs can hold its locks. 1 ms to 24 h, default 30s.
    #[serde(with = "duration")]
    pub idle_in_transaction_timeout: Duration,
    /// Lets ingest and projectors start with a login that may do more than they should, such as a superuser. For
    /// development only. Default false.
    pub allow_powerful_login: bool,
    /// Where `url` came from, for messages. Not a key: the loader fills it in.
    #[serde(skip)]
    pub url_source: Source,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        DatabaseConfig {
            url: None,
            url_file: None,
            max_connections: 10,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(10),
            idle_in_transaction_timeout: Duration::from_secs(30),
            allow_powerful_login: false,
            url_source: Source::Default,
        }
    }
}

impl DatabaseConfig {
    /// The URL.
    ///
    /// # Errors
    /// [`ConfigError::Missing`], which says how to set it.
    pub fn require_url(&self) -> Result<&Secret, ConfigError> {
        self.url.as_ref().ok_or(ConfigError::Missing {
            key: "database.url",
            hint: "set database.url in the configuration file, or the environment variable \
                   RUNLOG_DATABASE__URL, to postgres://user:password@host:port/database, or name \
                   a file that holds it with database.url_file",
        })
    }

    pub(super) fn check(&self) -> Result<(), Problem> {
        let day = Duration::from_secs(24 * 60 * 60);
        let least = Duration::from_millis(1);
        Problem::unless_within(
            "database.max_connections",
            self.max_connections,
            1..=1000,
            u32::to_string,
        )?;
        Problem::unless_lasting(
            "database.connect_timeout",
            self.connect_timeout,
            least..=Duration::from_secs(600),
        )?;
        for (key, value) in [
            ("database.statement_timeout", self.statement_timeout),
            ("database.lock_timeout", self.lock_timeout),
            (
                "database.idle_in_transaction_timeout",
                self.idle_in_transaction_timeout,
            ),
        ] {
            Problem::unless_lasting(key, value, least..=day)?;
        }
        Ok(())
    }
}
