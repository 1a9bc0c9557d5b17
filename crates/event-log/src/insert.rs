//! The statements that write a batch. Called by [`crate::append`] and [`crate::checked`], inside
//! their transaction.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::append::Truncated;
use crate::decide::{Decision, NewDeadLetter, NewEvent};
use crate::known;
use crate::quota::{self, Usage};
use crate::record::{Outcome, Part};
use crate::stream::Claim;

/// One column of the rows, for `unnest`.
macro_rules! column {
    ($from:expr, $of:expr) => {
        $from.iter().map($of).collect::<Vec<_>>()
    };
}

/// Why an insert did not go through.
#[derive(Debug)]
pub(crate) enum InsertError {
    Sql(sqlx::Error),
    /// The events do not continue some run: a hole in its runSeq, or another chain than the log's.
    Hole,
}

impl From<sqlx::Error> for InsertError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

/// Numbers the runs that are new; returns (tenant, run) -> run_no for those alone.
pub(crate) async fn new_runs(
    connection: &mut PgConnection,
    runs: &[(&str, &str)],
) -> Result<HashMap<(String, String), i64>, sqlx::Error> {
    known::run_numbers(connection, include_str!("sql/insert_runs.sql"), runs).await
}

/// Inserts all events in one statement.
pub(crate) async fn events(
    connection: &mut PgConnection,
    stream_id: i64,
    persisted_at: DateTime<Utc>,
    events: &mut [NewEvent<'_>],
) -> Result<(), InsertError> {
    if events.is_empty() {
        return Ok(());
    }
    // One order for all writers: two that insert into the same runs wait for each other once.
    events.sort_by_key(|e| (e.run_no, e.run_seq));
    let payload = |e: &NewEvent<'_>| e.event.payload.as_ref().map(json_text);
    let firsts = events
        .chunk_by(|a, b| a.run_no == b.run_no)
        .map(|of_run| &of_run[0]);
    let (runs, chains_before): (Vec<i64>, Vec<&[u8]>) = firsts
        .map(|first| (first.run_no, first.previous_chain.0.as_slice()))
        .unzip();
    let inserted = sqlx::query(include_str!("sql/insert_events.sql"))
        .bind(stream_id)
        .bind(persisted_at)
        .bind(column!(events, |e| e.run_no))
        .bind(column!(events, |e| e.run_seq))
        .bind(column!(events, |e| e.source_offset))
        .bind(column!(events, |e| e.event.emitted_at.to_datetime()))
        .bind(column!(events, |e| -> Uuid { e.event.event_id }))
        .bind(column!(events, |e| e.event.engine_attempt_id))
        .bind(column!(events, |e| e.event.logical_attempt_id))
        .bind(column!(events, |e| e.event.idempotency_key.0.as_slice()))
        .bind(column!(events, |e| e.content.0.as_slice()))
        .bind(column!(events, |e| e.chain.0.as_slice()))
        .bind(column!(events, |e| e.event.tenant_id.as_str()))
        .bind(column!(events, |e| e.event.event_type.as_str()))
        .bind(column!(events, |e| e.event.project_id.as_str()))
        .bind(column!(events, |e| e.event.environment_id.as_str()))
        .bind(column!(events, |e| e.event.plan_id.as_str()))
        .bind(column!(events, |e| e.event.plan_version.as_str()))
        .bind(column!(events, |e| e.event.step_id.as_deref()))
        .bind(column!(events, payload))
        .bind(runs)
        .bind(chains_before)
        .execute(connection)
        .await?
        .rows_affected();
    if inserted == events.len() as u64 {
        Ok(())
    } else {
        Err(InsertError::Hole)
    }
}

/// What the pending dead letters of these letters' tenants take, and those of the topic that have none.
async fn usage(
    connection: &mut PgConnection,
    topic: &str,
    letters: &[NewDeadLetter<'_>],
) -> Result<Usage, sqlx::Error> {
    let tenants = letters
        .iter()
        .filter_map(|l| quota::storable(&l.rejection.tenant_id));
    let tenants: BTreeSet<&str> = tenants.collect();
    let rows: Vec<(Option<String>, i64)> =
        sqlx::query_as(include_str!("sql/dead_letter_usage.sql"))
            .bind(tenants.into_iter().collect::<Vec<_>>())
            .bind(topic)
            .fetch_all(connection)
            .await?;
    Ok(rows.into_iter().collect())
}

/// Inserts all dead letters in one statement, with as many of their bytes as the quota lets in.
/// Returns how many had to be cut, by tenant.
pub(crate) async fn dead_letters(
    connection: &mut PgConnection,
    claim: &Claim,
    received_at: DateTime<Utc>,
    letters: &[NewDeadLetter<'_>],
    quota: i64,
) -> Result<Truncated, sqlx::Error> {
    if letters.is_empty() {
        return Ok(Truncated::new());
    }
    let used = usage(connection, &claim.topic, letters).await?;
    let kept = quota::keep(letters, used, quota);
    let added = quota::added(&kept);
    sqlx::query(include_str!("sql/insert_dead_letters.sql"))
        .bind(claim.stream_id)
        .bind(received_at)
        .bind(column!(letters, |l| l.record.offset))
        .bind(column!(kept, |k| k.tenant_id))
        .bind(column!(kept, |k| k.run_id))
        .bind(column!(letters, |l| l.rejection.reason.as_str()))
        .bind(column!(letters, |l| l.rejection.detail.as_str()))
        .bind(column!(kept, |k| k.key))
        .bind(column!(kept, |k| k.value))
        .bind(column!(kept, |k| k.headers.as_str()))
        .bind(column!(kept, |k| k.value_bytes))
        .bind(column!(kept, |k| k
            .value_digest
            .as_ref()
            .map(|d| d.as_slice())))
        .bind(column!(kept, |k| k.truncated))
        .bind(column!(added, |(tenant, _)| tenant.as_deref()))
        .bind(column!(added, |(_, bytes)| *bytes))
        .execute(connection)
        .await?;
    Ok(quota::truncated(&kept))
}

/// Notes tenants that have something in the stream: what an analyst may know of it hangs on that.
pub(crate) async fn stream_tenants(
    connection: &mut PgConnection,
    stream_id: i64,
    tenants: &[&str],
) -> Result<(), sqlx::Error> {
    sqlx::query(include_str!("sql/insert_stream_tenants.sql"))
        .bind(stream_id)
        .bind(tenants)
        .execute(connection)
        .await?;
    Ok(())
}

/// Books the part in the ledger and moves the stored offset.
pub(crate) async fn advance(
    connection: &mut PgConnection,
    stream_id: i64,
    part: Part<'_>,
    decision: &Decision<'_>,
    persisted_at: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    let count =
        |is: fn(&Outcome) -> bool| decision.outcomes.iter().filter(|o| is(o)).count() as i64;
    let last = part.records.last();
    sqlx::query(include_str!("sql/advance_stream.sql"))
        .bind(stream_id)
        .bind(part.end)
        .bind(count(|o| matches!(o, Outcome::Appended { .. })))
        .bind(count(|o| matches!(o, Outcome::Duplicate(_))))
        .bind(count(|o| {
            matches!(o, Outcome::Conflict(_) | Outcome::DeadLetter(_))
        }))
        .bind(part.skipped)
        .bind(last.map(|r| r.offset))
        .bind(last.map(|r| r.digest().to_vec()))
        .bind(persisted_at)
        .execute(connection)
        .await?;
    Ok(())
}

fn json_text(value: &impl Serialize) -> String {
    // A map with text keys and finite numbers always serialises.
    serde_json::to_string(value).unwrap_or_default()
}
