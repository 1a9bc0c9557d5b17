//! What became of a batch that was committed before: the answer to a commit was lost, and the caller
//! asks again. Called by [`crate::append`], under the lock of the stream row.

use std::collections::{HashMap, HashSet};

use run_events::{IdempotencyKey, Reason};
use sqlx::PgConnection;

use crate::decide::Prepared;
use crate::known;
use crate::record::{Original, Outcome, Part};

/// What became of the records of a batch that was committed before.
pub(crate) async fn outcomes(
    connection: &mut PgConnection,
    stream_id: i64,
    part: Part<'_>,
    prepared: &Prepared<'_>,
) -> Result<Vec<Outcome>, sqlx::Error> {
    let rows: Vec<(i64, Option<i64>, Option<String>)> =
        sqlx::query_as(include_str!("sql/committed_outcomes.sql"))
            .bind(stream_id)
            .bind(part.start)
            .bind(part.end)
            .fetch_all(&mut *connection)
            .await?;
    let by_offset: HashMap<i64, (Option<i64>, Option<String>)> = rows
        .into_iter()
        .map(|(offset, seq, reason)| (offset, (seq, reason)))
        .collect();
    let originals = originals(connection, prepared).await?;
    let retired = retired(connection, prepared).await?;
    prepared
        .records
        .iter()
        .map(|record| {
            let original = record
                .event
                .and_then(|e| originals.get(&(e.run, e.event.idempotency_key)).copied());
            let conflict_or = |reason| match (reason, original) {
                (Reason::IdempotencyConflict, Some(original)) => Outcome::Conflict(original),
                (reason, _) => Outcome::DeadLetter(reason),
            };
            match (by_offset.get(&record.record.offset), original) {
                (Some((Some(run_seq), _)), _) => Ok(Outcome::Appended { run_seq: *run_seq }),
                (Some((None, reason)), _) => reason
                    .as_deref()
                    .and_then(Reason::parse)
                    .map(conflict_or)
                    .ok_or(sqlx::Error::RowNotFound),
                (None, Some(original)) => Ok(Outcome::Duplicate(original)),
                // Appended or a duplicate; its run was retired since, and nobody can tell any more.
                (None, None) if record.event.is_some_and(|e| retired.contains(&e.run)) => {
                    Ok(Outcome::DeadLetter(Reason::RunRetired))
                }
                // Committed, and yet neither an event, nor a dead letter, nor a duplicate.
                (None, None) => Err(sqlx::Error::RowNotFound),
            }
        })
        .collect()
}

/// The runs of the batch that were retired, by their index.
async fn retired(
    connection: &mut PgConnection,
    prepared: &Prepared<'_>,
) -> Result<HashSet<usize>, sqlx::Error> {
    let known = known::existing_runs(connection, &prepared.runs).await?;
    let is_retired = |(tenant, run): &(&str, &str)| {
        let known = known.get(&((*tenant).to_owned(), (*run).to_owned()));
        known.is_some_and(|run| run.is_retired)
    };
    let runs = prepared.runs.iter().enumerate();
    Ok(runs
        .filter_map(|(index, run)| is_retired(run).then_some(index))
        .collect())
}

/// The events that the records' keys stand for, by (index of the run, key).
async fn originals(
    connection: &mut PgConnection,
    prepared: &Prepared<'_>,
) -> Result<HashMap<(usize, IdempotencyKey), Original>, sqlx::Error> {
    let numbers = known::run_numbers(
        connection,
        include_str!("sql/run_numbers.sql"),
        &prepared.runs,
    )
    .await?;
    let mut wanted = Vec::new();
    for event in prepared.records.iter().filter_map(|r| r.event) {
        let (tenant, run) = prepared.runs[event.run];
        if let Some(run_no) = numbers.get(&(tenant.to_owned(), run.to_owned())) {
            wanted.push((event.run, *run_no, event.event.idempotency_key));
        }
    }
    let run_nos: Vec<i64> = wanted.iter().map(|w| w.1).collect();
    let keys: Vec<&[u8]> = wanted.iter().map(|w| w.2.0.as_slice()).collect();
    let found: HashMap<(i64, IdempotencyKey), Original> =
        known::known_keys(connection, &run_nos, &keys)
            .await?
            .into_iter()
            .map(|(run_no, key, known)| ((run_no, key), known.original))
            .collect();
    let of = |(run, run_no, key): &(usize, i64, IdempotencyKey)| {
        Some(((*run, *key), *found.get(&(*run_no, *key))?))
    };
    Ok(wanted.iter().filter_map(of).collect())
}
