//! Compares two versions of a projection, row by row, in one snapshot of the database.
//!
//! Where both have come equally far in every stream, all of their rows must be the same. The snapshot is
//! taken at such a moment ([`hold`]); then both go on.

use runlog_projectors::verify::{Table, tables};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool, Postgres, Transaction};

use super::{Versions, hold};
use crate::database::failed;
use crate::format::count;
use crate::output::note;

/// Differences that are told of each table.
const TOLD: i64 = 10;

/// What the comparison found.
#[derive(Debug, Default)]
pub(super) struct Compared {
    pub(super) rows: i64,
    pub(super) differences: i64,
    /// Runs that were left out.
    pub(super) parked: i64,
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
/// The database's.
pub(super) async fn run(pool: &PgPool, versions: &Versions) -> anyhow::Result<Compared> {
    loop {
        let mut connection = pool
            .acquire()
            .await
            .map_err(|error| failed(error, "compare the versions"))?;
        let held = hold::at_one_place(pool, versions).await?;
        let compared = at_one_moment(&mut connection, held, versions).await;
        if let Some(compared) = compared.map_err(|error| failed(error, "compare the versions"))? {
            return Ok(compared);
        }
    }
}

/// `None` = a stream was added in between.
async fn at_one_moment(
    connection: &mut PgConnection,
    held: Transaction<'static, Postgres>,
    versions: &Versions,
) -> Result<Option<Compared>, sqlx::Error> {
    let mut snapshot = connection
        .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await?;
    // The first statement takes the snapshot.
    let is_equal = hold::are_at_one_place(&mut snapshot, versions).await?;
    held.rollback().await?;
    if !is_equal {
        return Ok(None);
    }
    let (live, new) = (versions.live().schema(), versions.new_one().schema());
    let mut compared = Compared {
        parked: sqlx::query_scalar(PARKED)
            .bind(&versions.projection)
            .fetch_one(&mut *snapshot)
            .await?,
        ..Compared::default()
    };
    for table in tables(&mut snapshot, &live).await? {
        let (live, new) = (
            rows_of(&live, &table, versions),
            rows_of(&new, &table, versions),
        );
        let (rows, digest) = digest(&mut snapshot, &live, &table.columns).await?;
        compared.rows += rows;
        if (rows, digest) != self::digest(&mut snapshot, &new, &table.columns).await? {
            let before = compared.differences;
            differences(&mut snapshot, [&live, &new], &table.columns, &mut compared).await?;
            // Two sums that differ over the same rows do not exist.
            compared.differences = compared.differences.max(before + 1);
        }
    }
    Ok(Some(compared))
}

/// Runs that either version has parked: how far their rows have come depends on what was read first.
const PARKED: &str =
    "SELECT count(DISTINCT (tenant_id, run_id)) FROM read_model.parked_run WHERE projection = $1";

/// What is compared of a table.
struct Rows {
    /// As people know it.
    name: String,
    /// For FROM.
    source: String,
}

fn rows_of(schema: &str, table: &Table, versions: &Versions) -> Rows {
    let name = format!("{schema}.{}", table.name);
    let source = if table.is_of_runs {
        // Names of projections are lower-case letters, digits and `_`.
        format!(
            "(SELECT * FROM {name} t WHERE NOT EXISTS (
               SELECT FROM read_model.parked_run p
               WHERE p.projection = '{}' AND p.tenant_id = t.tenant_id AND p.run_id = t.run_id)) AS compared",
            versions.projection
        )
    } else {
        name.clone()
    };
    Rows { name, source }
}

/// How many rows a table has, and the sum of their hashes: the same for the same rows in any order.
async fn digest(
    connection: &mut PgConnection,
    rows: &Rows,
    columns: &str,
) -> Result<(i64, String), sqlx::Error> {
    let source = &rows.source;
    let statement = format!(
        "SELECT count(*), coalesce(sum(hashtextextended(r.row, 0)::numeric), 0)::text || '/'
                || coalesce(sum(hashtextextended(r.row, 1)::numeric), 0)::text
         FROM (SELECT ROW({columns})::text AS row FROM {source}) r"
    );
    sqlx::query_as(AssertSqlSafe(statement))
        .fetch_one(connection)
        .await
}

/// Counts the rows that are in one table only, and notes some of them.
async fn differences(
    connection: &mut PgConnection,
    [live, new]: [&Rows; 2],
    columns: &str,
    compared: &mut Compared,
) -> Result<(), sqlx::Error> {
    for (only, other) in [(live, new), (new, live)] {
        let statement = format!(
            "WITH lone AS (SELECT {columns} FROM {} EXCEPT ALL SELECT {columns} FROM {})
             SELECT count(*), (SELECT array_agg(o::text) FROM (SELECT * FROM lone LIMIT {TOLD}) o) FROM lone",
            only.source, other.source
        );
        let (count, some): (i64, Option<Vec<String>>) = sqlx::query_as(AssertSqlSafe(statement))
            .fetch_one(&mut *connection)
            .await?;
        compared.differences += count;
        let lines = some.unwrap_or_default().into_iter();
        compared
            .lines
            .extend(lines.map(|row| format!("only in {}: {row}", only.name)));
    }
    Ok(())
}
