//! Whether what the migrations made to protect the log still stands: row-level security, and the triggers that keep the log as it
//! is. A superuser can take them down, and a restore can lose them. Called by `runlog doctor`.

use sqlx::PgPool;

/// What is missing, a sentence each; empty = nothing.
///
/// # Errors
/// The database's.
pub async fn missing(pool: &PgPool) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(include_str!("sql/protection.sql"))
        .fetch_all(pool)
        .await
}
