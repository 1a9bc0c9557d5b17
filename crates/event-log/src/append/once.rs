//! One transaction of an append: the fast path, and the way to the checked one. Called by
//! [`super::StreamWriter::append`] for each part of a batch, mostly one.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use super::{AppendError, Appended, StreamWriter, Truncated};
use crate::decide::{Decision, Prepared, decide};
use crate::fault::{FaultClass, classify};
use crate::fence::{self, Locked};
use crate::insert::{self, InsertError};
use crate::record::{Outcome, Part};
use crate::run_cache::KnownRun;
use crate::staging::{self, Learned};
use crate::transaction::Transaction;
use crate::{checked, committed, known};

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
    fn unlearned(
        part: Part<'_>,
        outcomes: Vec<Outcome>,
        truncated: Truncated,
        persisted_at: DateTime<Utc>,
    ) -> Self {
        Self {
            appended: Appended {
                end: part.end,
                outcomes,
                persisted_at,
                truncated,
            },
            learned: None,
        }
    }
}

impl StreamWriter {
    /// Appends a part and commits.
    pub(super) async fn append_part(
        &mut self,
        pool: &PgPool,
        part: Part<'_>,
    ) -> Result<Appended, AppendError> {
        self.tried = part.records.len();
        let prepared = Prepared::new(part.records);
        let result = self.append_prepared(pool, part, &prepared).await;
        if result.is_err() {
            // The commit may or may not have taken place: nothing is known of these runs now.
            staging::doubt(&mut self.cache, &prepared);
        }
        result
    }

    async fn append_prepared(
        &mut self,
        pool: &PgPool,
        part: Part<'_>,
        prepared: &Prepared<'_>,
    ) -> Result<Appended, AppendError> {
        let mut transaction = Transaction::begin(pool)
            .await
            .map_err(AppendError::before_any_record)?;
        let written = match self.fast(&mut transaction, part, prepared).await {
            Ok(written) => written,
            Err(TryError::Append(error)) => {
                // It will be tried again and again: not with a new connection each time.
                if error.is_locked() {
                    let _ = transaction.rollback().await;
                }
                return Err(error);
            }
            Err(TryError::NeedsCheck(error)) => {
                tracing::debug!(
                    topic = self.claim.topic, partition = self.claim.partition, start = part.start, %error,
                    "deciding the batch from the database"
                );
                self.cache.clear();
                self.checked(&mut transaction, part, prepared).await?
            }
        };
        let new_tenants = self.tenants.new_in(prepared);
        if !new_tenants.is_empty() {
            let stream_id = self.claim.stream_id;
            insert::stream_tenants(transaction.connection(), stream_id, &new_tenants).await?;
        }
        transaction.commit().await?;
        self.tenants.note(new_tenants);
        if let Some(learned) = written.learned {
            staging::learn(&mut self.cache, prepared, learned, written.appended.end);
        }
        Ok(written.appended)
    }

    async fn fast(
        &mut self,
        transaction: &mut Transaction,
        part: Part<'_>,
        prepared: &Prepared<'_>,
    ) -> Result<Written, TryError> {
        let connection = transaction.connection();
        let persisted_at = match fence::lock(connection, &self.claim, part, self.waits).await? {
            Locked::Ours { persisted_at } => persisted_at,
            Locked::AlreadyCommitted { now } => {
                return Ok(self.recover(connection, part, prepared, now).await?);
            }
        };
        failpoints::hit("append.locked");
        staging::go_back(&mut self.cache, part.start);
        let loaded = self.load_unknown(connection, prepared).await?;
        let mut runs = staging::stage(&self.cache, &loaded, prepared);
        let events = prepared.records.iter().filter_map(|r| r.event);
        known::complete_keys(connection, events, &mut runs).await?;
        let all = 0..prepared.records.len();
        let decision = decide(prepared, all, &mut runs, &HashSet::new(), persisted_at);
        let staged = staging::staged(runs);
        let written = self.write(connection, part, decision, persisted_at).await?;
        Ok(Written {
            learned: Some(Learned { loaded, staged }),
            ..written
        })
    }

    async fn write(
        &self,
        connection: &mut PgConnection,
        part: Part<'_>,
        mut decision: Decision<'_>,
        persisted_at: DateTime<Utc>,
    ) -> Result<Written, TryError> {
        let stream_id = self.claim.stream_id;
        match insert::events(connection, stream_id, persisted_at, &mut decision.events).await {
            Ok(()) => {}
            Err(InsertError::Sql(error)) => return Err(error.into()),
            Err(InsertError::Hole) => return Err(TryError::NeedsCheck(hole())),
        }
        failpoints::hit("append.inserted");
        Ok(self.book(connection, part, decision, persisted_at).await?)
    }

    /// Keeps the dead letters and moves the stream row, last of all: the events are in.
    async fn book(
        &self,
        connection: &mut PgConnection,
        part: Part<'_>,
        decision: Decision<'_>,
        persisted_at: DateTime<Utc>,
    ) -> Result<Written, sqlx::Error> {
        let (letters, quota) = (&decision.dead_letters, self.dead_letter_quota);
        let truncated =
            insert::dead_letters(connection, &self.claim, persisted_at, letters, quota).await?;
        insert::advance(
            connection,
            self.claim.stream_id,
            part,
            &decision,
            persisted_at,
        )
        .await?;
        Ok(Written::unlearned(
            part,
            decision.outcomes,
            truncated,
            persisted_at,
        ))
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
        part: Part<'_>,
        prepared: &Prepared<'_>,
    ) -> Result<Written, AppendError> {
        let mut tries = 0;
        loop {
            tries += 1;
            transaction.restart().await?;
            match self.checked_once(transaction, part, prepared).await {
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
        part: Part<'_>,
        prepared: &Prepared<'_>,
    ) -> Result<Written, AppendError> {
        let connection = transaction.connection();
        let persisted_at = match fence::lock(connection, &self.claim, part, self.waits).await? {
            Locked::Ours { persisted_at } => persisted_at,
            Locked::AlreadyCommitted { now } => {
                return Ok(self.recover(connection, part, prepared, now).await?);
            }
        };
        let stream_id = self.claim.stream_id;
        let turn = self.turn_ends;
        let decision =
            checked::append(transaction, stream_id, prepared, persisted_at, turn).await?;
        failpoints::hit("append.checked");
        // The turn may have ended before the part did.
        let part = part
            .after(decision.outcomes.len())
            .map_or(part, |parted| parted.0);
        let connection = transaction.connection();
        Ok(self.book(connection, part, decision, persisted_at).await?)
    }

    /// What became of the records of a batch whose commit's answer was lost.
    async fn recover(
        &self,
        connection: &mut PgConnection,
        part: Part<'_>,
        prepared: &Prepared<'_>,
        now: DateTime<Utc>,
    ) -> Result<Written, sqlx::Error> {
        let stream_id = self.claim.stream_id;
        let outcomes = committed::outcomes(connection, stream_id, part, prepared).await?;
        // How many were cut then is not known, and was not counted: a metric lacks them, nothing else.
        Ok(Written::unlearned(part, outcomes, Truncated::new(), now))
    }
}

fn hole() -> sqlx::Error {
    sqlx::Error::Protocol("the batch does not continue a run's events in the log".to_owned())
}
