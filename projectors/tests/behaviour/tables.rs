//! All that the tables of a projection's version hold, whichever tables those are.

use runlog_projectors::verify;
use sqlx::AssertSqlSafe;

use crate::support::Database;

/// The tables of a version, by the schema that they are in.
async fn tables(database: &Database, schema: &str) -> Vec<verify::Table> {
    let mut connection = database.pool.acquire().await.unwrap();
    let tables = verify::tables(&mut connection, schema).await.unwrap();
    assert!(!tables.is_empty(), "{schema} has no tables");
    tables
}

/// The rows of all tables as text, made of these columns of each.
async fn all(
    database: &Database,
    schema: &str,
    columns: impl Fn(&verify::Table) -> String,
) -> Vec<String> {
    let mut rows = Vec::new();
    for table in tables(database, schema).await {
        let (name, columns) = (&table.name, columns(&table));
        let sql =
            format!("SELECT '{name} ' || ROW({columns})::text FROM {schema}.{name} ORDER BY 1");
        let found = sqlx::query_scalar::<_, String>(AssertSqlSafe(sql));
        rows.extend(found.fetch_all(&database.pool).await.unwrap());
    }
    rows
}

/// Every row, every column but projected_at.
pub(crate) async fn rows(database: &Database, schema: &str) -> Vec<String> {
    all(database, schema, |table| table.columns.clone()).await
}

/// Every row, and when it was written: it differs as soon as one is written again as it was.
pub(crate) async fn as_written(database: &Database, schema: &str) -> Vec<String> {
    all(database, schema, |table| {
        format!("{}, projected_at", table.columns)
    })
    .await
}

/// The sum of the rows as [`verify::Verified::digest`] defines it: of all tables of a version, or of
/// those alone that are verified run by run.
pub(crate) async fn digest(database: &Database, schema: &str, only_of_runs: bool) -> u64 {
    digest_through(database, schema, schema, only_of_runs).await
}

/// The digest of a version's tables as the views show them.
pub(crate) async fn digest_shown(database: &Database, schema: &str) -> u64 {
    digest_through(database, schema, "read_model", false).await
}

async fn digest_through(
    database: &Database,
    schema: &str,
    shown_in: &str,
    only_of_runs: bool,
) -> u64 {
    let mut transaction = database.pool.begin().await.unwrap();
    let session = "SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'";
    sqlx::raw_sql(session)
        .execute(&mut *transaction)
        .await
        .unwrap();
    let mut digest = 0_u64;
    for table in tables(database, schema).await {
        if only_of_runs && !table.is_of_runs {
            continue;
        }
        let verify::Table { name, columns, .. } = &table;
        let sql = format!(
            "SELECT mod(coalesce(sum(('x' || left(md5('{name}' || r::text), 16))::bit(64)::bigint::numeric), 0),
                        18446744073709551616)::text
             FROM (SELECT {columns} FROM {shown_in}.{name}) r"
        );
        let sum: String = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_one(&mut *transaction)
            .await
            .unwrap();
        // Between -2^64 and 2^64.
        digest = digest.wrapping_add(sum.parse::<i128>().unwrap() as u64);
    }
    digest
}

/// The table whose rows every batch locks first, with its schema.
pub(crate) async fn per_run(database: &Database, schema: &str) -> String {
    let tables = tables(database, schema).await;
    let table = tables.iter().find(|table| table.is_per_run).unwrap();
    format!("{schema}.{}", table.name)
}

/// Empties the tables.
pub(crate) async fn forget(database: &Database, schema: &str) {
    let tables = tables(database, schema).await;
    let names: Vec<String> = tables
        .iter()
        .map(|table| format!("{schema}.{}", table.name))
        .collect();
    let truncate = format!("TRUNCATE {}", names.join(", "));
    sqlx::raw_sql(AssertSqlSafe(truncate))
        .execute(&database.pool)
        .await
        .unwrap();
}
