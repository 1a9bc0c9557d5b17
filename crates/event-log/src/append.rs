//! Appending a batch: one partition's records, one transaction, the offset in it.
//!
//! Called by ingest, one [`StreamWriter`] per claimed partition. The fast path decides from the run
//! cache; what the cache does not know of existing runs is loaded first. A unique violation or a
//! record that the database refuses sends the same batch down the checked path ([`crate::checked`]).

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use crate::decide::{Decision, Prepared, decide};
use crate::fault::{FaultClass, classify};
use crate::fence::{self, Locked};
use crate::insert::{self, InsertError};
use crate::record::{Batch, Outcome};
use crate::run_cache::{KnownRun, RunCache};
use crate::staging::{self, Learned};
use crate::stream::Claim;
use crate::transaction::Transaction;
use crate::{checked, committed, known};

/// What became of a batch.
#[derive(Debug)]
pub struct Appended {
    /// One outcome per record, in order.
    pub outcomes: Vec<Outcome>,
    /// When the batch was persisted, by the database's clock. For a batch that had been committed
    /// before (a commit whose answer was lost), the time of this answer.
    pub persisted_at: DateTime<Utc>,
}

/// Why a batch was not appended. Nothing of it was committed, unless the commit's own answer was
/// lost: the same batch again finds out.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another process claimed the partition, or its generation was closed.
    #[error("another process has claimed the partition")]
    Fenced,
    /// The stored offset is not where the batch starts: the database went back (failover, restore),
    /// or the caller lost its place. Claim again and go on from there.
    #[error("the stored offset is {stored}, and the batch starts at {start}")]
    Moved {
        /// `next_offset` of the stream row.
        stored: i64,
        /// Where the batch starts.
        start: i64,
    },
    /// The batch's offsets do not add up. A bug of the caller.
    #[error(
        "the batch {start}..{end} does not account for every offset: this is a bug, please report it"
    )]
    Unaccounted {
        /// The batch's first offset.
        start: i64,
        /// One past its last offset.
        end: i64,
    },
    /// The database's error; its class says what to do.
    #[error("cannot append the batch ({class:?} fault{})", at_offset(*.offset))]
    Fault {
        /// Whose fault it is.
        class: FaultClass,
        /// The one record that causes it, where that was found out.
        offset: Option<i64>,
        /// The error itself.
        source: sqlx::Error,
    },
}

fn at_offset(offset: Option<i64>) -> String {
    offset
        .map(|o| format!(" at offset {o}"))
        .unwrap_or_default()
}

impl From<sqlx::Error> for AppendError {
    fn from(source: sqlx::Error) -> Self {
        Self::Fault {
            class: classify(&source),
            offset: None,
            source,
        }
    }
}

/// Appends batches to one claimed partition, in offset order.
#[derive(Debug)]
pub struct StreamWriter {
    claim: Claim,
    cache: RunCache,
}

/// How often the checked path meets a unique violation before it is left to the backoff.
const CHECKED_TRIES: u32 = 5;

/// Why one try of a batch ended.
enum TryError {
    /// What was known is out of date, or a record may be at fault: decide from the database.
    NeedsCheck(sqlx::Error),
    Append(AppendError),
}

impl From<sqlx::Error> for TryError {
    fn from(error: sqlx::Error) -> Self {
        match classify(&error) {
            FaultClass::Unique | FaultClass::Record | FaultClass::Unlisted => {
                Self::NeedsCheck(error)
            }
            _ => Self::Append(error.into()),
        }
    }
}

impl From<AppendError> for TryError {
    fn from(error: AppendError) -> Self {
        Self::Append(error)
    }
}

/// What one try has written, before its commit.
struct Written {
    appended: Appended,
    /// What the cache may learn from it once it is committed.
    learned: Option<Learned>,
}

impl Written {
    fn unlearned(outcomes: Vec<Outcome>, persisted_at: DateTime<Utc>) -> Self {
        Self {
            appended: Appended {
                outcomes,
                persisted_at,
            },
            learned: None,
        }
    }
}

