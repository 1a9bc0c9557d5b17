//! Moves the views to the new version, and removes an old one: each in one transaction that waits for
//! nobody for long.
//!
//! Both need locks that no reader may hold, and readers take them in an order of their own: a query that
//! joins views, the verification that runlog-projectors does all the time. So both give way and try again.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use runlog_projectors::runner::versions::{Version, hold_still};
use service::backoff::Backoff;
use sqlx::{PgPool, Postgres, Transaction};

use super::{Versions, hold};
use crate::database::failed;
use crate::output::note;

/// Readers that come while a transaction waits for its locks wait behind it: not longer than this.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '200ms'";
/// How often it is said what is waited for.
const REMIND: Duration = Duration::from_secs(10);

/// Moves the views; tries until it is done.
///
/// # Errors
/// The database's.
pub(super) async fn run(pool: &PgPool, versions: &Versions) -> anyhow::Result<()> {
    let mut turns = Turns::new();
    let publish = "SELECT read_model.publish($1, $2)";
    loop {
        let held = hold::at_one_place(pool, versions).await?;
        if attempt(held, publish, &versions.projection, versions.new)
            .await
            .map_err(|error| failed(error, "move the views to the new version"))?
        {
            return Ok(());
        }
        turns.wait(pool).await;
    }
}

/// Removes a version that is not live; tries until it is done.
///
/// # Errors
/// The database's, or that there is no such version.
pub(super) async fn remove(pool: &PgPool, projection: &str, version: i32) -> anyhow::Result<()> {
    let mut turns = Turns::new();
    let drop = "SELECT read_model.drop_version($1, $2)";
    let version_held = Version {
        projection: projection.to_owned(),
        version,
        is_live: false,
    };
    loop {
        let mut transaction = pool.begin_with(hold::BEGIN).await?;
        // The projectors let go of it, where it is still being built.
        hold_still(&mut transaction, &version_held).await?;
        if attempt(transaction, drop, projection, version)
            .await
            .context("nothing was removed")?
        {
            return Ok(());
        }
        turns.wait(pool).await;
    }
}

/// The pauses between the tries.
struct Turns {
    backoff: Backoff,
    next_reminder: Instant,
}

impl Turns {
    fn new() -> Self {
        Self {
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(1)),
            next_reminder: Instant::now() + REMIND,
        }
    }

    async fn wait(&mut self, pool: &PgPool) {
        if Instant::now() >= self.next_reminder {
            note(format!(
                "Waiting for transactions that have read the views or their tables: see pg_stat_activity{}.",
                oldest(pool).await
            ));
            self.next_reminder = Instant::now() + REMIND;
        }
        tokio::time::sleep(self.backoff.next_delay()).await;
    }
}

/// `false` = it could not be done now, and nothing was.
async fn attempt(
    mut transaction: Transaction<'static, Postgres>,
    statement: &'static str,
    projection: &str,
    version: i32,
) -> Result<bool, sqlx::Error> {
    sqlx::query(LOCK_TIMEOUT).execute(&mut *transaction).await?;
    let done = sqlx::query(statement)
        .bind(projection)
        .bind(version)
        .execute(&mut *transaction)
        .await;
    let Err(error) = done else {
        transaction.commit().await?;
        return Ok(true);
    };
    match event_log::fault::sqlstate(&error).as_deref() {
        // lock_not_available, deadlock_detected; object_not_in_prerequisite_state: the new version is
        // behind in a stream that was added just now.
        Some("55P03" | "40P01" | "55000") => Ok(false),
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
