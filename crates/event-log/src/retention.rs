//! Retention, the log's side: which runs can be retired, and the act itself, which is a function of the database's owner
//! (`event_log.retire_runs`, migration 0013). Called by `runlog_projectors::retention`, which owns the transaction.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection};

use crate::generation::Operator;
use crate::known;

/// A run that somebody would like to retire.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Candidate {
    /// Its number.
    pub run_no: i64,
    /// runSeq of its last event; `None` = it has none.
    pub head_seq: Option<i64>,
    /// When that was persisted.
    pub last_persisted_at: Option<DateTime<Utc>>,
    /// What keeps it from being retired now, in words; `None` = nothing.
    pub obstacle: Option<String>,
}

/// The numbers of these runs (tenant, run), of those that the log knows.
///
/// # Errors
/// The database's.
pub async fn numbers(
    connection: &mut PgConnection,
    runs: &[(&str, &str)],
) -> Result<Vec<i64>, sqlx::Error> {
    let numbers = known::run_numbers(connection, include_str!("sql/run_numbers.sql"), runs).await?;
    Ok(numbers.into_values().collect())
}

/// Looks the runs with these numbers up, in their order.
///
/// # Errors
/// The database's.
pub async fn candidates(
    connection: &mut PgConnection,
    run_nos: &[i64],
) -> Result<Vec<Candidate>, sqlx::Error> {
    sqlx::query_as(
        "SELECT run_no, head_seq, last_persisted_at, obstacle FROM event_log.retirable($1) ORDER BY run_no",
    )
    .bind(run_nos)
    .fetch_all(connection)
    .await
}

/// Retires runs (number, last runSeq), all of them or none, in the caller's transaction, which is to be at READ COMMITTED,
/// to have a short lock_timeout, and to be committed at once: nothing is appended meanwhile. `sums` is the JSON that
/// `event_log.retire_runs` describes. Returns the act's number in `event_log.audit`.
///
/// # Errors
/// The database's: 55P03 = somebody holds what it needs, 55006 = a rebuild is under way, 55000 = a run cannot be
/// retired (any more).
pub async fn retire(
    connection: &mut PgConnection,
    runs: &[(i64, i64)],
    sums: &str,
    by: Operator<'_>,
) -> Result<i64, sqlx::Error> {
    let (run_nos, head_seqs): (Vec<i64>, Vec<i64>) = runs.iter().copied().unzip();
    sqlx::query_scalar("SELECT event_log.retire_runs($1, $2, $3::jsonb, $4, $5)")
        .bind(run_nos)
        .bind(head_seqs)
        .bind(sums)
        .bind(by.name)
        .bind(by.reason)
        .fetch_one(connection)
        .await
}
