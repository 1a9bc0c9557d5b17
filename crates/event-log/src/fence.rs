//! The fence: who may append a batch now. Called by [`crate::append`] as the first statement of each
//! of its transactions.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::append::AppendError;
use crate::record::Batch;
use crate::stream::Claim;

/// The state of the stream row under its lock.
pub(crate) enum Locked {
    /// The claim is ours and the batch is next.
    Ours { persisted_at: DateTime<Utc> },
    /// The claim is ours and the batch was committed before.
    AlreadyCommitted { now: DateTime<Utc> },
}

/// Locks the stream row until the transaction ends and compares it with the batch. Waits, if it
/// `waits`, while an earlier try of the same batch is still being committed or rolled back.
///
/// # Errors
/// [`AppendError::Fenced`], [`AppendError::Moved`], or the database's.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    claim: &Claim,
    batch: &Batch,
    waits: bool,
) -> Result<Locked, AppendError> {
    let statement = if waits {
        include_str!("sql/lock_stream.sql")
    } else {
        include_str!("sql/lock_stream_nowait.sql")
    };
    let row: Option<(Option<Uuid>, i64, DateTime<Utc>, String)> = sqlx::query_as(statement)
        .bind(claim.stream_id)
        .fetch_optional(connection)
        .await?;
    match row {
        Some((Some(token), stored, now, _)) if token == claim.token => {
            if stored == batch.start {
                Ok(Locked::Ours { persisted_at: now })
            } else if stored == batch.end {
                Ok(Locked::AlreadyCommitted { now })
            } else {
                Err(AppendError::Moved {
                    stored,
                    start: batch.start,
                })
            }
        }
        _ => Err(AppendError::Fenced),
    }
}
