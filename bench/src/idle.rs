//! (f) What everything costs when nothing comes. Called by `compare`, with the programs of `latency`
//! when they have caught up.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::Serialize;
use sqlx::{Connection, PgConnection};

use crate::latency::Pipeline;
use crate::meter::Meter;
use crate::stack::Stack;

/// Costs per second of doing nothing.
#[derive(Debug, Serialize)]
pub(crate) struct Idle {
    /// How long it was measured, in seconds.
    pub(crate) seconds: f64,
    /// CPU seconds per second of ingest.
    pub(crate) ingest_cpu: f64,
    /// CPU seconds per second of the projectors.
    pub(crate) projectors_cpu: f64,
    /// CPU seconds per second of PostgreSQL; `None` where it cannot be seen.
    pub(crate) postgres_cpu: Option<f64>,
    /// CPU seconds per second of Kafka; `None` where it cannot be seen.
    pub(crate) kafka_cpu: Option<f64>,
    /// Bytes of write-ahead log per second, of the whole cluster.
    pub(crate) wal_bytes: f64,
    /// Transactions per second, by pg_stat_database.
    pub(crate) transactions: f64,
    /// Statements per second by pg_stat_statements, without BEGIN, COMMIT and ROLLBACK; the most
    /// frequent first; `None` where that extension is not there.
    pub(crate) statements: Option<Vec<(String, f64)>>,
}

impl Idle {
    /// All statements per second.
    pub(crate) fn statements_per_second(&self) -> Option<f64> {
        let statements = self.statements.as_ref()?;
        Some(statements.iter().map(|(_, rate)| rate).sum())
    }
}

/// Measures for so many seconds. The figures are read over a connection to another database.
///
/// # Errors
/// Where a program or a server fails.
pub(crate) async fn measure(
    stack: &Stack,
    pipeline: &mut Pipeline,
    seconds: u32,
) -> anyhow::Result<Idle> {
    // Else autovacuum would do it meanwhile, or not, by chance.
    sqlx::raw_sql("VACUUM (ANALYZE)")
        .execute(&mut pipeline.database.connection)
        .await?;
    let mut beside = PgConnection::connect(&stack.database_url).await?;
    let name = pipeline.database.name.clone();
    let begun = Instant::now();
    let (transactions, calls) = counters(&mut beside, &name).await?;
    let meter = Meter::read(stack, &mut beside).await?;
    let before = pipeline.cpu()?;
    // What is measured is time that passes.
    tokio::time::sleep(Duration::from_secs(u64::from(seconds))).await;
    let after = pipeline.cpu()?;
    let servers = meter.since(stack, &mut beside).await?;
    let (transactions_after, calls_after) = counters(&mut beside, &name).await?;
    for program in &mut pipeline.programs {
        program.check()?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let statements = calls.zip(calls_after).map(|(before, after)| {
        let more = |(text, calls): (String, i64)| {
            let more = calls - before.get(&text).copied().unwrap_or_default();
            (more > 0).then(|| (text, more as f64 / seconds))
        };
        let mut statements: Vec<(String, f64)> = after.into_iter().filter_map(more).collect();
        statements.sort_by(|a, b| b.1.total_cmp(&a.1));
        statements
    });
    Ok(Idle {
        seconds,
        ingest_cpu: (after[0] - before[0]) / seconds,
        projectors_cpu: (after[1] - before[1]) / seconds,
        postgres_cpu: servers.postgres_cpu_s.map(|cpu| cpu / seconds),
        kafka_cpu: servers.kafka_cpu_s.map(|cpu| cpu / seconds),
        wal_bytes: servers.wal_bytes as f64 / seconds,
        transactions: (transactions_after - transactions) as f64 / seconds,
        statements,
    })
}

/// The transactions of a database so far, and the calls of each statement in it.
async fn counters(
    connection: &mut PgConnection,
    database: &str,
) -> anyhow::Result<(i64, Option<HashMap<String, i64>>)> {
    let transactions =
        "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = $1";
    let transactions = sqlx::query_scalar(transactions)
        .bind(database)
        .fetch_one(&mut *connection)
        .await?;
    let is_there = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements')";
    if !sqlx::query_scalar(is_there)
        .fetch_one(&mut *connection)
        .await?
    {
        return Ok((transactions, None));
    }
    let calls: Vec<(String, i64)> = sqlx::query_as(include_str!("sql/calls.sql"))
        .bind(database)
        .fetch_all(connection)
        .await?;
    Ok((transactions, Some(calls.into_iter().collect())))
}
