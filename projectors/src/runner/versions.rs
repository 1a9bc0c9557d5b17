//! The versions of the projections: the live one, and one that is being built beside it. Read by the
//! coordinator; each is worked on as a projection of its own.
//!
//! A version that is being built follows the live one and never overtakes it, so that both stand at the
//! same place as soon as the live one is held still for a moment: then they can be compared and switched,
//! however much flows.

use sqlx::{FromRow, PgConnection};

use super::checkpoint::CheckpointKey;

/// One version of a projection: its tables are in a schema of their own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, FromRow)]
pub struct Version {
    /// The projection's name.
    pub projection: String,
    /// 1, 2, 3 ...
    pub version: i32,
    /// Whether the public views show it.
    #[sqlx(rename = "live")]
    pub is_live: bool,
}

impl Version {
    /// The schema of its tables, as `read_model.version_schema` calls it. Needs no quotes: names of
    /// projections are lower-case letters, digits and `_`.
    pub fn schema(&self) -> String {
        format!("{}_{}", self.projection, self.version)
    }

    /// Whether it is this version of this projection.
    pub fn is(&self, projection: &str, version: i32) -> bool {
        self.projection == projection && self.version == version
    }

    /// What the metrics and the log call it: the live one by the projection's name.
    pub fn label(&self) -> String {
        if self.is_live {
            self.projection.clone()
        } else {
            format!("{}@{}", self.projection, self.version)
        }
    }
}

/// Those versions of these projections that are kept up to date.
///
/// # Errors
/// The database's.
pub async fn kept(
    connection: &mut PgConnection,
    projections: &[String],
) -> Result<Vec<Version>, sqlx::Error> {
    sqlx::query_as(
        "SELECT projection, version, state = 'live' AS live FROM read_model.projection_version
         WHERE projection = ANY ($1) AND state IN ('live', 'building')
         ORDER BY projection, version",
    )
    .bind(projections)
    .fetch_all(connection)
    .await
}

/// Every version of every projection, those that are kept as they were included.
///
/// # Errors
/// The database's.
pub async fn all(connection: &mut PgConnection) -> Result<Vec<Version>, sqlx::Error> {
    sqlx::query_as(
        "SELECT projection, version, state = 'live' AS live FROM read_model.projection_version
         ORDER BY projection, version",
    )
    .fetch_all(connection)
    .await
}

/// The key of the advisory lock that batches of a version share and [`hold_still`] takes alone; $1 = the
/// version's schema.
macro_rules! key {
    () => {
        "hashtextextended('runlog version ' || $1, 0)"
    };
}
pub(super) use key;

/// Keeps a version as it is until the transaction ends: waits for the batches in flight; the next ones
/// find it held and are tried again. No longer than a moment: people read a version that stands still.
///
/// # Errors
/// The database's; its lock_timeout among them.
pub async fn hold_still(
    transaction: &mut PgConnection,
    version: &Version,
) -> Result<(), sqlx::Error> {
    sqlx::query(concat!("SELECT pg_advisory_xact_lock(", key!(), ")"))
        .bind(version.schema())
        .execute(transaction)
        .await?;
    Ok(())
}

/// How far a version that is being built may read a stream: to where the live one stands. `None` = there
/// is no other live one.
pub(super) async fn limit(
    connection: &mut PgConnection,
    key: &CheckpointKey,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT coalesce(c.next_offset, 0)
         FROM read_model.projection_version v
         LEFT JOIN read_model.projection_checkpoint c
           ON c.projection = v.projection AND c.version = v.version AND c.stream_id = $3
         WHERE v.projection = $1 AND v.version <> $2 AND v.state = 'live'",
    )
    .bind(&key.projection)
    .bind(key.version)
    .bind(key.stream_id)
    .fetch_optional(connection)
    .await
}
