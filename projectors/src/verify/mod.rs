//! Whether the live read models are what a fresh fold of the log gives. Called by `runlog verify` for
//! all runs, and by the runner for a few at a time, always ([`sampler`]).
//!
//! Some runs at a time, in one snapshot of the database: their events, as far as the projection has
//! read them, are applied by the projection itself to empty tables ([`scratch`]), and the rows that it
//! makes there are compared with the live ones. Nothing is kept, and nobody is kept waiting. Tables that
//! are not kept by run (sums over many) are left out: `runlog rebuild` compares those.

mod applied;
pub(crate) mod sampler;
mod scratch;

use event_log::read::{LoggedRun, events_of_runs, last_read, runs_between};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::projection::{Projection, ProjectionError};
use crate::runner::versions::Version;
pub use applied::applied;
pub(crate) use scratch::Scratch;
pub use scratch::{Table, tables};

/// Events that are applied at once.
const PAGE: i64 = 2_000;
/// Differences that are told of each table and batch of runs.
const TOLD: i64 = 10;

/// What was found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Runs that were compared.
    pub runs: u64,
    /// Events that they are made of.
    pub events: u64,
    /// Rows that the fold made.
    pub rows: u64,
    /// Rows that are only in the fold, or only in the read model.
    pub differences: u64,
    /// Some of them, for people.
    pub lines: Vec<String>,
    /// The sum of the rows that the fold made, each as the first 64 bits of the MD5 of its table's name
    /// and its text, modulo 2^64: the same for the same rows in any order and of any batches.
    pub digest: u64,
}

impl Verified {
    /// Adds what another batch of runs gave.
    pub fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.events += other.events;
        self.rows += other.rows;
        self.differences += other.differences;
        self.digest = self.digest.wrapping_add(other.digest);
        self.lines.extend(other.lines);
    }
}

/// Verifies one version of a projection.
pub struct Verifier {
    scratch: Scratch,
    version: Version,
}

impl Verifier {
    /// Makes the empty tables, which belong to this connection until `DISCARD TEMP`.
    ///
    /// # Errors
    /// The database's.
    pub async fn new(connection: &mut PgConnection, version: Version) -> Result<Self, sqlx::Error> {
        let scratch = Scratch::make(connection, &version.schema()).await?;
        Ok(Self { scratch, version })
    }

    /// Compares the runs with numbers above `after` and up to `to`, over the connection of [`Verifier::new`].
    ///
    /// # Errors
    /// The projection's, or the database's. The connection is to be given up then.
    pub async fn runs(
        &self,
        connection: &mut PgConnection,
        projection: &dyn Projection,
        after: i64,
        to: i64,
    ) -> Result<Verified, ProjectionError> {
        let doing = ProjectionError::while_doing;
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ";
        sqlx::raw_sql(begin)
            .execute(&mut *connection)
            .await
            .map_err(doing("cannot begin a transaction"))?;
        let verified = self.in_snapshot(connection, projection, after, to).await?;
        sqlx::raw_sql("ROLLBACK")
            .execute(connection)
            .await
            .map_err(doing("cannot roll back"))?;
        Ok(verified)
    }

    async fn in_snapshot(
        &self,
        connection: &mut PgConnection,
        projection: &dyn Projection,
        after: i64,
        to: i64,
    ) -> Result<Verified, ProjectionError> {
        let doing = ProjectionError::while_doing;
        let runs = runs_between(connection, after, to).await;
        let runs = runs.map_err(doing("cannot read the log's runs"))?;
        let runs = read_by(connection, &self.version, &self.scratch, runs).await;
        let runs = runs.map_err(doing("cannot see how far the projection has come"))?;
        self.scratch
            .enter(connection)
            .await
            .map_err(doing("cannot prepare the transaction"))?;
        let mut verified = Verified {
            runs: runs.len() as u64,
            ..Verified::default()
        };
        let wanted: Vec<(i64, i64)> = runs.iter().map(|(run, seq)| (run.run_no, *seq)).collect();
        let mut place = (0, 0);
        loop {
            let page = events_of_runs(connection, &wanted, place, PAGE).await;
            let page = page.map_err(doing("cannot read the runs' events"))?;
            let Some(last) = page.last() else { break };
            place = (last.run_no, last.logged.run_seq);
            verified.events += page.len() as u64;
            projection.apply(connection, &page).await?;
        }
        let names: Vec<&LoggedRun> = runs.iter().map(|(run, _)| run).collect();
        self.scratch
            .compare(connection, &names, &mut verified)
            .await
            .map_err(doing("cannot compare the rows"))?;
        Ok(verified)
    }
}

/// The runs of which the projection has read something, with the runSeq that it has come to or ought to
/// have come to. Parked ones are left out.
async fn read_by(
    connection: &mut PgConnection,
    version: &Version,
    scratch: &Scratch,
    runs: Vec<LoggedRun>,
) -> Result<Vec<(LoggedRun, i64)>, sqlx::Error> {
    let places: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT stream_id, next_offset FROM read_model.projection_checkpoint
         WHERE projection = $1 AND version = $2",
    )
    .bind(&version.projection)
    .bind(version.version)
    .fetch_all(&mut *connection)
    .await?;
    let numbers: Vec<i64> = runs.iter().map(|run| run.run_no).collect();
    let parked: Vec<i64> = sqlx::query_scalar(
        "SELECT run_no FROM read_model.parked_run
         WHERE projection = $1 AND version = $2 AND run_no = ANY ($3)",
    )
    .bind(&version.projection)
    .bind(version.version)
    .bind(&numbers)
    .fetch_all(&mut *connection)
    .await?;
    let passed = last_read(connection, &numbers, &places).await?;
    let marks = scratch.watermarks(connection, &runs).await?;
    let last = |run: &LoggedRun| {
        let passed = passed.iter().find(|(no, _)| *no == run.run_no);
        let mark = marks.iter().find(|(no, _)| *no == run.run_no);
        passed.max(mark).map(|(_, seq)| *seq)
    };
    let of_it = runs.into_iter().filter(|run| !parked.contains(&run.run_no));
    Ok(of_it
        .filter_map(|run| last(&run).map(|seq| (run, seq)))
        .collect())
}

/// Runs a statement whose text is made of names from the catalogue.
async fn counted(
    connection: &mut PgConnection,
    statement: String,
    tenants: &[&str],
    runs: &[&str],
) -> Result<(i64, Option<Vec<String>>, String), sqlx::Error> {
    sqlx::query_as(AssertSqlSafe(statement))
        .bind(tenants)
        .bind(runs)
        .fetch_one(connection)
        .await
}
