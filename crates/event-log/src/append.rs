//! Appending a batch: one partition's records, one transaction, the offset in it.
//!
//! Called by ingest, one [`StreamWriter`] per claimed partition. The fast path decides from the run
//! cache; what the cache does not know of existing runs is loaded first. A unique violation or a
//! record that the database refuses sends the same batch down the checked path ([`crate::checked`]).

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use run_events::{Digest, IdempotencyKey};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::decide::{Decision, Prepared, StagedRun, decide};
use crate::fault::{FaultClass, classify};
use crate::insert::{self, InsertError};
use crate::record::{Batch, Outcome};
use crate::run_cache::{KnownKey, KnownRun, RunCache};
use crate::stream::Claim;
use crate::transaction::Transaction;
use crate::{checked, known};

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
/// Events loaded per run that the cache does not know: enough for most runs to be known whole.
const LOADED_EVENTS_PER_RUN: i64 = 256;

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

/// The state of the stream row under its lock.
pub(crate) enum Locked {
    /// The claim is ours and the batch is next.
    Ours { persisted_at: DateTime<Utc> },
    /// The claim is ours and the batch was committed before.
    AlreadyCommitted { now: DateTime<Utc> },
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
        let result = match self.fast(pool, batch, &prepared).await {
            Err(TryError::NeedsCheck(error)) => {
                tracing::debug!(
                    topic = self.claim.topic, partition = self.claim.partition, start = batch.start, %error,
                    "deciding the batch from the database"
                );
                self.cache.clear();
                self.checked(pool, batch, &prepared).await
            }
            Err(TryError::Append(error)) => Err(error),
            Ok(appended) => Ok(appended),
        };
        if result.is_err() {
            // The commit may or may not have taken place: nothing is known of these runs now.
            prepared
                .names
                .iter()
                .for_each(|name| self.cache.forget(name));
        }
        result
    }

    async fn fast(
        &mut self,
        pool: &PgPool,
        batch: &Batch,
        prepared: &Prepared<'_>,
    ) -> Result<Appended, TryError> {
        let mut transaction = Transaction::begin(pool).await?;
        let connection = transaction.connection();
        let persisted_at = match lock(connection, &self.claim, batch)
            .await
            .map_err(TryError::Append)?
        {
            Locked::Ours { persisted_at } => persisted_at,
            Locked::AlreadyCommitted { now } => {
                return Ok(self.recover(transaction, batch, prepared, now).await?);
            }
        };
        let loaded = self.load_unknown(connection, prepared).await?;
        let (decision, staged) = {
            let mut runs = self.stage(&loaded, prepared);
            let no_ids = HashSet::new();
            let decision = decide(
                prepared,
                0..prepared.records.len(),
                &mut runs,
                &no_ids,
                persisted_at,
            );
            let staged: Vec<_> = runs
                .into_iter()
                .map(|r| (r.head_seq, r.chain, r.new_keys))
                .collect();
            (decision, staged)
        };
        let decision = self
            .write(connection, batch, decision, persisted_at)
            .await?;
        transaction
            .commit()
            .await
            .map_err(|e| TryError::Append(e.into()))?;
        self.remember(prepared, loaded, staged);
        Ok(Appended {
            outcomes: decision.outcomes,
            persisted_at,
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
    ) -> Result<HashMap<usize, KnownRun>, sqlx::Error> {
        let unknown: Vec<usize> = (0..prepared.runs.len())
            .filter(|i| !self.cache.touch(&prepared.names[*i]))
            .collect();
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
            let mut known = known::existing_runs(connection, &runs, LOADED_EVENTS_PER_RUN).await?;
            for i in existing {
                let (tenant, run) = prepared.runs[i];
                // A run whose number cannot be read now was made by a transaction that is not
                // visible to this one yet; the checked path sees it.
                let run = known
                    .remove(&(tenant.to_owned(), run.to_owned()))
                    .ok_or(sqlx::Error::RowNotFound)?;
                loaded.insert(i, run);
            }
        }
        Ok(loaded)
    }

    fn stage<'k>(
        &'k self,
        loaded: &'k HashMap<usize, KnownRun>,
        prepared: &Prepared<'_>,
    ) -> Vec<StagedRun<'k>> {
        let known = |(i, name): (usize, &String)| match loaded.get(&i) {
            Some(run) => StagedRun::new(run),
            None => match self.cache.get(name) {
                Some(run) => StagedRun::new(run),
                None => unreachable!("load_unknown loads every run that the cache lacks"),
            },
        };
        prepared.names.iter().enumerate().map(known).collect()
    }

    /// Moves the cache to what was just committed.
    fn remember(
        &mut self,
        prepared: &Prepared<'_>,
        loaded: HashMap<usize, KnownRun>,
        staged: Vec<(i64, Digest, HashMap<IdempotencyKey, KnownKey>)>,
    ) {
        for (i, run) in loaded {
            self.cache.insert(prepared.names[i].clone(), run);
        }
        for (name, (head_seq, chain, new_keys)) in prepared.names.iter().zip(staged) {
            self.cache.advance(name, head_seq, chain, new_keys);
        }
        self.cache.shrink();
    }

    async fn checked(
        &mut self,
        pool: &PgPool,
        batch: &Batch,
        prepared: &Prepared<'_>,
    ) -> Result<Appended, AppendError> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.checked_once(pool, batch, prepared).await {
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
        pool: &PgPool,
        batch: &Batch,
        prepared: &Prepared<'_>,
    ) -> Result<Appended, AppendError> {
        let mut transaction = Transaction::begin(pool).await?;
        let persisted_at = match lock(transaction.connection(), &self.claim, batch).await? {
            Locked::Ours { persisted_at } => persisted_at,
            Locked::AlreadyCommitted { now } => {
                return Ok(self.recover(transaction, batch, prepared, now).await?);
            }
        };
        let stream_id = self.claim.stream_id;
        let decision = checked::append(&mut transaction, stream_id, prepared, persisted_at).await?;
        let connection = transaction.connection();
        insert::dead_letters(connection, stream_id, persisted_at, &decision.dead_letters).await?;
        insert::advance(connection, stream_id, batch, &decision, persisted_at).await?;
        transaction.commit().await?;
        Ok(Appended {
            outcomes: decision.outcomes,
            persisted_at,
        })
    }

    /// What became of the records of a batch whose commit's answer was lost.
    async fn recover(
        &self,
        mut transaction: Transaction,
        batch: &Batch,
        prepared: &Prepared<'_>,
        now: DateTime<Utc>,
    ) -> Result<Appended, sqlx::Error> {
        let connection = transaction.connection();
        let outcomes =
            checked::committed_outcomes(connection, self.claim.stream_id, batch, prepared).await?;
        transaction.rollback().await?;
        Ok(Appended {
            outcomes,
            persisted_at: now,
        })
    }
}

/// Locks the stream row and compares it with the batch: the fence (design: "one row, one lock").
async fn lock(
    connection: &mut PgConnection,
    claim: &Claim,
    batch: &Batch,
) -> Result<Locked, AppendError> {
    let row: Option<(Option<Uuid>, i64, DateTime<Utc>)> =
        sqlx::query_as(include_str!("sql/lock_stream.sql"))
            .bind(claim.stream_id)
            .fetch_optional(connection)
            .await?;
    match row {
        Some((Some(token), stored, now)) if token == claim.token => {
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

fn hole() -> sqlx::Error {
    sqlx::Error::Protocol("the batch would leave a hole in a run's runSeq".to_owned())
}
