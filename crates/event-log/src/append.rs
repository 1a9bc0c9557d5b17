//! Appending a batch: one partition's records, one transaction, the offset in it.
//!
//! Called by ingest, one [`StreamWriter`] per claimed partition. The fast path ([`once`]) decides from
//! the run cache; what the cache does not know of existing runs is loaded first. A unique violation or a
//! record that the database refuses sends the same batch down the checked path ([`crate::checked`]). A
//! batch that the server cancels, because it takes too long, is appended in ever smaller parts, each a
//! transaction of its own.

mod once;
mod tenants;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::fault::{FaultClass, classify, sqlstate};
use crate::fence;
use crate::record::{Batch, Outcome, Part};
use crate::run_cache::RunCache;
use crate::stream::Claim;

use tenants::NotedTenants;

/// What became of a batch.
#[derive(Debug)]
pub struct Appended {
    /// One past the last offset that is appended: the batch's end, unless the turn was over
    /// ([`StreamWriter::in_turns_of`]).
    pub end: i64,
    /// One outcome per record below `end`, in order.
    pub outcomes: Vec<Outcome>,
    /// When the batch was persisted, by the database's clock. For a batch that had been committed
    /// before (a commit whose answer was lost), the time of this answer.
    pub persisted_at: DateTime<Utc>,
    /// Dead letters that had to be cut ([`StreamWriter::with_dead_letter_quota`]).
    pub truncated: Truncated,
}

impl Appended {
    fn add(&mut self, next: Self) {
        self.end = next.end;
        self.outcomes.extend(next.outcomes);
        self.persisted_at = next.persisted_at;
        for (tenant, count) in next.truncated {
            *self.truncated.entry(tenant).or_default() += count;
        }
    }
}

/// How many dead letters were cut, by their tenant; `None` = no tenant is known, the topic's quota counts.
pub type Truncated = BTreeMap<Option<String>, u64>;

/// Why a batch was not appended. Nothing of it was committed, unless the commit's own answer was
/// lost or it was appended in parts: the same batch again finds out.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Another process claimed the partition, or its generation was closed.
    #[error("another process has claimed the partition, or its generation is closed")]
    Fenced,
    /// The stored offset is behind the batch's start: the database went back (failover, restore), or
    /// the caller lost its place. Claim again and go on from there.
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

impl AppendError {
    /// Whether somebody else held a row (55P03): nothing is wrong yet, and another try costs little.
    pub fn is_locked(&self) -> bool {
        matches!(self, Self::Fault { source, .. } if sqlstate(source).as_deref() == Some("55P03"))
    }

