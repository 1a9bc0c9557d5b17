//! The checked path: the batch decided from the database under the locks of its runs, and records
//! that the database refuses found by bisection. Slower, and right whatever the cache believed.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Instant;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::append::AppendError;
use crate::decide::{Decision, Prepared, PreparedEvent, StagedRun, decide, unstorable};
use crate::fault::{FaultClass, classify};
use crate::insert::{self, InsertError};
use crate::known;
use crate::record::Outcome;
use crate::run_cache::KnownRun;
use crate::transaction::Transaction;

/// Decides and inserts the events of the whole batch; dead letters are left to the caller.
///
/// Ranges are tried as wholes, each behind a savepoint. One that holds a record at fault is halved
/// until that record is alone; it becomes a dead letter and its neighbours stay in the transaction.
///
/// That takes long where many are refused. From `until` on it ends as soon as something is decided: the
/// decision is then one for the first records alone.
pub(crate) async fn append<'b>(
    transaction: &mut Transaction,
    stream_id: i64,
    prepared: &Prepared<'b>,
    persisted_at: DateTime<Utc>,
    until: Option<Instant>,
) -> Result<Decision<'b>, AppendError> {
    let connection = transaction.connection();
    insert::new_runs(connection, &prepared.runs).await?;
    let numbers = known::lock_runs(connection, &prepared.runs).await?;
    let run_nos: Vec<i64> = prepared
        .runs
        .iter()
        .map(|(tenant, run)| {
            numbers
                .get(&((*tenant).to_owned(), (*run).to_owned()))
                .copied()
        })
        .collect::<Option<_>>()
        .ok_or(sqlx::Error::RowNotFound)?;
    let mut decision = Decision::default();
    // Ranges still to do, the next one last.
    let whole = 0..prepared.records.len();
    let mut ranges = vec![whole];
    while let Some(range) = ranges.pop() {
        let is_over = until.is_some_and(|until| until <= Instant::now());
        if is_over && !decision.outcomes.is_empty() {
            break;
        }
        transaction.run("SAVEPOINT part").await?;
        match try_range(
            transaction.connection(),
            stream_id,
            prepared,
            &run_nos,
            range.clone(),
            persisted_at,
        )
        .await
        {
            Ok(part) => {
                transaction.run("RELEASE SAVEPOINT part").await?;
                decision.append(part);
            }
            Err(error) => {
                let (class, error) = match error {
                    InsertError::Sql(error) => (classify(&error), error),
                    // The runs are locked and their heads were read under the lock: not this code's
                    // doing, but a trigger's that swallows an event, say.
                    InsertError::Hole => (FaultClass::Unlisted, not_inserted()),
                };
                if !matches!(class, FaultClass::Record | FaultClass::Unlisted) {
                    return Err(error.into());
                }
                transaction.run("ROLLBACK TO SAVEPOINT part").await?;
                if range.len() > 1 {
                    let middle = range.start + range.len() / 2;
                    ranges.push(middle..range.end);
                    ranges.push(range.start..middle);
                } else {
                    decision.append(refused(prepared, range, class, error)?);
                }
            }
        }
    }
    Ok(decision)
}

fn not_inserted() -> sqlx::Error {
    sqlx::Error::Protocol(
        "the database does not insert the event, or a locked run does not continue in the log (runSeq or chain)"
            .to_owned(),
    )
}

/// The one record that the database refuses.
fn refused<'b>(
    prepared: &Prepared<'b>,
    range: Range<usize>,
    class: FaultClass,
    error: sqlx::Error,
) -> Result<Decision<'b>, AppendError> {
    let record = &prepared.records[range.start];
    let (FaultClass::Record, Some(event)) = (class, record.event) else {
        return Err(AppendError::Fault {
            class,
            offset: Some(record.record.offset),
            source: error,
        });
    };
    let text = error
        .as_database_error()
        .map_or_else(|| error.to_string(), |e| e.message().to_owned());
    let rejection = unstorable(
        event.event,
        &format!("the database refuses the event: {text}"),
    );
    let mut decision = Decision::default();
    let outcome = Outcome::DeadLetter(rejection.reason);
    decision.reject(record.record, rejection, outcome);
    Ok(decision)
}

async fn try_range<'b>(
    connection: &mut PgConnection,
    stream_id: i64,
    prepared: &Prepared<'b>,
    run_nos: &[i64],
    range: Range<usize>,
    persisted_at: DateTime<Utc>,
) -> Result<Decision<'b>, InsertError> {
    let events: Vec<PreparedEvent<'_>> = prepared.records[range.clone()]
        .iter()
        .filter_map(|r| r.event)
        .collect();
    let mut heads = known::run_heads(connection, run_nos).await?;
    let known: Vec<KnownRun> = run_nos
        .iter()
        .map(|run_no| heads.remove(run_no).unwrap_or(KnownRun::empty(*run_no)))
        .collect();
    let mut runs: Vec<StagedRun<'_>> = known.iter().map(StagedRun::new).collect();
    known::complete_keys(connection, events.iter().copied(), &mut runs).await?;
    let event_ids: Vec<Uuid> = events.iter().map(|e| e.event.event_id).collect();
    let used_ids: HashSet<Uuid> = known::used_event_ids(connection, &event_ids).await?;
    let mut decision = decide(prepared, range, &mut runs, &used_ids, persisted_at);
    insert::events(connection, stream_id, persisted_at, &mut decision.events).await?;
    Ok(decision)
}
