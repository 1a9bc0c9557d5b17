//! The PostgreSQL pool of a process, with its time limits set on every connection, secrets from files
//! that may change while it runs, and the check at start that the database answers. Called by the mains.

use std::fmt;
use std::io::ErrorKind;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgPool};
use tokio::time::{Instant, sleep, timeout_at};
use url::Url;

use crate::backoff::Backoff;
use crate::config::{ConfigError, DatabaseConfig, Secret, Source};

/// A pooled connection that lay idle for longer than this is tried before it is handed out:
/// long enough to cost nothing under load, short enough to notice a restart while idle.
const TRUSTED_IDLE: Duration = Duration::from_secs(1);

/// Where the database is and who configured that; never its password.
#[derive(Debug, Clone)]
pub struct Target {
    place: String,
    origin: Source,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (database.url, set by {})", self.place, self.origin)
    }
}

impl Target {
    fn new(options: &PgConnectOptions, origin: &Source) -> Self {
        let host = options.get_socket().map_or_else(
            || options.get_host().to_owned(),
            |path| path.display().to_string(),
        );
        // What PostgreSQL itself does without a name: the user's.
        let database = options
            .get_database()
            .unwrap_or_else(|| options.get_username());
        let (port, user) = (options.get_port(), options.get_username());
        Target {
            place: format!("PostgreSQL at {host}:{port}, database {database}, user {user}"),
            origin: origin.clone(),
        }
    }
}

/// Why there is no database to work with.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// `database.url` is missing or no URL of PostgreSQL. The message is all of it:
    /// [`crate::exit`] knows this variant by itself.
    #[error(transparent)]
    Url(ConfigError),
    /// Something answers, and turns us away: password, database name, permissions, TLS.
    #[error("{target} refuses the connection: {advice}")]
    Refused {
        /// Which database.
        target: Target,
        /// Which part of the configuration to look at.
        advice: &'static str,
        /// What it said.
        #[source]
        cause: sqlx::Error,
    },
    /// Nothing answers.
    #[error("cannot reach {target} within {}; check that it runs and that host and port are right",
        humantime::format_duration(*waited))]
    Unreachable {
        /// Which database.
        target: Target,
        /// How long we tried.
        waited: Duration,
        /// The last attempt's error; `None` where it was still under way.
        #[source]
        cause: Option<sqlx::Error>,
    },
}

/// How long a process waits for the database, or for Kafka, when it starts. Once it works, it waits
/// for both without a bound.
pub const START_WAIT: Duration = Duration::from_secs(30);

/// How often the files that hold secrets are read again.
const READ_AGAIN: Duration = Duration::from_secs(2);

/// A pool that connects when it is first used. To be called inside a tokio runtime.
/// `application_name` is what `pg_stat_activity` shows. Where the URL or the password come from a file,
/// connections that are made after a change use what it holds then.
///
/// # Errors
/// [`DatabaseError::Url`].
pub fn pool(config: &DatabaseConfig, application_name: &str) -> Result<PgPool, DatabaseError> {
    let options = connect_options(config, application_name)?;
    let pool = PgPoolOptions::new()
        .max_connections(config.max_connections)
        .acquire_timeout(config.connect_timeout)
        .test_before_acquire(false)
        .before_acquire(|connection, usage| {
            Box::pin(async move {
                if usage.idle_for > TRUSTED_IDLE {
                    connection.ping().await?;
                }
                Ok(true)
            })
        });
    let pool = pool.connect_lazy_with(options);
    if config.has_secret_files() {
        tokio::spawn(follow_secrets(
            pool.clone(),
            config.clone(),
            application_name.to_owned(),
        ));
    }
    Ok(pool)
}

/// Gives the pool what the files hold now, as long as it is open. Read by content: what is mounted into a
/// container changes by the swap of a link.
async fn follow_secrets(pool: PgPool, config: DatabaseConfig, application_name: String) {
    let expose = |(url, password): (Secret, Option<Secret>)| {
        (
            url.expose().to_owned(),
            password.map(|p| p.expose().to_owned()),
        )
    };
    let mut used = config.read_secrets().map(expose).ok();
    let mut is_told = false;
    loop {
        let mut closed = pool.close_event();
        if tokio::time::timeout(READ_AGAIN, &mut closed).await.is_ok() {
            return;
        }
        let found = config.read_secrets().map(expose);
        if found
            .as_ref()
            .is_ok_and(|found| used.as_ref() == Some(found))
        {
            continue;
        }
        let options =
            found.and_then(|found| Ok((connect_options_of(&config, &application_name)?, found)));
        match options {
            Ok((options, found)) => {
                tracing::info!(
                    "the secrets of database.url have changed; new connections use them"
                );
                pool.set_connect_options(options);
                (used, is_told) = (Some(found), false);
            }
            Err(error) if !is_told => {
                tracing::warn!("going on with the secrets of database.url as they were: {error}");
                is_told = true;
            }
            Err(_) => {}
        }
    }
}