    /// An error while the transaction began: no record can be at fault, whatever it says.
    fn before_any_record(source: sqlx::Error) -> Self {
        let class = match classify(&source) {
            FaultClass::Fatal => FaultClass::Fatal,
            _ => FaultClass::Environment,
        };
        Self::Fault {
            class,
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
    tenants: NotedTenants,
    waits: bool,
    /// Records in a transaction, at most: all of a batch, unless one took too long. Grows back slowly.
    limit: usize,
    /// Records in the transaction that was tried last.
    tried: usize,
    /// How long an append may go on beginning something more; `None` = to its batch's end.
    turn: Option<Duration>,
    /// When that is over for the append under way.
    turn_ends: Option<Instant>,
    /// Bytes of pending dead letters that are kept whole for a tenant.
    dead_letter_quota: i64,
}

impl StreamWriter {
    /// A writer for a fresh claim, with an empty cache.
    pub fn new(claim: Claim) -> Self {
        Self {
            claim,
            cache: RunCache::new(),
            tenants: NotedTenants::default(),
            waits: true,
            limit: usize::MAX,
            tried: 0,
            turn: None,
            turn_ends: None,
            dead_letter_quota: i64::MAX,
        }
    }

    /// The same, and an append fails at once where the stream row is locked ([`AppendError::is_locked`]):
    /// for a caller whose connection or turn is wanted by other partitions meanwhile. Who locks it: a
    /// claim that is being made, or an earlier try of the same batch that is still being committed or
    /// rolled back.
    #[must_use]
    pub fn without_waiting(mut self) -> Self {
        self.waits = false;
        self
    }

    /// The same, and an append ends before its batch does where it takes longer than a turn, as one of
    /// many refused records does: what is decided by then is committed. Something is appended in any
    /// case. For a caller that gives others their turn before it goes on with the rest.
    #[must_use]
    pub fn in_turns_of(mut self, turn: Duration) -> Self {
        self.turn = Some(turn);
        self
    }

    /// The same, and dead letters are kept whole only while the pending ones of their tenant take no
    /// more than so many bytes with them, in the whole database; those without a known tenant count for
    /// their topic. Of others the first KiB is kept, with length and digest of the value. Batches of
    /// other partitions that are being written meanwhile are not counted yet: each may add its bytes.
    #[must_use]
    pub fn with_dead_letter_quota(mut self, bytes: usize) -> Self {
        self.dead_letter_quota = i64::try_from(bytes).unwrap_or(i64::MAX);
        self
    }

    /// The claim that it writes under.
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Bounds what it remembers of the runs that it wrote, from the next batch on: idempotency keys,
    /// some 200 bytes each, at most 100,000. Writers of one process share its memory.
    pub fn bound_cache(&mut self, max_keys: usize) {
        self.cache.bound(max_keys);
    }

    /// Appends a batch and commits: in one transaction, or in several where one would take too long
    /// (the server cancels it, or the turn is over). After an error the same batch may be tried again, any number of
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
        let mut appended = Appended {
            end: batch.start,
            outcomes: Vec::with_capacity(batch.records.len()),
            persisted_at: DateTime::UNIX_EPOCH,
            truncated: Truncated::new(),
        };
        self.turn_ends = self.turn.map(|turn| Instant::now() + turn);
        // Parts still to do, the next one last.
        let mut parts = vec![batch.whole()];
        while let Some(part) = parts.pop() {
            if appended.end > batch.start && self.is_turn_over() {
                break;
            }
            let parted = match part.after(self.limit) {
                Some(parted) => parted,
                None => match self.append_part(pool, part).await {
                    Ok(done) => {
                        self.limit = match done.end < part.end {
                            true => done.outcomes.len(),
                            false => self.limit.saturating_add(self.limit / 8 + 1),
                        };
                        appended.add(done);
                        if appended.end < part.end {
                            parts.push(part.at(appended.end).1);
                        }
                        continue;
                    }
                    Err(error) => self.parted(part, error)?,
                },
            };
            parts.extend([parted.1, parted.0]);
        }
        Ok(appended)
    }

    fn is_turn_over(&self) -> bool {
        self.turn_ends.is_some_and(|ends| ends <= Instant::now())
    }

    /// What to do instead of a part that failed, if that is less of it at once.
    fn parted<'b>(
        &mut self,
        part: Part<'b>,
        error: AppendError,
    ) -> Result<(Part<'b>, Part<'b>), AppendError> {
        match error {
            AppendError::Fault {
                class: FaultClass::Cancelled,
                ref source,
                ..
            } => {
                let half = part.records.len() / 2;
                let parted = part.after(half);
                if parted.is_some() {
                    tracing::warn!(
                        topic = self.claim.topic, partition = self.claim.partition,
                        start = part.start, end = part.end, error = %source,
                        "the batch takes too long and is appended in smaller parts"
                    );
                    self.limit = half;
                }
                parted.ok_or(error)
            }
            // An earlier try committed the first part, and ended before the others.
            AppendError::Moved { stored, .. } if part.start < stored && stored < part.end => {
                Ok(part.at(stored))
            }
            error => Err(error),
        }
    }

    /// Takes note that an append was given up in the middle (its future was dropped) because it took
    /// too long: nothing is known of its runs now, and less is done at once.
    pub fn abandoned(&mut self) {
        self.cache.clear();
        self.limit = (self.limit.min(self.tried) / 2).max(1);
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
}
