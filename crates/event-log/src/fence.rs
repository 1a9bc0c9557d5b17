//! The fence: who may append a batch now. [`lock`] is called by [`crate::append`] as the first
//! statement of each of its transactions, [`look`] where there is nothing to append. What the row means
//! is decided by [`stand`], a pure function, which the model of the protocol runs too
//! (`src/protocol_model`).

use std::ops::Range;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::append::AppendError;
use crate::record::Part;
use crate::stream::Claim;

/// What the fence reads of a stream row whose generation is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OpenRow {
    /// The token of the newest claim; none = never claimed.
    pub(crate) claim: Option<Uuid>,
    /// The stored offset.
    pub(crate) next_offset: i64,
}

/// How a batch stands to the stream row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The claim is ours and the batch is next.
    Next,
    /// The claim is ours and its row is past the batch: the batch was committed before, whole or in
    /// parts, and the answer was lost. Only the holder of the claim moves the row.
    Committed,
    /// The claim is ours and the row is within the batch: its first offsets were committed before, as
    /// a part of their own.
    Partly {
        /// The stored offset.
        stored: i64,
    },
    /// The claim is ours and the row is behind the batch: the database went back (failover, restore).
    Elsewhere {
        /// The stored offset.
        stored: i64,
    },
    /// Another process has claimed the partition, or the generation is closed.
    Fenced,
}

/// Decides whether the holder of the claim `token` may append the offsets of `batch` now. `row` is the
/// row of its generation under the lock, `None` where that is closed.
pub(crate) fn stand(row: Option<OpenRow>, token: Uuid, batch: &Range<i64>) -> Standing {
    match row {
        Some(OpenRow {
            claim: Some(claim),
            next_offset: stored,
        }) if claim == token => {
            if stored == batch.start {
                Standing::Next
            } else if stored >= batch.end {
                Standing::Committed
            } else if stored > batch.start {
                Standing::Partly { stored }
            } else {
                Standing::Elsewhere { stored }
            }
        }
        _ => Standing::Fenced,
    }
}

/// The state of the stream row under its lock, where the part need not go elsewhere.
pub(crate) enum Locked {
    /// The part is next.
    Ours { persisted_at: DateTime<Utc> },
    /// The part was committed before.
    AlreadyCommitted { now: DateTime<Utc> },
}

/// Locks the stream row until the transaction ends and compares it with the part. Waits, if it
/// `waits`, while an earlier try of the same part is still being committed or rolled back.
///
/// # Errors
/// [`AppendError::Fenced`], [`AppendError::Moved`], or the database's.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    claim: &Claim,
    part: Part<'_>,
    waits: bool,
) -> Result<Locked, AppendError> {
    let statement = if waits {
        include_str!("sql/lock_stream.sql")
    } else {
        include_str!("sql/lock_stream_nowait.sql")
    };
    let found: Option<(Option<Uuid>, i64, DateTime<Utc>, String)> = sqlx::query_as(statement)
        .bind(claim.stream_id)
        .fetch_optional(connection)
        .await?;
    let row = found.as_ref().map(|(claim, next_offset, ..)| OpenRow {
        claim: *claim,
        next_offset: *next_offset,
    });
    let now = found.map(|(_, _, now, _)| now);
    let start = part.start;
    match (stand(row, claim.token, &(start..part.end)), now) {
        (Standing::Next, Some(persisted_at)) => Ok(Locked::Ours { persisted_at }),
        (Standing::Committed, Some(now)) => Ok(Locked::AlreadyCommitted { now }),
        (Standing::Partly { stored } | Standing::Elsewhere { stored }, _) => {
            Err(AppendError::Moved { stored, start })
        }
        (Standing::Fenced, _) | (_, None) => Err(AppendError::Fenced),
    }
}

/// Compares the stream row with where the holder of the claim goes on, without a lock.
///
/// # Errors
/// [`AppendError::Fenced`], [`AppendError::Moved`], or the database's.
pub(crate) async fn look(pool: &PgPool, claim: &Claim, next: i64) -> Result<(), AppendError> {
    let found: Option<(Option<Uuid>, i64)> = sqlx::query_as(
        "SELECT claim, next_offset FROM event_log.stream WHERE stream_id = $1 AND closed_at IS NULL",
    )
    .bind(claim.stream_id)
    .fetch_optional(pool)
    .await?;
    let row = found.map(|(claim, next_offset)| OpenRow { claim, next_offset });
    let stored = row.map(|row| row.next_offset);
    match (stand(row, claim.token, &(next..next)), stored) {
        (Standing::Next, _) => Ok(()),
        (Standing::Fenced, _) | (_, None) => Err(AppendError::Fenced),
        (_, Some(stored)) => Err(AppendError::Moved {
            stored,
            start: next,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINE: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    fn row(claim: Option<Uuid>, next_offset: i64) -> Option<OpenRow> {
        Some(OpenRow { claim, next_offset })
    }

    #[test]
    fn my_batch_is_next_was_committed_whole_or_in_part_or_lies_elsewhere() {
        for (stored, expected) in [
            (9, Standing::Elsewhere { stored: 9 }),
            (10, Standing::Next),
            (11, Standing::Partly { stored: 11 }),
            (12, Standing::Committed),
            (13, Standing::Committed),
        ] {
            assert_eq!(stand(row(Some(MINE), stored), MINE, &(10..12)), expected);
        }
    }

    #[test]
    fn another_claim_none_or_a_closed_generation_is_fenced_wherever_the_row_is() {
        for stored in 9..14 {
            for claim in [None, Some(OTHER)] {
                let standing = stand(row(claim, stored), MINE, &(10..12));
                assert_eq!(standing, Standing::Fenced);
            }
        }
        assert_eq!(stand(None, MINE, &(10..12)), Standing::Fenced);
    }
}
