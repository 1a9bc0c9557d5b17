//! Moves the views to the new version, in one transaction that waits for nobody for long.

use std::time::{Duration, Instant};

use service::backoff::Backoff;
use sqlx::{PgConnection, PgPool};

use super::Versions;
use crate::database::failed;
use crate::output::note;

/// Readers that come while the switch waits for its locks wait behind it: not longer than this.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '200ms'";
/// How often it is said what is waited for.
const REMIND: Duration = Duration::from_secs(10);

/// Why the views could not be moved now.
enum Obstacle {
    /// The new version is behind the live one: readers would see a step back.
    Behind,
    /// Somebody holds a lock: a long query, or a batch.
    Locked,
}

/// Tries until it is done.
///
/// # Errors
/// The database's.
pub(super) async fn run(pool: &PgPool, versions: &Versions) -> anyhow::Result<()> {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
    let mut next_reminder = Instant::now() + REMIND;
    loop {
        let obstacle = match attempt(pool, versions).await {
            Ok(None) => return Ok(()),
            Ok(Some(obstacle)) => obstacle,
            Err(error) => return Err(failed(error, "move the views to the new version")),
        };
        if Instant::now() >= next_reminder {
            note(match obstacle {
                Obstacle::Behind => {
                    "The new version is still behind the live one; waiting for it.".to_owned()
                }
                Obstacle::Locked => format!(
                    "Waiting for transactions that have read the views: see pg_stat_activity{}.",
                    oldest(pool).await
                ),
            });
            next_reminder = Instant::now() + REMIND;
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

async fn attempt(pool: &PgPool, versions: &Versions) -> Result<Option<Obstacle>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    match move_views(&mut transaction, versions).await {
        Ok(true) => {
            transaction.commit().await?;
            Ok(None)
        }
        Ok(false) => Ok(Some(Obstacle::Behind)),
        Err(error) if is_locked(&error) => Ok(Some(Obstacle::Locked)),
        Err(error) => Err(error),
    }
}

/// `false` = the new version is behind the live one.
async fn move_views(
    connection: &mut PgConnection,
    versions: &Versions,
) -> Result<bool, sqlx::Error> {
    sqlx::query(LOCK_TIMEOUT).execute(&mut *connection).await?;
    // From here to the commit the live version stands still, so that the new one cannot fall behind it.
    sqlx::query(
        "SELECT FROM read_model.projection_checkpoint
         WHERE projection = $1 AND version = $2 ORDER BY stream_id FOR UPDATE",
    )
    .bind(&versions.projection)
    .bind(versions.live)
    .execute(&mut *connection)
    .await?;
    let is_behind: bool = sqlx::query_scalar(
        "SELECT EXISTS (
           SELECT FROM read_model.projection_checkpoint live
           LEFT JOIN read_model.projection_checkpoint new
             ON new.projection = live.projection AND new.stream_id = live.stream_id AND new.version = $3
           WHERE live.projection = $1 AND live.version = $2
             AND coalesce(new.next_offset, -1) < live.next_offset)",
    )
    .bind(&versions.projection)
    .bind(versions.live)
    .bind(versions.new)
    .fetch_one(&mut *connection)
    .await?;
    if is_behind {
        return Ok(false);
    }
    sqlx::query("SELECT read_model.publish($1, $2)")
        .bind(&versions.projection)
        .bind(versions.new)
        .execute(connection)
        .await?;
    Ok(true)
}

fn is_locked(error: &sqlx::Error) -> bool {
    // lock_not_available; deadlock_detected
    matches!(
        event_log::fault::sqlstate(error).as_deref(),
        Some("55P03" | "40P01")
    )
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
