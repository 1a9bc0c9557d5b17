//! Moves the views to the new version, and removes an old one: each in one transaction that waits for
//! nobody for long.
//!
//! Both need locks that no reader may hold, and readers take them in an order of their own: a query that
//! joins views, the verification that runlog-projectors does all the time. So both give way and try again.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use service::backoff::Backoff;
use sqlx::PgPool;

use super::Versions;
use crate::database::failed;
use crate::output::note;

/// Readers that come while a transaction waits for its locks wait behind it: not longer than this.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '200ms'";
/// How often it is said what is waited for.
const REMIND: Duration = Duration::from_secs(10);

/// Why it could not be done now.
enum Obstacle {
    /// The new version is behind the live one: readers would see a step back.
    Behind,
    /// Somebody holds a lock: a long query, or a batch.
    Locked,
}

/// Moves the views; tries until it is done.
///
/// # Errors
/// The database's.
pub(super) async fn run(pool: &PgPool, versions: &Versions) -> anyhow::Result<()> {
    let publish = "SELECT read_model.publish($1, $2)";
    until_done(pool, publish, &versions.projection, versions.new)
        .await
        .map_err(|error| failed(error, "move the views to the new version"))
}

/// Removes a version that is not live; tries until it is done.
///
/// # Errors
/// The database's, or that there is no such version.
pub(super) async fn remove(pool: &PgPool, projection: &str, version: i32) -> anyhow::Result<()> {
    let drop = "SELECT read_model.drop_version($1, $2)";
    until_done(pool, drop, projection, version)
        .await
        .context("nothing was removed")
}

async fn until_done(
    pool: &PgPool,
    statement: &'static str,
    projection: &str,
    version: i32,
) -> Result<(), sqlx::Error> {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
    let mut next_reminder = Instant::now() + REMIND;
    while let Some(obstacle) = attempt(pool, statement, projection, version).await? {
        if Instant::now() >= next_reminder {
            note(match obstacle {
                Obstacle::Behind => {
                    "The new version is still behind the live one; waiting for it.".to_owned()
                }
                Obstacle::Locked => format!(
                    "Waiting for transactions that have read the views or their tables: see pg_stat_activity{}.",
                    oldest(pool).await
                ),
            });
            next_reminder = Instant::now() + REMIND;
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
    Ok(())
}

/// `None` = done.
async fn attempt(
    pool: &PgPool,
    statement: &'static str,
    projection: &str,
    version: i32,
) -> Result<Option<Obstacle>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    sqlx::query(LOCK_TIMEOUT).execute(&mut *transaction).await?;
    let done = sqlx::query(statement)
        .bind(projection)
        .bind(version)
        .execute(&mut *transaction)
        .await;
    let Err(error) = done else {
        transaction.commit().await?;
        return Ok(None);
    };
    match event_log::fault::sqlstate(&error).as_deref() {
        // lock_not_available, deadlock_detected
        Some("55P03" | "40P01") => Ok(Some(Obstacle::Locked)),
        // object_not_in_prerequisite_state
        Some("55000") => Ok(Some(Obstacle::Behind)),
        _ => Err(error),
    }
}

/// The oldest transaction of others, for people.
async fn oldest(pool: &PgPool) -> String {
    let oldest: Result<Option<(i32, String)>, sqlx::Error> = sqlx::query_as(
        "SELECT pid, coalesce(application_name, '') FROM pg_stat_activity
         WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL
         ORDER BY xact_start LIMIT 1",
    )
    .fetch_optional(pool)
    .await;
    match oldest {
        Ok(Some((pid, name))) => format!(" (the oldest is pid {pid}, {name:?})"),
        _ => String::new(),
    }
}
