//! Reaching PostgreSQL: connected and checked before a command asks anything. Called by the
//! commands that read or migrate.

use std::time::Duration;

use anyhow::anyhow;
use event_log::{FaultClass, classify, schema};
use service::config::DatabaseConfig;
use service::database::{pool, wait_reachable};
use service::exit::Unreachable;
use sqlx::{ConnectOptions as _, PgPool};

/// What `pg_stat_activity` shows.
const APPLICATION_NAME: &str = "runlog";

/// A pool of a database that answers.
///
/// # Errors
/// As [`wait_reachable`]: refused at once, unreachable after `within`.
pub(crate) async fn reach(config: &DatabaseConfig, within: Duration) -> anyhow::Result<PgPool> {
    let pool = pool(config, APPLICATION_NAME)?;
    wait_reachable(&pool, config, within).await?;
    Ok(pool)
}

/// A pool of a database that answers and has this build's schema.
///
/// # Errors
/// As [`reach`], or that migrations are missing.
pub(crate) async fn connect(config: &DatabaseConfig) -> anyhow::Result<PgPool> {
    let pool = reach(config, config.connect_timeout).await?;
    schema::check(&pool).await?;
    Ok(pool)
}

/// As [`reach`], for commands whose statements may take long: they are given a day, and the driver does not
/// warn of slow ones with their whole text, which in a migration is pages long. At least two connections.
///
/// # Errors
/// As [`reach`].
pub(crate) async fn reach_patiently(config: &DatabaseConfig) -> anyhow::Result<PgPool> {
    let config = DatabaseConfig {
        statement_timeout: Duration::from_secs(24 * 60 * 60),
        max_connections: config.max_connections.max(2),
        ..config.clone()
    };
    let pool = pool(&config, APPLICATION_NAME)?;
    let options = pool.connect_options().as_ref().clone();
    pool.set_connect_options(options.disable_statement_logging());
    wait_reachable(&pool, &config, config.connect_timeout).await?;
    Ok(pool)
}

/// As [`reach_patiently`], of a database that has this build's schema.
///
/// # Errors
/// As [`connect`].
pub(crate) async fn connect_patiently(config: &DatabaseConfig) -> anyhow::Result<PgPool> {
    let pool = reach_patiently(config).await?;
    schema::check(&pool).await?;
    Ok(pool)
}

/// An error for a query that failed: what it was for, and exit code 3 where the database went away.
pub(crate) fn failed(error: sqlx::Error, what: &str) -> anyhow::Error {
    let message = format!("cannot {what}");
    if error.as_database_error().is_none() && classify(&error) == FaultClass::Environment {
        return Unreachable {
            message: format!("{message}: the connection to PostgreSQL was lost (database.url)"),
            cause: Some(error.into()),
        }
        .into();
    }
    anyhow!(error).context(message)
}
