//! Brings both versions to the same place: the live one is held still, for a moment, until the new one,
//! which never overtakes it, stands where it does.

use std::time::{Duration, Instant};

use anyhow::bail;
use event_log::fault::sqlstate;
use runlog_projectors::runner::versions::hold_still;
use sqlx::{FromRow, PgConnection, PgPool, Postgres, Transaction};

use super::Versions;
use crate::database::failed;
use crate::format::count;
use crate::output::note;

/// How long the live version stands still at most, each time, once its batches in flight have ended.
/// Its readers see it grow old meanwhile.
const HOLD: Duration = Duration::from_secs(2);
/// How long it goes on between two such times, at least.
const GO_ON: Duration = Duration::from_secs(10);
/// How often it is looked whether the new one has come.
const LOOK: Duration = Duration::from_millis(20);
/// So many offsets behind, the new one comes up within the hold.
const CLOSE: i64 = 10_000;
/// How often it is said what is waited for.
const REMIND: Duration = Duration::from_secs(10);
/// How long it is tried.
const PATIENCE: Duration = Duration::from_secs(300);
/// A batch in flight is waited for this long. Should this command's machine vanish, the server lets go.
const BOUNDS: &str =
    "SET LOCAL lock_timeout = '500ms'; SET LOCAL idle_in_transaction_session_timeout = '30s'";
/// Each look is to see what was committed since, whatever the database's default is.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// How the versions stand to each other.
#[derive(Debug, FromRow)]
struct Distance {
    /// Whether one is still live, and the other being built.
    is_current: bool,
    /// Streams in which they stand at different places.
    streams: i64,
    /// How far the new one is behind in all of them.
    offsets: i64,
    /// The stream in which it is farthest behind.
    farthest: Option<String>,
    /// Processes that run the projection.
    workers: i64,
}

/// Both versions stand at the same place until this transaction ends. Tries until that is so.
///
/// # Errors
/// The database's; that one of the versions is not what it was any more; or that the new one does not
/// come up.
pub(super) async fn at_one_place(
    pool: &PgPool,
    versions: &Versions,
) -> anyhow::Result<Transaction<'static, Postgres>> {
    let started = Instant::now();
    let mut next_reminder = started + REMIND;
    loop {
        let began = Instant::now();
        let doing = |error| failed(error, "hold the live version still");
        let mut transaction = pool.begin_with(BEGIN).await.map_err(doing)?;
        sqlx::raw_sql(BOUNDS)
            .execute(&mut *transaction)
            .await
            .map_err(doing)?;
        let mut distance = distance(&mut transaction, versions).await.map_err(doing)?;
        if distance.offsets <= CLOSE && try_hold(&mut transaction, versions).await.map_err(doing)? {
            distance = come_up(&mut transaction, versions).await.map_err(doing)?;
            if distance.is_current && distance.streams == 0 {
                return Ok(transaction);
            }
        }
        // Lets the live version go on.
        transaction.rollback().await.map_err(doing)?;
        if !distance.is_current {
            bail!(
                "version {} of {} is not being built beside version {} any more: another command has switched \
                 or dropped it",
                versions.new,
                versions.projection,
                versions.live
            );
        }
        if started.elapsed() >= PATIENCE {
            bail!("{}; run this again to go on", distance.told(versions));
        }
        if Instant::now() >= next_reminder {
            note(format!("{}; trying again.", distance.told(versions)));
            next_reminder = Instant::now() + REMIND;
        }
        tokio::time::sleep(GO_ON.min(5 * began.elapsed()).max(LOOK * 5)).await;
    }
}

/// `false` = a batch in flight takes long. The transaction is of no use then.
async fn try_hold(
    transaction: &mut PgConnection,
    versions: &Versions,
) -> Result<bool, sqlx::Error> {
    match hold_still(transaction, &versions.live()).await {
        Ok(()) => Ok(true),
        // lock_not_available
        Err(error) if sqlstate(&error).as_deref() == Some("55P03") => Ok(false),
        Err(error) => Err(error),
    }
}

/// Waits, while the live version is held, until the new one stands where it does, is no longer built, or
/// takes too long: how they stand then.
async fn come_up(
    transaction: &mut PgConnection,
    versions: &Versions,
) -> Result<Distance, sqlx::Error> {
    let end = Instant::now() + HOLD;
    loop {
        let distance = distance(transaction, versions).await?;
        if !distance.is_current || distance.streams == 0 || Instant::now() >= end {
            return Ok(distance);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether both versions stand at the same place in every stream.
pub(super) async fn are_at_one_place(
    connection: &mut PgConnection,
    versions: &Versions,
) -> Result<bool, sqlx::Error> {
    Ok(distance(connection, versions).await?.streams == 0)
}

async fn distance(
    connection: &mut PgConnection,
    versions: &Versions,
) -> Result<Distance, sqlx::Error> {
    sqlx::query_as(include_str!("distance.sql"))
        .bind(&versions.projection)
        .bind(versions.live)
        .bind(versions.new)
        .fetch_one(connection)
        .await
}

impl Distance {
    /// What is waited for.
    fn told(&self, versions: &Versions) -> String {
        if self.workers == 0 {
            return format!(
                "no runlog-projectors process runs {}: start one, it does the work",
                versions.projection
            );
        }
        match &self.farthest {
            Some(stream) => format!(
                "version {} is {} offsets behind version {}, most of them in {stream}",
                versions.new,
                count(self.offsets),
                versions.live
            ),
            None => format!("a batch of version {} takes long", versions.live),
        }
    }
}
