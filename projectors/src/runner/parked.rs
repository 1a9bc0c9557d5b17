//! Runs that a projection cannot apply: set aside, passed over, and tried again when an operator says
//! so. The only SQL on `read_model.parked_run`. Called by the batches, the workers and the coordinator.

use std::collections::HashSet;

use event_log::Transaction;
use event_log::read::{StreamEvent, run_events};
use sqlx::{FromRow, PgConnection};

use super::checkpoint::Lease;
use super::fault::{self, Verdict};
use super::versions::Version;
use super::{Shared, batch};
use crate::projection::{Projection, ProjectionError, RunName};

/// Events that are applied at once when a run is taken up again.
const PAGE: i64 = 500;

/// A parked run that an operator has released.
#[derive(Debug, Clone, FromRow)]
pub(super) struct Released {
    #[sqlx(flatten)]
    pub(super) version: Version,
    tenant_id: String,
    run_id: String,
    run_no: i64,
    run_seq: i64,
}

impl Released {
    fn name(&self) -> RunName {
        RunName {
            tenant_id: self.tenant_id.clone(),
            run_id: self.run_id.clone(),
        }
    }
}

/// Which of the events' runs are parked. Waits for those that are being taken up again.
pub(super) async fn among(
    connection: &mut PgConnection,
    lease: &Lease,
    events: &[StreamEvent],
) -> Result<HashSet<i64>, sqlx::Error> {
    let runs: HashSet<i64> = events.iter().map(|event| event.run_no).collect();
    let parked: Vec<i64> = sqlx::query_scalar(
        "SELECT run_no FROM read_model.parked_run
         WHERE projection = $1 AND version = $2 AND run_no = ANY ($3)
         ORDER BY run_no FOR SHARE",
    )
    .bind(&lease.key.projection)
    .bind(lease.key.version)
    .bind(runs.into_iter().collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    Ok(parked.into_iter().collect())
}

/// Sets aside the run of an event that could not be applied. The batches to come pass it over.
pub(super) async fn park(
    shared: &Shared,
    lease: &Lease,
    event: &StreamEvent,
    error: &str,
) -> Result<(), sqlx::Error> {
    let run = RunName::of(&event.logged.event);
    sqlx::query(
        "INSERT INTO read_model.parked_run (tenant_id, run_id, projection, version, run_no, run_seq, error)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT DO NOTHING",
    )
    .bind(run.tenant_id)
    .bind(run.run_id)
    .bind(&lease.key.projection)
    .bind(lease.key.version)
    .bind(event.run_no)
    .bind(event.logged.run_seq)
    .bind(error)
    .execute(&shared.pool)
    .await?;
    Ok(())
}

/// How many runs each version has parked, by its label.
pub(super) async fn counts(
    connection: &mut PgConnection,
    versions: &[Version],
) -> Result<Vec<(String, i64)>, sqlx::Error> {
    let rows: Vec<(String, i32, i64)> = sqlx::query_as(
        "SELECT projection, version, count(*) FROM read_model.parked_run GROUP BY projection, version",
    )
    .fetch_all(connection)
    .await?;
    let count = |version: &Version| {
        let its = |(projection, number, _): &&(String, i32, i64)| version.is(projection, *number);
        let count = rows.iter().find(its).map_or(0, |row| row.2);
        (version.label(), count)
    };
    Ok(versions.iter().map(count).collect())
}

/// The runs of these projections that operators have released.
pub(super) async fn released(
    connection: &mut PgConnection,
    projections: &[String],
) -> Result<Vec<Released>, sqlx::Error> {
    sqlx::query_as(
        "SELECT p.projection, p.version, v.state = 'live' AS live, p.tenant_id, p.run_id, p.run_no, p.run_seq
         FROM read_model.parked_run p JOIN read_model.projection_version v USING (projection, version)
         WHERE p.projection = ANY ($1) AND p.released_at IS NOT NULL AND v.state IN ('live', 'building')
         ORDER BY p.released_at LIMIT 100",
    )
    .bind(projections)
    .fetch_all(connection)
    .await
}

/// Takes a released run up again, from the event that could not be applied to the log's last one. What
/// fails again is parked again.
pub(super) async fn take_up(
    shared: &Shared,
    projection: &dyn Projection,
    run: &Released,
) -> Result<(), ProjectionError> {
    let label = run.version.label();
    match apply_all(shared, projection, run).await {
        Ok(false) => Ok(()),
        Ok(true) => {
            tracing::info!(projection = label, run = %run.name(), "a parked run was taken up again");
            Ok(())
        }
        Err(error) if fault::of_projection(&error) == Verdict::Blocked => {
            let error = fault::chain(&error);
            tracing::error!(projection = label, run = %run.name(), error, "a released run fails again");
            park_again(shared, run, &error).await
        }
        Err(error) => Err(error),
    }
}

/// `false` = another process is at it, or the version is held still.
async fn apply_all(
    shared: &Shared,
    projection: &dyn Projection,
    run: &Released,
) -> Result<bool, ProjectionError> {
    let doing = ProjectionError::while_doing;
    let mut transaction = Transaction::begin(&shared.pool)
        .await
        .map_err(doing("cannot begin a transaction"))?;
    let connection = transaction.connection();
    if !batch::prepare(connection, &run.version.schema()).await? {
        let given_up = transaction.rollback().await;
        return given_up.map(|()| false).map_err(doing("cannot roll back"));
    }
    let locked = sqlx::query(
        "SELECT FROM read_model.parked_run p
         WHERE projection = $1 AND version = $2 AND run_no = $3 AND released_at IS NOT NULL
           AND NOT EXISTS (SELECT FROM read_model.projection_version v
                           WHERE v.projection = p.projection AND v.version = p.version AND v.state = 'retired')
         FOR UPDATE SKIP LOCKED",
    )
    .bind(&run.version.projection)
    .bind(run.version.version)
    .bind(run.run_no)
    .fetch_optional(&mut *connection)
    .await
    .map_err(doing("cannot lock a parked run"))?;
    if locked.is_none() {
        return Ok(false);
    }
    let mut from = run.run_seq;
    loop {
        let page = run_events(&mut *connection, run.run_no, from, i64::MAX, PAGE).await;
        let page = page.map_err(doing("cannot read a run's events"))?;
        let Some(last) = page.last() else { break };
        from = last.logged.run_seq + 1;
        batch::apply_safely(projection, connection, &page).await?;
    }
    sqlx::query(
        "DELETE FROM read_model.parked_run WHERE projection = $1 AND version = $2 AND run_no = $3",
    )
    .bind(&run.version.projection)
    .bind(run.version.version)
    .bind(run.run_no)
    .execute(connection)
    .await
    .map_err(doing("cannot clear a parked run"))?;
    transaction.commit().await.map_err(doing("cannot commit"))?;
    Ok(true)
}

async fn park_again(shared: &Shared, run: &Released, error: &str) -> Result<(), ProjectionError> {
    sqlx::query(
        "UPDATE read_model.parked_run SET released_at = NULL, error = $4
         WHERE projection = $1 AND version = $2 AND run_no = $3",
    )
    .bind(&run.version.projection)
    .bind(run.version.version)
    .bind(run.run_no)
    .bind(error)
    .execute(&shared.pool)
    .await
    .map_err(ProjectionError::while_doing("cannot park a run again"))?;
    Ok(())
}