impl StreamWriter {
    /// A writer for a fresh claim, with an empty cache.
    pub fn new(claim: Claim) -> Self {
        Self {
            claim,
            cache: RunCache::new(),
        }
    }

    /// The claim that it writes under.
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Appends a batch and commits. After an error the same batch may be tried again, any number of
    /// times: it is appended once.
    ///
    /// # Errors
    /// [`AppendError`]; its variants say what the caller has to do.
    pub async fn append(&mut self, pool: &PgPool, batch: &Batch) -> Result<Appended, AppendError> {
        if !batch.is_accounted() {
            return Err(AppendError::Unaccounted {
                start: batch.start,
                end: batch.end,
            });
        }
        let prepared = Prepared::new(&batch.records);
        let result = self.append_prepared(pool, batch, &prepared).await;
        if result.is_err() {
            // The commit may or may not have taken place: nothing is known of these runs now.
            staging::doubt(&mut self.cache, &prepared);
        }
        result
    }

    /// Asks whether the claim still holds its partition at `next`, where its next batch starts. To be
    /// asked now and then while there is nothing to append: a database that went back by a failover
    /// would else be noticed only with the next record, and what it lost would wait for that one.
    ///
    /// # Errors
    /// [`AppendError::Fenced`], [`AppendError::Moved`], or the database's.
    pub async fn look(&self, pool: &PgPool, next: i64) -> Result<(), AppendError> {
        fence::look(pool, &self.claim, next).await
    }

    async fn append_prepared(
        &mut self,
        pool: &PgPool,
        batch: &Batch,
        prepared: &Prepared<'_>,
    ) -> Result<Appended, AppendError> {
        let mut transaction = Transaction::begin(pool).await?;
        let written = match self.fast(&mut transaction, batch, prepared).await {
            Ok(written) => written,
            Err(TryError::Append(error)) => return Err(error),
            Err(TryError::NeedsCheck(error)) => {
                tracing::debug!(
                    topic = self.claim.topic, partition = self.claim.partition, start = batch.start, %error,
                    "deciding the batch from the database"
                );
                self.cache.clear();
                self.checked(&mut transaction, batch, prepared).await?
            }
        };
        transaction.commit().await?;
        if let Some(learned) = written.learned {
            staging::learn(&mut self.cache, prepared, learned);
        }
        Ok(written.appended)
    }

    async fn fast(
        &mut self,
        transaction: &mut Transaction,
        batch: &Batch,
        prepared: &Prepared<'_>,
    ) -> Result<Written, TryError> {
        let connection = transaction.connection();
        let persisted_at = match fence::lock(connection, &self.claim, batch).await? {
            Locked::Ours { persisted_at } => persisted_at,
            Locked::AlreadyCommitted { now } => {
                return Ok(self.recover(connection, batch, prepared, now).await?);
            }
        };
        let loaded = self.load_unknown(connection, prepared).await?;
        let mut runs = staging::stage(&self.cache, &loaded, prepared);
        let events = prepared.records.iter().filter_map(|r| r.event);
        known::complete_keys(connection, events, &mut runs).await?;
        let all = 0..prepared.records.len();
        let decision = decide(prepared, all, &mut runs, &HashSet::new(), persisted_at);
        let staged = staging::staged(runs);
        let decision = self
            .write(connection, batch, decision, persisted_at)
            .await?;
        Ok(Written {
            learned: Some(Learned { loaded, staged }),
            ..Written::unlearned(decision.outcomes, persisted_at)
        })
    }

