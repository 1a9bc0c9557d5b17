//! Empty copies of a version's tables, of one connection's own, and the comparison with the live ones.

use event_log::read::LoggedRun;
use sqlx::{AssertSqlSafe, FromRow, PgConnection};

use super::{TOLD, Verified, counted};

/// The tables of one version.
pub(crate) struct Scratch {
    schema: String,
    /// The names of all of them.
    all: Vec<String>,
    /// Those whose rows belong to runs.
    tables: Vec<Table>,
    /// The one with a row per run, which says how far the run was folded.
    watermark: Option<String>,
}

/// A table of a version.
#[derive(Debug, FromRow)]
pub struct Table {
    /// Its name, in the version's schema.
    pub name: String,
    /// All of its columns but `projected_at`, for a SELECT.
    pub columns: String,
    /// Whether its rows belong to runs.
    pub is_of_runs: bool,
    /// Whether it has a row for each run.
    pub is_per_run: bool,
}

/// The tables in the schema of a version, by name.
///
/// # Errors
/// The database's.
pub async fn tables(
    connection: &mut PgConnection,
    schema: &str,
) -> Result<Vec<Table>, sqlx::Error> {
    sqlx::query_as(
        "SELECT c.relname::text AS name,
                string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum) FILTER (WHERE a.attname <> 'projected_at') AS columns,
                bool_or(a.attname = 'run_id') AS is_of_runs,
                coalesce((SELECT array_agg(k.attname ORDER BY k.attname) = ARRAY['run_id', 'tenant_id']::name[]
                          FROM pg_index i JOIN pg_attribute k ON k.attrelid = c.oid AND k.attnum = ANY (i.indkey)
                          WHERE i.indrelid = c.oid AND i.indisprimary), false) AS is_per_run
         FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         WHERE c.relnamespace = $1::regnamespace AND c.relkind = 'r'
         GROUP BY c.oid, c.relname ORDER BY c.relname",
    )
    .bind(schema)
    .fetch_all(connection)
    .await
}

impl Scratch {
    /// Makes them, as temporary tables: they shadow the live ones where the search path says so.
    pub(crate) async fn make(
        connection: &mut PgConnection,
        schema: &str,
    ) -> Result<Self, sqlx::Error> {
        let (mut of_runs, mut all, mut watermark) = (Vec::new(), Vec::new(), None);
        for table in tables(connection, schema).await? {
            let name = &table.name;
            let statement = format!(
                "CREATE TEMPORARY TABLE {name} (LIKE {schema}.{name} INCLUDING ALL) ON COMMIT DELETE ROWS"
            );
            sqlx::raw_sql(AssertSqlSafe(statement))
                .execute(&mut *connection)
                .await?;
            all.push(name.clone());
            if table.is_per_run {
                watermark = Some(name.clone());
            }
            if table.is_of_runs {
                of_runs.push(table);
            }
        }
        Ok(Self {
            schema: schema.to_owned(),
            all,
            tables: of_runs,
            watermark,
        })
    }

    /// From here on the transaction finds these tables by their names, as a batch finds the live ones.
    pub(crate) async fn enter(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        // The digest is of the rows as text, which must not depend on the session.
        sqlx::raw_sql("SET LOCAL search_path = pg_temp; SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'")
            .execute(connection)
            .await?;
        Ok(())
    }

    /// Empties them, for another fold in the same transaction. As a DELETE: it has the names of temporary tables only.
    pub(crate) async fn empty(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        for name in &self.all {
            let statement = format!("DELETE FROM pg_temp.{name}");
            sqlx::raw_sql(AssertSqlSafe(statement))
                .execute(&mut *connection)
                .await?;
        }
        Ok(())
    }

