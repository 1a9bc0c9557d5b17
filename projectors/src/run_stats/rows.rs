//! Reading the projection's rows, under the locks that a batch holds to its end.

use run_events::{RunStatus, StepStatus};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::open_run::{Attempt, KnownRun, OpenRun};
use crate::by_run::ByRun;
use crate::projection::{ProjectionError, RunName};
use crate::rows::{self, corrupt, time, unreadable};

/// Locks the rows of the batch's runs and reads them. The answer has the order of `by_run`.
pub(super) async fn lock_runs(
    connection: &mut PgConnection,
    by_run: &ByRun<'_>,
) -> Result<Vec<OpenRun>, ProjectionError> {
    let mut known = rows::lock_runs(
        connection,
        by_run,
        include_str!("sql/lock_runs.sql"),
        known_run,
    )
    .await?;
    let open = by_run
        .keys()
        .map(|name| OpenRun::new(name.clone(), known.remove(name)));
    Ok(open.collect())
}

/// Loads the wanted (place of the run, (step, attempt)) into the runs.
pub(super) async fn load_attempts(
    connection: &mut PgConnection,
    runs: &mut [OpenRun],
    wanted: &[(usize, (&str, i32))],
) -> Result<(), ProjectionError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let run = |place: usize| &runs[place].name;
    let places: Vec<i64> = wanted.iter().map(|(place, _)| *place as i64).collect();
    let tenants = wanted
        .iter()
        .map(|(place, _)| run(*place).tenant_id.as_str());
    let ids = wanted.iter().map(|(place, _)| run(*place).run_id.as_str());
    let (steps, attempts): (Vec<&str>, Vec<i32>) =
        wanted.iter().map(|(_, attempt)| *attempt).unzip();
    let rows = sqlx::query(include_str!("sql/load_attempts.sql"))
        .bind(places)
        .bind(tenants.collect::<Vec<_>>())
        .bind(ids.collect::<Vec<_>>())
        .bind(steps)
        .bind(attempts)
        .fetch_all(connection)
        .await
        .map_err(ProjectionError::while_doing(
            "cannot read the steps' attempts",
        ))?;
    for row in &rows {
        let place: i64 = row.try_get("place").map_err(unreadable)?;
        let run = &mut runs[place as usize];
        let attempt = attempt(row, &run.name)?;
        let step_id = row.try_get("step_id").map_err(unreadable)?;
        let attempt_id = row.try_get("logical_attempt_id").map_err(unreadable)?;
        run.put_attempt(step_id, attempt_id, attempt);
    }
    Ok(())
}

fn known_run(row: &PgRow, name: RunName) -> Result<KnownRun, ProjectionError> {
    let status: &str = row.try_get("status").map_err(unreadable)?;
    let status = RunStatus::parse(status).ok_or_else(|| corrupt(&name, "status", status))?;
    let decode = || -> Result<_, sqlx::Error> {
        Ok(KnownRun {
            project_id: row.try_get("project_id")?,
            environment_id: row.try_get("environment_id")?,
            plan_id: row.try_get("plan_id")?,
            status,
            is_queued: row.try_get("is_queued")?,
            emitted_started_at: time(row, "emitted_started_at")?,
            last_event_seq: row.try_get("last_event_seq")?,
        })
    };
    decode().map_err(unreadable)
}

/// `None` where the attempt has no row.
fn attempt(row: &PgRow, name: &RunName) -> Result<Option<Attempt>, ProjectionError> {
    let Some(status) = row
        .try_get::<Option<&str>, _>("status")
        .map_err(unreadable)?
    else {
        return Ok(None);
    };
    let status = StepStatus::parse(status).ok_or_else(|| corrupt(name, "step status", status))?;
    let emitted_started_at = time(row, "emitted_started_at").map_err(unreadable)?;
    Ok(Some(Attempt {
        status,
        emitted_started_at,
    }))
}
