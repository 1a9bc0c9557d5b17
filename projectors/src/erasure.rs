//! Erasure: the payloads of runs leave the log, and the read models become what a fold of the rest gives, in one
//! transaction. Called by `runlog erase`.
//!
//! Every version of every projection is rewritten, those that are read no more included. While one is, it is held still
//! ([`versions::hold_still`]): whatever read a payload before has written what it made of it, and what begins later reads
//! none. The new rows are those that the projection itself makes of the run's events in empty tables of this connection's
//! own ([`Scratch`]), as far as the version has come. Sums over many runs depend on no payload.

use event_log::erasure;
use event_log::generation::Operator;
use event_log::read::{LoggedRun, events_of_runs, runs_of};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::act;
use crate::projection::{self, Projection, ProjectionError};
use crate::runner::versions::{self, Version};
use crate::verify::Scratch;

/// Events that are folded at once.
const PAGE: i64 = 2_000;

/// Of the transaction of an act. A batch in flight is waited for this long; should this process's machine vanish, the
/// server lets go.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL lock_timeout = '2s'; SET LOCAL idle_in_transaction_session_timeout = '60s'";

/// Erases payloads over one connection.
pub struct Eraser {
    scratches: Vec<(&'static str, Scratch)>,
}

impl Eraser {
    /// Makes the empty tables, which belong to this connection.
    ///
    /// # Errors
    /// The database's.
    pub async fn new(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let mut scratches = Vec::new();
        for name in projection::NAMES {
            if let Some(scratch) = act::scratch_of(connection, name).await? {
                scratches.push((*name, scratch));
            }
        }
        Ok(Self { scratches })
    }

    /// Erases the payloads of these runs, all of them or none, and returns the act's number in `event_log.audit`. The
    /// projections stand still for as long as it takes.
    ///
    /// # Errors
    /// The projections', or the database's: 55P03 = somebody holds what it needs. Nothing was changed then, unless the
    /// answer to the commit was lost.
    pub async fn erase(
        &self,
        connection: &mut PgConnection,
        runs: &[i64],
        by: Operator<'_>,
    ) -> Result<i64, ProjectionError> {
        let act = self.in_transaction(connection, runs, by).await;
        act::end(connection, act).await
    }

    async fn in_transaction(
        &self,
        connection: &mut PgConnection,
        runs: &[i64],
        by: Operator<'_>,
    ) -> Result<i64, ProjectionError> {
        let doing = ProjectionError::while_doing;
        sqlx::raw_sql(BEGIN)
            .execute(&mut *connection)
            .await
            .map_err(doing("cannot begin a transaction"))?;
        // From here on no version is added.
        let act = erasure::erase_payloads(connection, runs, by).await;
        let act = act.map_err(doing("cannot erase the payloads"))?;
        failpoints::hit("erase.erased");
        let runs = runs_of(connection, runs).await;
        let runs = runs.map_err(doing("cannot read the log's runs"))?;
        let versions = versions::all(connection).await;
        let versions = versions.map_err(doing("cannot read the projections' versions"))?;
        for version in &versions {
            versions::hold_still(connection, version)
                .await
                .map_err(doing("cannot hold a projection still"))?;
        }
        for version in &versions {
            self.rewrite(connection, version, &runs).await?;
        }
        failpoints::hit("erase.done");
        Ok(act)
    }

    /// The rows of these runs in one version.
    async fn rewrite(
        &self,
        connection: &mut PgConnection,
        version: &Version,
        runs: &[LoggedRun],
    ) -> Result<(), ProjectionError> {
        let doing = ProjectionError::while_doing;
        let known = self
            .scratches
            .iter()
            .find(|(name, _)| *name == version.projection);
        let (Some((name, scratch)), Some(projection)) =
            (known, projection::by_name(&version.projection))
        else {
            return Err(ProjectionError::Unknown {
                projection: version.projection.clone(),
                version: version.version,
            });
        };
        scratch
            .enter(connection)
            .await
            .map_err(doing("cannot prepare the transaction"))?;
        scratch
            .empty(connection)
            .await
            .map_err(doing("cannot empty the tables to fold in"))?;
        let marks = scratch
            .watermarks_of(connection, &version.schema(), runs)
            .await;
        let marks = marks.map_err(doing("cannot see how far the projection has come"))?;
        fold(connection, &*projection, &marks).await?;
        let numbers: Vec<i64> = runs.iter().map(|run| run.run_no).collect();
        for table in scratch.names() {
            let rows =
                format!("SELECT coalesce(array_agg(t::text), '{{}}') FROM pg_temp.{table} t");
            let rows: Vec<String> = sqlx::query_scalar(AssertSqlSafe(rows))
                .fetch_one(&mut *connection)
                .await
                .map_err(doing("cannot read the rows of the fold"))?;
            sqlx::query("SELECT read_model.replace_rows($1, $2, $3, $4, $5)")
                .bind(*name)
                .bind(version.version)
                .bind(table)
                .bind(&numbers)
                .bind(rows)
                .execute(&mut *connection)
                .await
                .map_err(doing("cannot replace the rows of the read model"))?;
        }
        Ok(())
    }
}

/// Applies the events of runs (number, last runSeq) to the scratch tables.
async fn fold(
    connection: &mut PgConnection,
    projection: &dyn Projection,
    runs: &[(i64, i64)],
) -> Result<(), ProjectionError> {
    let mut place = (0, 0);
    loop {
        let page = events_of_runs(connection, runs, place, PAGE).await;
        let page = page.map_err(ProjectionError::while_doing("cannot read the runs' events"))?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        place = (last.run_no, last.logged.run_seq);
        projection.apply(connection, &page).await?;
    }
}
