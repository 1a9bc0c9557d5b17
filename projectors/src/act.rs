//! What the acts of operators on many runs share: the live version's tables, empty, to compute in, and the transaction's end.
//! Used by [`crate::retention`] and [`crate::erasure`].

use sqlx::PgConnection;

use crate::projection::ProjectionError;
use crate::runner::versions;
use crate::verify::Scratch;

/// Makes the tables of the projection's live version, empty, for this connection; `None` = it has none.
pub(crate) async fn scratch_of(
    connection: &mut PgConnection,
    projection: &str,
) -> Result<Option<Scratch>, sqlx::Error> {
    let versions = versions::kept(connection, &[projection.to_owned()]).await?;
    match versions.iter().find(|version| version.is_live) {
        Some(live) => Ok(Some(Scratch::make(connection, &live.schema()).await?)),
        None => Ok(None),
    }
}

/// Ends the transaction of an act: commits what is done, rolls back what has failed.
pub(crate) async fn end(
    connection: &mut PgConnection,
    act: Result<i64, ProjectionError>,
) -> Result<i64, ProjectionError> {
    let end = if act.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = sqlx::raw_sql(end).execute(connection).await;
    let act = act?;
    ended.map_err(ProjectionError::while_doing("cannot commit"))?;
    Ok(act)
}
