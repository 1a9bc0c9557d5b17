//! How far the live read model has applied each run. Called by `runlog verify --chain`, which asks the
//! log whether it goes as far.

use event_log::verify::Applied;
use sqlx::PgConnection;

/// Up to `limit` runs of `read_model.run_current` behind (tenant, run), in that order; behind two empty
/// names from the first on.
///
/// # Errors
/// The database's.
pub async fn applied(
    connection: &mut PgConnection,
    after: (&str, &str),
    limit: i64,
) -> Result<Vec<Applied>, sqlx::Error> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT tenant_id, run_id, last_event_seq
         FROM read_model.run_current
         WHERE (tenant_id, run_id) > ($1, $2)
         ORDER BY tenant_id, run_id
         LIMIT $3",
    )
    .bind(after.0)
    .bind(after.1)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let applied = |(tenant_id, run_id, run_seq)| Applied {
        tenant_id,
        run_id,
        run_seq,
    };
    Ok(rows.into_iter().map(applied).collect())
}
