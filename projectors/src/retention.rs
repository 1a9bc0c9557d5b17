//! Retention: whole runs that have ended leave the log and the read models, in one transaction. Called by
//! `runlog retire`.
//!
//! The act itself is a function of the database's owner (`event_log.retire_runs`). What it cannot know is what the runs
//! have added to the sums that many runs share: the projection `run_stats` itself counts that, in empty tables of this
//! connection's own ([`Scratch`]), before anything is locked. The sums that are read keep what they have; a rebuild
//! begins with what was retired.

use chrono::{DateTime, Utc};
use event_log::generation::Operator;
use event_log::read::events_of_runs;
use event_log::retention::{self, Candidate};
use sqlx::PgConnection;

use crate::RunStatsProjection;
use crate::act;
use crate::projection::{Projection, ProjectionError, RunName};
use crate::verify::Scratch;

/// Events that are counted at once.
const PAGE: i64 = 2_000;

/// Of the transaction of an act. While it waits for the batches in flight, the next ones wait behind it; and should this
/// process's machine vanish, the server lets go.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED;
    SET LOCAL lock_timeout = '500ms'; SET LOCAL idle_in_transaction_session_timeout = '30s'";

/// The rows of the scratch tables, as the act takes them.
const SUMS: &str = "SELECT jsonb_build_object(
      'run_hourly', (SELECT coalesce(jsonb_agg(to_jsonb(h) || jsonb_build_object('durations', h.durations::text)), '[]')
                     FROM pg_temp.run_hourly h),
      'step_daily', (SELECT coalesce(jsonb_agg(to_jsonb(d) || jsonb_build_object('durations', d.durations::text)), '[]')
                     FROM pg_temp.step_daily d))::text";

/// Which runs are meant.
#[derive(Debug, Clone, Copy)]
pub struct Ended<'a> {
    /// Only of this tenant.
    pub tenant: Option<&'a str>,
    /// Runs that ended before.
    pub before: DateTime<Utc>,
}

impl Ended<'_> {
    /// How many runs there are, and how many events they have.
    ///
    /// # Errors
    /// The database's.
    pub async fn count(&self, connection: &mut PgConnection) -> Result<(i64, i64), sqlx::Error> {
        sqlx::query_as(
            "SELECT count(*), coalesce(sum(last_event_seq), 0)::bigint
             FROM read_model.run_current
             WHERE status IN ('COMPLETED', 'FAILED', 'CANCELLED') AND ended_at < $1
               AND ($2::text IS NULL OR tenant_id = $2)",
        )
        .bind(self.before)
        .bind(self.tenant)
        .fetch_one(connection)
        .await
    }

    /// Up to `limit` of them behind `after`, by tenant and run.
    ///
    /// # Errors
    /// The database's.
    pub async fn page(
        &self,
        connection: &mut PgConnection,
        after: &RunName,
        limit: i64,
    ) -> Result<Vec<RunName>, sqlx::Error> {
        let rows: Vec<(String, String)> = sqlx::query_as(
            "SELECT tenant_id, run_id
             FROM read_model.run_current
             WHERE status IN ('COMPLETED', 'FAILED', 'CANCELLED') AND ended_at < $1
               AND ($2::text IS NULL OR tenant_id = $2) AND (tenant_id, run_id) > ($3, $4)
             ORDER BY tenant_id, run_id
             LIMIT $5",
        )
        .bind(self.before)
        .bind(self.tenant)
        .bind(&after.tenant_id)
        .bind(&after.run_id)
        .bind(limit)
        .fetch_all(connection)
        .await?;
        let name = |(tenant_id, run_id)| RunName { tenant_id, run_id };
        Ok(rows.into_iter().map(name).collect())
    }

    /// What the log says of the runs with these numbers. One that has had an event since the time that is meant has an
    /// obstacle.
    ///
    /// # Errors
    /// The database's.
    pub async fn candidates(
        &self,
        connection: &mut PgConnection,
        run_nos: &[i64],
    ) -> Result<Vec<Candidate>, sqlx::Error> {
        let mut candidates = retention::candidates(connection, run_nos).await?;
        for candidate in &mut candidates {
            let is_late = candidate
                .last_persisted_at
                .is_some_and(|at| at >= self.before);
            if candidate.obstacle.is_none() && is_late {
                candidate.obstacle = Some("it has had an event since".to_owned());
            }
        }
        Ok(candidates)
    }
}

/// Retires runs over one connection.
pub struct Retirer {
    scratch: Scratch,
}

impl Retirer {
    /// Makes the empty tables, which belong to this connection.
    ///
    /// # Errors
    /// The database's.
    pub async fn new(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let scratch = act::scratch_of(connection, RunStatsProjection::NAME).await?;
        let scratch = scratch.ok_or(sqlx::Error::RowNotFound)?;
        Ok(Self { scratch })
    }

    /// Retires runs (number, last runSeq), all of them or none, and returns the act's number in `event_log.audit`.
    /// Nothing is appended for as long as the second half of it takes: a few thousand events at once are right.
    ///
    /// # Errors
    /// The projection's, or the database's: 55P03 = somebody holds what it needs, 55006 = a rebuild is under way, 55000 = a run cannot
    /// be retired (any more). Nothing was changed then, unless the answer to the commit was lost.
    pub async fn retire(
        &self,
        connection: &mut PgConnection,
        runs: &[(i64, i64)],
        by: Operator<'_>,
    ) -> Result<i64, ProjectionError> {
        let act = self.in_transaction(connection, runs, by).await;
        act::end(connection, act).await
    }

    async fn in_transaction(
        &self,
        connection: &mut PgConnection,
        runs: &[(i64, i64)],
        by: Operator<'_>,
    ) -> Result<i64, ProjectionError> {
        let doing = ProjectionError::while_doing;
        sqlx::raw_sql(BEGIN)
            .execute(&mut *connection)
            .await
            .map_err(doing("cannot begin a transaction"))?;
        self.scratch
            .enter(connection)
            .await
            .map_err(doing("cannot prepare the transaction"))?;
        let mut place = (0, 0);
        loop {
            let page = events_of_runs(connection, runs, place, PAGE).await;
            let page = page.map_err(doing("cannot read the runs' events"))?;
            let Some(last) = page.last() else { break };
            place = (last.run_no, last.logged.run_seq);
            RunStatsProjection.apply(connection, &page).await?;
        }
        let sums: String = sqlx::query_scalar(SUMS)
            .fetch_one(&mut *connection)
            .await
            .map_err(doing("cannot read what the runs add to the sums"))?;
        failpoints::hit("retire.counted");
        let act = retention::retire(connection, runs, &sums, by).await;
        let act = act.map_err(doing("cannot retire the runs"))?;
        failpoints::hit("retire.done");
        Ok(act)
    }
}