    async fn write<'b>(
        &self,
        connection: &mut PgConnection,
        batch: &Batch,
        mut decision: Decision<'b>,
        persisted_at: DateTime<Utc>,
    ) -> Result<Decision<'b>, TryError> {
        let stream_id = self.claim.stream_id;
        match insert::events(connection, stream_id, persisted_at, &mut decision.events).await {
            Ok(()) => {}
            Err(InsertError::Sql(error)) => return Err(error.into()),
            Err(InsertError::Hole) => return Err(TryError::NeedsCheck(hole())),
        }
        insert::dead_letters(connection, stream_id, persisted_at, &decision.dead_letters).await?;
        insert::advance(connection, stream_id, batch, &decision, persisted_at).await?;
        Ok(decision)
    }

    /// Numbers the runs that are new and loads those that exist and are not in the cache.
    async fn load_unknown(
        &mut self,
        connection: &mut PgConnection,
        prepared: &Prepared<'_>,
    ) -> Result<HashMap<usize, KnownRun>, TryError> {
        let unknown = staging::unknown(&mut self.cache, prepared);
        if unknown.is_empty() {
            return Ok(HashMap::new());
        }
        let wanted: Vec<_> = unknown.iter().map(|i| prepared.runs[*i]).collect();
        let numbers = insert::new_runs(connection, &wanted).await?;
        let mut loaded = HashMap::new();
        let mut existing = Vec::new();
        for i in unknown {
            let (tenant, run) = prepared.runs[i];
            match numbers.get(&(tenant.to_owned(), run.to_owned())) {
                Some(run_no) => {
                    loaded.insert(i, KnownRun::empty(*run_no));
                }
                None => existing.push(i),
            }
        }
        if !existing.is_empty() {
            let runs: Vec<_> = existing.iter().map(|i| prepared.runs[*i]).collect();
            let mut known = known::existing_runs(connection, &runs).await?;
            for i in existing {
                let (tenant, run) = prepared.runs[i];
                // Neither new nor there: it went away in between; the checked path looks again.
                let run = known
                    .remove(&(tenant.to_owned(), run.to_owned()))
                    .ok_or(TryError::NeedsCheck(sqlx::Error::RowNotFound))?;
                loaded.insert(i, run);
            }
        }
        Ok(loaded)
    }

    async fn checked(
        &mut self,
        transaction: &mut Transaction,
        batch: &Batch,
        prepared: &Prepared<'_>,
    ) -> Result<Written, AppendError> {
        let mut tries = 0;
        loop {
            tries += 1;
            transaction.restart().await?;
            match self.checked_once(transaction, batch, prepared).await {
                // Another partition appended to one of the runs in between.
                Err(AppendError::Fault {
                    class: FaultClass::Unique,
                    ..
                }) if tries < CHECKED_TRIES => {}
                Err(AppendError::Fault {
                    class: FaultClass::Unique,
                    offset,
                    source,
                }) => {
                    return Err(AppendError::Fault {
                        class: FaultClass::Environment,
                        offset,
                        source,
                    });
                }
                other => return other,
            }
        }
    }

    async fn checked_once(
        &mut self,
        transaction: &mut Transaction,
        batch: &Batch,
        prepared: &Prepared<'_>,
    ) -> Result<Written, AppendError> {
        let connection = transaction.connection();
        let persisted_at = match fence::lock(connection, &self.claim, batch).await? {
            Locked::Ours { persisted_at } => persisted_at,
            Locked::AlreadyCommitted { now } => {
                return Ok(self.recover(connection, batch, prepared, now).await?);
            }
        };
        let stream_id = self.claim.stream_id;
        let decision = checked::append(transaction, stream_id, prepared, persisted_at).await?;
        let connection = transaction.connection();
        insert::dead_letters(connection, stream_id, persisted_at, &decision.dead_letters).await?;
        insert::advance(connection, stream_id, batch, &decision, persisted_at).await?;
        Ok(Written::unlearned(decision.outcomes, persisted_at))
    }

    /// What became of the records of a batch whose commit's answer was lost.
    async fn recover(
        &self,
        connection: &mut PgConnection,
        batch: &Batch,
        prepared: &Prepared<'_>,
        now: DateTime<Utc>,
    ) -> Result<Written, sqlx::Error> {
        let stream_id = self.claim.stream_id;
        let outcomes = committed::outcomes(connection, stream_id, batch, prepared).await?;
        Ok(Written::unlearned(outcomes, now))
    }
}

fn hole() -> sqlx::Error {
    sqlx::Error::Protocol("the batch does not continue a run's events in the log".to_owned())
}