/// Waits until the pool's database takes a connection, for `within` at most. Only what may pass
/// by itself is waited for (nothing listens yet, the server is starting, too many connections).
///
/// # Errors
/// [`DatabaseError::Refused`] at once, [`DatabaseError::Unreachable`] after `within`.
pub async fn wait_reachable(
    pool: &PgPool,
    config: &DatabaseConfig,
    within: Duration,
) -> Result<(), DatabaseError> {
    let options = pool.connect_options();
    let target = Target::new(&options, &config.url_source);
    let deadline = Instant::now() + within;
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    let mut cause = None;
    // Not through the pool, which keeps the reason for a failed connection to itself and
    // reports a timeout.
    while let Ok(answer) = timeout_at(deadline, options.connect()).await {
        match answer {
            Ok(connection) => {
                // The connection did its work by opening; an error while closing says nothing.
                let _ = connection.close().await;
                return Ok(());
            }
            Err(error) if !may_pass(&error) => {
                return Err(DatabaseError::Refused {
                    target,
                    advice: advice(&error, config),
                    cause: error,
                });
            }
            Err(error) => {
                tracing::info!(%error, "waiting for {target}");
                cause = Some(error);
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        sleep(backoff.next_delay().min(left)).await;
        if left.is_zero() {
            break;
        }
    }
    Err(DatabaseError::Unreachable {
        target,
        waited: within,
        cause,
    })
}

/// Whether a failed connection may succeed later without anybody changing the configuration.
fn may_pass(error: &sqlx::Error) -> bool {
    match error {
        // A certificate that does not stand the test.
        sqlx::Error::Io(error) if error.kind() == ErrorKind::InvalidData => false,
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut => true,
        // A connection that ends in the middle of its handshake is reported as an answer that makes
        // no sense; a proxy, or a server that is starting, ends it so.
        sqlx::Error::Protocol(_) => true,
        // Connection exceptions, too many connections and other lack of resources, and the
        // server starting up or shutting down.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            code.starts_with("08") || code.starts_with("53") || code.starts_with("57P")
        }),
        _ => false,
    }
}

/// Which part of the configuration a refused connection speaks of.
fn advice(error: &sqlx::Error, config: &DatabaseConfig) -> &'static str {
    let words = error.to_string();
    let says = |text: &str| words.contains(text);
    if says("NotValidForName") || says("not valid for name") {
        return "its certificate is for another host than the one in the URL, which sslmode=verify-full does not \
                accept";
    }
    if says("UnknownIssuer") || says("invalid peer certificate") {
        return "its certificate is not trusted: it must be in force, and signed by an authority of the URL's \
                sslrootcert or of this system";
    }
    if says("does not support TLS") {
        return "it speaks no TLS, which the URL's sslmode asks for";
    }
    if says("no encryption") {
        return "it takes no connection without TLS from here; set sslmode=verify-full in the URL";
    }
    if says("client certificate") || says("CertificateRequired") {
        return "it wants a client certificate that it trusts; set sslcert and sslkey in the URL";
    }
    let code = error.as_database_error().and_then(|error| error.code());
    match (code.as_deref(), &config.password_file) {
        (Some("28P01"), Some(_)) => "check the URL's user, and what database.password_file holds",
        (Some("28P01"), None) => "check the URL's user and password",
        _ => "check the URL's user, password, database and sslmode",
    }
}

fn connect_options(
    config: &DatabaseConfig,
    application_name: &str,
) -> Result<PgConnectOptions, DatabaseError> {
    connect_options_of(config, application_name).map_err(DatabaseError::Url)
}

fn connect_options_of(
    config: &DatabaseConfig,
    application_name: &str,
) -> Result<PgConnectOptions, ConfigError> {
    let (url, password) = config.read_secrets()?;
    let invalid = |detail: String| ConfigError::Invalid {
        key: "database.url".to_owned(),
        origin: config.url_source.clone(),
        detail,
    };
    const FORM: &str = "it must be postgres://user:password@host:port/database";
    let url = url.expose();
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err(invalid(format!("is no URL of PostgreSQL; {FORM}")));
    }
    check_parameters(url).map_err(invalid)?;
    let mut options = PgConnectOptions::from_str(url)
        .map_err(|error| invalid(format!("cannot be read ({error}); {FORM}")))?;
    if let Some(password) = password {
        options = options.password(password.expose());
    }
    let milliseconds = |duration: Duration| duration.as_millis().to_string();
    Ok(options.application_name(application_name).options([
        ("statement_timeout", milliseconds(config.statement_timeout)),
        ("lock_timeout", milliseconds(config.lock_timeout)),
        (
            "idle_in_transaction_session_timeout",
            milliseconds(config.idle_in_transaction_timeout),
        ),
    ]))
}

/// Refuses what the driver would pass over, with its value in a log line: channel_binding or sslcrl that
/// nobody looks at would be worse than none. And files that are not there, which the driver takes for a
/// server that is not there yet.
fn check_parameters(url: &str) -> Result<(), String> {
    const KNOWN: [&str; 18] = [
        "sslmode",
        "ssl-mode",
        "sslrootcert",
        "ssl-root-cert",
        "ssl-ca",
        "sslcert",
        "ssl-cert",
        "sslkey",
        "ssl-key",
        "statement-cache-capacity",
        "host",
        "hostaddr",
        "port",
        "dbname",
        "user",
        "password",
        "application_name",
        "options",
    ];
    // What is no URL at all is the driver's to name.
    let Ok(url) = Url::parse(url) else {
        return Ok(());
    };
    for (name, value) in url.query_pairs() {
        if !KNOWN.contains(&&*name) && !name.starts_with("options[") {
            return Err(format!(
                "has the parameter {name}, which is not supported; remove it"
            ));
        }
        let is_file = name.starts_with("ssl") && !name.ends_with("mode");
        if is_file && value.contains("-----BEGIN") {
            return Err(format!("holds {name} itself; give the path of a file"));
        }
        if is_file && let Err(error) = std::fs::read(&*value) {
            return Err(format!(
                "names the file {value} as {name}, which cannot be read: {error}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
