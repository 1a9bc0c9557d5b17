//! Erasure, the log's side: payloads of runs and what dead letters hold of records are taken away, by functions of the
//! database's owner (migration 0013). Called by `runlog_projectors::erasure`, which owns the transaction.

use sqlx::PgConnection;

use crate::generation::Operator;

/// Up to `limit` runs of a tenant with numbers above `after` that have a payload: the number and the last runSeq of each.
///
/// # Errors
/// The database's.
pub async fn runs_with_payloads(
    connection: &mut PgConnection,
    tenant_id: &str,
    run_id: Option<&str>,
    after: i64,
    limit: i64,
) -> Result<Vec<(i64, i64)>, sqlx::Error> {
    sqlx::query_as(include_str!("sql/runs_with_payloads.sql"))
        .bind(tenant_id)
        .bind(run_id)
        .bind(after)
        .bind(limit)
        .fetch_all(connection)
        .await
}

/// How many dead letters of a tenant, or of one of its runs, were not erased yet.
///
/// # Errors
/// The database's.
pub async fn dead_letters(
    connection: &mut PgConnection,
    tenant_id: &str,
    run_id: Option<&str>,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT count(*) FROM event_log.dead_letter
         WHERE tenant_id = $1 AND ($2::text IS NULL OR run_id = $2) AND erased_at IS NULL",
    )
    .bind(tenant_id)
    .bind(run_id)
    .fetch_one(connection)
    .await
}

/// Erases the payloads of runs, in the caller's transaction, which is to rewrite what read models made of them. Returns the
/// act's number in `event_log.audit`.
///
/// # Errors
/// The database's.
pub async fn erase_payloads(
    connection: &mut PgConnection,
    runs: &[i64],
    by: Operator<'_>,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT event_log.erase_payloads($1, $2, $3)")
        .bind(runs)
        .bind(by.name)
        .bind(by.reason)
        .fetch_one(connection)
        .await
}

/// Erases what the dead letters of a tenant, or of one of its runs, hold of the records. Returns the act's number in
/// `event_log.audit` and how many they were; `None` = there was nothing to erase.
///
/// # Errors
/// The database's.
pub async fn erase_dead_letters(
    connection: &mut PgConnection,
    tenant_id: &str,
    run_id: Option<&str>,
    by: Operator<'_>,
) -> Result<Option<(i64, i64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT audit_id, dead_letters FROM event_log.erase_dead_letters($1, $2, $3, $4)",
    )
    .bind(tenant_id)
    .bind(run_id)
    .bind(by.name)
    .bind(by.reason)
    .fetch_optional(connection)
    .await
}
