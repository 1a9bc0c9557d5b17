//! The migrations, embedded: applied by `runlog migrate`, checked by every process at its start.

use std::time::Duration;

use sqlx::PgPool;
use sqlx::migrate::{MigrateError, Migrator};
use tokio::time::{Instant, sleep};

use crate::fault::{FaultClass, classify, sqlstate};

/// Between two tries to ask.
const PAUSE: Duration = Duration::from_millis(200);

static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");

/// Why a database cannot be used by this build.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Migrations of this build are not applied.
    #[error(
        "the database schema is at version {found}, and this build needs {wanted}: run `runlog migrate`"
    )]
    Behind {
        /// The newest applied version; 0 = none.
        found: i64,
        /// The newest version of this build.
        wanted: i64,
    },
    /// The database could not be asked.
    #[error("cannot read the schema version")]
    Database(#[from] sqlx::Error),
}

impl SchemaError {
    /// Whether the database could not be asked, and may be asked again.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Database(error) if classify(error) == FaultClass::Environment)
    }
}

/// One applied migration.
#[derive(Debug)]
pub struct AppliedMigration {
    /// Its number.
    pub version: i64,
    /// What its file name says.
    pub description: String,
}

/// Applies what is missing, one process at a time (an advisory lock is held), and returns it.
///
/// # Errors
/// Where the database cannot be reached, or an applied migration differs from this build's.
pub async fn migrate(pool: &PgPool) -> Result<Vec<AppliedMigration>, MigrateError> {
    let before = applied_version(pool).await?;
    MIGRATOR.run(pool).await?;
    let new = MIGRATOR.iter().filter(|m| m.version > before);
    Ok(new
        .map(|m| AppliedMigration {
            version: m.version,
            description: m.description.to_string(),
        })
        .collect())
}

/// Checks that every migration of this build is applied. A database that is further on is accepted:
/// migrations only add, so that a new schema can be rolled out before the processes.
///
/// # Errors
/// [`SchemaError::Behind`] names both versions and the way out.
pub async fn check(pool: &PgPool) -> Result<(), SchemaError> {
    let found = applied_version(pool).await?;
    let wanted = MIGRATOR.iter().map(|m| m.version).max().unwrap_or(0);
    if found < wanted {
        return Err(SchemaError::Behind { found, wanted });
    }
    Ok(())
}

/// The same, and waits for as long as `within` while the database cannot be asked: it may have answered
/// a moment ago and be starting again now.
///
/// # Errors
/// As [`check`]; [`SchemaError::Behind`] at once.
pub async fn check_within(pool: &PgPool, within: Duration) -> Result<(), SchemaError> {
    let deadline = Instant::now() + within;
    loop {
        match check(pool).await {
            Err(error) if error.may_pass() && Instant::now() < deadline => pause(&error).await,
            answer => return answer,
        }
    }
}

/// What happens between two tries to ask a database that cannot be asked.
pub(crate) async fn pause(error: &(dyn std::error::Error + Send + Sync)) {
    tracing::info!(%error, "waiting until the database can be asked");
    sleep(PAUSE).await;
}

async fn applied_version(pool: &PgPool) -> Result<i64, sqlx::Error> {
    let version =
        sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success")
            .fetch_one(pool)
            .await;
    match version {
        // No migration ever ran here: the table is made by the first one.
        Err(error) if sqlstate(&error).as_deref() == Some("42P01") => Ok(0),
        other => other,
    }
}
