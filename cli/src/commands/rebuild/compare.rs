//! Compares two versions of a projection, row by row, in one snapshot of the database.
//!
//! Where both have come equally far in every stream, all of their rows must be the same. Under load
//! such a moment has to be met: it is waited for.

use std::time::Duration;

use anyhow::Context as _;
use runlog_projectors::verify::{Table, tables};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use super::Versions;
use crate::database::failed;
use crate::format::count;
use crate::output::note;

/// How long it is looked for a moment at which both versions stand at the same place.
const MOMENTS: u32 = 600;
/// How long it is waited for the next one.
const PAUSE: Duration = Duration::from_millis(100);
/// Differences that are told of each table.
const TOLD: i64 = 10;

/// What the comparison found.
#[derive(Debug, Default)]
pub(super) struct Compared {
    pub(super) rows: i64,
    pub(super) differences: i64,
    lines: Vec<String>,
}

impl Compared {
    /// Says how the versions differ, and the way out.
    pub(super) fn tell(&self, versions: &Versions) {
        for line in &self.lines {
            note(line);
        }
        note(format!(
            "{} rows of version {} differ from version {}, which is still read. Where the old one is wrong, \
             `runlog rebuild {} --accept-differences` switches; where the new one is, \
             `runlog rebuild {} --drop {}` removes it.",
            count(self.differences),
            versions.new,
            versions.live,
            versions.projection,
            versions.projection,
            versions.new
        ));
    }
}

/// Compares all tables.
///
/// # Errors
/// The database's, or that no moment was met at which both versions stood at the same place.
pub(super) async fn run(pool: &PgPool, versions: &Versions) -> anyhow::Result<Compared> {
    for _ in 0..MOMENTS {
        let mut connection = pool.acquire().await.context("no connection")?;
        if let Some(compared) = at_one_moment(&mut connection, versions)
            .await
            .map_err(|error| failed(error, "compare the versions"))?
        {
            return Ok(compared);
        }
        drop(connection);
        tokio::time::sleep(PAUSE).await;
    }
    anyhow::bail!(
        "version {} never stood where version {} did for a whole minute: the projectors cannot keep up with both; \
         run this again when there is less to do",
        versions.new,
        versions.live
    )
}

/// `None` = the versions stand at different places.
async fn at_one_moment(
    connection: &mut PgConnection,
    versions: &Versions,
) -> Result<Option<Compared>, sqlx::Error> {
    use sqlx::Connection as _;
    let mut snapshot = connection
        .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await?;
    let is_equal: bool = sqlx::query_scalar(
        "SELECT NOT EXISTS (
           SELECT FROM (SELECT * FROM read_model.projection_checkpoints WHERE projection = $1 AND version = $2) a
           FULL JOIN (SELECT * FROM read_model.projection_checkpoints WHERE projection = $1 AND version = $3) b
             USING (topic, partition, generation)
           WHERE a.next_offset IS DISTINCT FROM b.next_offset)",
    )
    .bind(&versions.projection)
    .bind(versions.live)
    .bind(versions.new)
    .fetch_one(&mut *snapshot)
    .await?;
    if !is_equal {
        return Ok(None);
    }
    let [live, new] = versions.schemas();
    let mut compared = Compared::default();
    for Table { name, columns, .. } in tables(&mut snapshot, &live).await? {
        let (live, new) = (format!("{live}.{name}"), format!("{new}.{name}"));
        let (rows, digest) = digest(&mut snapshot, &live, &columns).await?;
        compared.rows += rows;
        if (rows, digest) != self::digest(&mut snapshot, &new, &columns).await? {
            let before = compared.differences;
            differences(&mut snapshot, &live, &new, &columns, &mut compared).await?;
            // Two sums that differ over the same rows do not exist.
            compared.differences = compared.differences.max(before + 1);
        }
    }
    Ok(Some(compared))
}

/// How many rows a table has, and the sum of their hashes: the same for the same rows in any order.
async fn digest(
    connection: &mut PgConnection,
    table: &str,
    columns: &str,
) -> Result<(i64, String), sqlx::Error> {
    let statement = format!(
        "SELECT count(*), coalesce(sum(hashtextextended(r.row, 0)::numeric), 0)::text || '/'
                || coalesce(sum(hashtextextended(r.row, 1)::numeric), 0)::text
         FROM (SELECT ROW({columns})::text AS row FROM {table}) r"
    );
    sqlx::query_as(AssertSqlSafe(statement))
        .fetch_one(connection)
        .await
}

/// Counts the rows that are in one table only, and notes some of them.
async fn differences(
    connection: &mut PgConnection,
    live: &str,
    new: &str,
    columns: &str,
    compared: &mut Compared,
) -> Result<(), sqlx::Error> {
    for (only, other) in [(live, new), (new, live)] {
        let statement = format!(
            "WITH lone AS (SELECT {columns} FROM {only} EXCEPT ALL SELECT {columns} FROM {other})
             SELECT count(*), (SELECT array_agg(o::text) FROM (SELECT * FROM lone LIMIT {TOLD}) o) FROM lone"
        );
        let (count, some): (i64, Option<Vec<String>>) = sqlx::query_as(AssertSqlSafe(statement))
            .fetch_one(&mut *connection)
            .await?;
        compared.differences += count;
        let lines = some.unwrap_or_default().into_iter();
        compared
            .lines
            .extend(lines.map(|row| format!("only in {only}: {row}")));
    }
    Ok(())
}
