//! The versions of the projections: the live one, and one that is being built beside it. Read by the
//! coordinator; each is worked on as a projection of its own.

use sqlx::{FromRow, PgConnection};

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