    /// The names of those whose rows belong to runs.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tables.iter().map(|table| table.name.as_str())
    }

    /// The runSeq that each of the runs has come to in the live table, by run number.
    pub(super) async fn watermarks(
        &self,
        connection: &mut PgConnection,
        runs: &[LoggedRun],
    ) -> Result<Vec<(i64, i64)>, sqlx::Error> {
        self.watermarks_of(connection, &self.schema, runs).await
    }

    /// The same in another version of the projection.
    pub(crate) async fn watermarks_of(
        &self,
        connection: &mut PgConnection,
        schema: &str,
        runs: &[LoggedRun],
    ) -> Result<Vec<(i64, i64)>, sqlx::Error> {
        let Some(table) = &self.watermark else {
            return Ok(Vec::new());
        };
        let statement = format!(
            "SELECT wanted.run_no, t.last_event_seq
             FROM unnest($1::bigint[], $2::text[], $3::text[]) AS wanted (run_no, tenant_id, run_id)
             JOIN {schema}.{table} t ON t.tenant_id = wanted.tenant_id AND t.run_id = wanted.run_id"
        );
        let numbers: Vec<i64> = runs.iter().map(|run| run.run_no).collect();
        let tenants: Vec<&str> = runs.iter().map(|run| run.tenant_id.as_str()).collect();
        let ids: Vec<&str> = runs.iter().map(|run| run.run_id.as_str()).collect();
        sqlx::query_as(AssertSqlSafe(statement))
            .bind(numbers)
            .bind(tenants)
            .bind(ids)
            .fetch_all(connection)
            .await
    }

    /// Compares the rows of these runs, and adds what is found.
    pub(super) async fn compare(
        &self,
        connection: &mut PgConnection,
        runs: &[&LoggedRun],
        verified: &mut Verified,
    ) -> Result<(), sqlx::Error> {
        let tenants: Vec<&str> = runs.iter().map(|run| run.tenant_id.as_str()).collect();
        let ids: Vec<&str> = runs.iter().map(|run| run.run_id.as_str()).collect();
        for Table { name, columns, .. } in &self.tables {
            let of_runs = |table: &str| {
                format!(
                    "SELECT {columns} FROM {table} t
                     WHERE (t.tenant_id, t.run_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))"
                )
            };
            let (fold, live) = (
                of_runs(&format!("pg_temp.{name}")),
                of_runs(&format!("{}.{name}", self.schema)),
            );
            let made = format!(
                "SELECT count(*), NULL::text[],
                        coalesce(sum(('x' || left(md5('{name}' || r::text), 16))::bit(64)::bigint::numeric), 0)::text
                 FROM ({fold}) r"
            );
            let (rows, _, digest) = counted(connection, made, &tenants, &ids).await?;
            verified.rows += rows.unsigned_abs();
            verified.digest = verified.digest.wrapping_add(modulo(&digest));
            for (where_it_is, one, other) in
                [("the fold", &fold, &live), ("the read model", &live, &fold)]
            {
                let differing = format!(
                    "WITH lone AS ({one} EXCEPT ALL {other})
                     SELECT count(*), (SELECT array_agg(l::text) FROM (SELECT * FROM lone LIMIT {TOLD}) l), ''
                     FROM lone"
                );
                let (count, some, _) = counted(connection, differing, &tenants, &ids).await?;
                verified.differences += count.unsigned_abs();
                let lines = some.unwrap_or_default().into_iter();
                verified
                    .lines
                    .extend(lines.map(|row| format!("{name}: only in {where_it_is}: {row}")));
            }
        }
        Ok(())
    }
}

/// A whole number of any size, modulo 2^64.
fn modulo(number: &str) -> u64 {
    let digits = number.trim_start_matches('-').bytes();
    let value = digits.fold(0_u64, |value, digit| {
        value
            .wrapping_mul(10)
            .wrapping_add(u64::from(digit.wrapping_sub(b'0')))
    });
    if number.starts_with('-') {
        value.wrapping_neg()
    } else {
        value
    }
}

#[cfg(test)]
mod tests {
    use super::modulo;

    #[test]
    fn sums_wrap_around_as_64_bits_do() {
        assert_eq!(modulo("0"), 0);
        assert_eq!(modulo("18446744073709551617"), 1);
        assert_eq!(modulo("-1"), u64::MAX);
        assert_eq!(modulo("-18446744073709551620").wrapping_add(modulo("6")), 2);
    }
}
