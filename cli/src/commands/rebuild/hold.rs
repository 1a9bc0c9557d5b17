//! Brings both versions to the same place: the live one is held still, for a moment, until the new one,
//! which never overtakes it, stands where it does.

use std::time::{Duration, Instant};

use runlog_projectors::runner::versions::hold_still;
use service::backoff::Backoff;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};

use super::Versions;
use crate::output::note;

/// How long the live version stands still at most, each time. Its readers see it grow old meanwhile.
const HOLD: Duration = Duration::from_secs(3);
/// How often it is looked whether the new one has come.
const LOOK: Duration = Duration::from_millis(20);
/// How often it is said what is waited for.
const REMIND: Duration = Duration::from_secs(10);
/// A batch in flight is waited for this long. Should this command's machine vanish, the server lets go.
const BOUNDS: &str =
    "SET LOCAL lock_timeout = '5s'; SET LOCAL idle_in_transaction_session_timeout = '30s'";

/// Both versions stand at the same place until this transaction ends. Tries until that is so.
///
/// # Errors
/// The database's.
pub(super) async fn at_one_place(
    pool: &PgPool,
    versions: &Versions,
) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let mut next_reminder = Instant::now() + REMIND;
    loop {
        let mut transaction = pool.begin().await?;
        sqlx::raw_sql(BOUNDS).execute(&mut *transaction).await?;
        if holds(&mut transaction, versions).await? {
            return Ok(transaction);
        }
        transaction.rollback().await?;
        if Instant::now() >= next_reminder {
            note(format!(
                "Version {} does not come up with version {}; trying again.",
                versions.new, versions.live
            ));
            next_reminder = Instant::now() + REMIND;
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

async fn holds(transaction: &mut PgConnection, versions: &Versions) -> Result<bool, sqlx::Error> {
    match hold_still(transaction, &versions.live()).await {
        Ok(()) => {}
        // lock_not_available: a batch takes long.
        Err(error) if event_log::fault::sqlstate(&error).as_deref() == Some("55P03") => {
            return Ok(false);
        }
        Err(error) => return Err(error),
    }
    let end = Instant::now() + HOLD;
    while Instant::now() < end {
        if are_at_one_place(transaction, versions).await? {
            return Ok(true);
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(false)
}

/// Whether both versions stand at the same place in every stream.
pub(super) async fn are_at_one_place(
    connection: &mut PgConnection,
    versions: &Versions,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT NOT EXISTS (
           SELECT FROM (SELECT * FROM read_model.projection_checkpoints WHERE projection = $1 AND version = $2) a
           FULL JOIN (SELECT * FROM read_model.projection_checkpoints WHERE projection = $1 AND version = $3) b
             USING (topic, partition, generation)
           WHERE a.next_offset IS DISTINCT FROM b.next_offset)",
    )
    .bind(&versions.projection)
    .bind(versions.live)
    .bind(versions.new)
    .fetch_one(connection)
    .await
}
