//! Seals of days: what the log was at the end of each, stored so that the next ones follow on it and
//! printed so that somebody can keep it outside. Called by `runlog audit`, and by [`crate::verify`].
//!
//! A day is sealed when it is over by the database's clock and nothing can be added to it any more
//! ([`ended`]). Its events are found through the streams, in which persistedAt never falls ([`heads`]),
//! and what they come to is stored in one transaction ([`store`]). The same reading at any later time
//! gives the same, or tells which run differs ([`compare`]). [`prove`] shows one run to an outsider.
//! What is computed, and how, is in [`run_events::seal`].

mod compare;
mod ended;
mod heads;
mod prove;
mod store;

use chrono::NaiveDate;
use run_events::Digest;
use run_events::seal::{Seal, Written};
use sqlx::PgConnection;

pub use compare::{DayFinding, chain, day};
pub use ended::{MARGIN, ended, first_day, last_day};
pub use heads::{Damage, DayHeads, Progress, RunHead, collect};
pub use prove::{Proof, ProofError, proof};
pub use store::store;

/// A seal as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The seal and its digest.
    pub written: Written,
    /// How it was computed; [`run_events::seal::VERSION`] is what this build knows.
    pub version: i16,
    /// When it was stored.
    pub sealed_at: chrono::DateTime<chrono::Utc>,
}

/// Why nothing was sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The day is not over, or only just.
    #[error("{day} can be sealed from {from} on")]
    NotOver {
        /// The day.
        day: NaiveDate,
        /// When, RFC 3339.
        from: String,
    },
    /// A batch that may belong to the day has not ended.
    #[error(
        "a batch of {topic}/{partition} is still being appended, and it may belong to a day that is to be sealed"
    )]
    Busy {
        /// The Kafka topic.
        topic: String,
        /// The Kafka partition.
        partition: i32,
    },
    /// What is there of a run is no log: it is not to be sealed.
    #[error("run number {run_no}: {what}")]
    Damaged {
        /// The run's number.
        run_no: i64,
        /// What is wrong.
        what: &'static str,
    },
    /// Somebody else sealed meanwhile.
    #[error("{day} was sealed by somebody else meanwhile")]
    Meanwhile {
        /// The day.
        day: NaiveDate,
    },
    /// The database's error; see [`crate::classify`].
    #[error("cannot read or store what belongs to a seal")]
    Database(#[from] sqlx::Error),
}

/// The seals of the days from `from` on, or all; oldest first.
///
/// # Errors
/// The database's.
pub async fn seals(
    connection: &mut PgConnection,
    from: Option<NaiveDate>,
) -> Result<Vec<Stored>, sqlx::Error> {
    type Row = (
        NaiveDate,
        i64,
        i64,
        Vec<u8>,
        Vec<u8>,
        Vec<u8>,
        i16,
        chrono::DateTime<chrono::Utc>,
    );
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT day, runs, events, root, previous, digest, version, sealed_at FROM event_log.seal
         WHERE $1::date IS NULL OR day >= $1 ORDER BY day",
    )
    .bind(from)
    .fetch_all(connection)
    .await?;
    let stored = rows.into_iter().map(
        |(day, runs, events, root, previous, digest, version, sealed_at)| Stored {
            written: Written {
                seal: Seal {
                    day,
                    runs: runs.unsigned_abs(),
                    events: events.unsigned_abs(),
                    root: any_digest(&root),
                    previous: any_digest(&previous),
                },
                digest: any_digest(&digest),
            },
            version,
            sealed_at,
        },
    );
    Ok(stored.collect())
}

/// A digest as it is stored. Where somebody changed even its length, one that fits nothing.
fn any_digest(bytes: &[u8]) -> Digest {
    Digest(bytes.try_into().unwrap_or([0xff; 32]))
}
