//! Reading the projection's rows, under the locks that a batch holds to its end.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use run_events::run_state::StepCounts;
use run_events::{RunState, RunStatus, StepAttempt, StepStatus};
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::open_run::OpenRun;
use super::snapshots::MAX_STATE_BYTES;
use crate::by_run::ByRun;
use crate::projection::{ProjectionError, RunName};
use crate::rows::{self, corrupt, time, unreadable};

/// Locks the rows of the batch's runs and reads them. The answer has the order of `by_run`.
pub(super) async fn lock_runs(
    connection: &mut PgConnection,
    by_run: &ByRun<'_>,
) -> Result<Vec<OpenRun>, ProjectionError> {
    let mut states = rows::lock_runs(
        connection,
        by_run,
        include_str!("sql/lock_runs.sql"),
        run_state,
    )
    .await?;
    let open = by_run
        .keys()
        .map(|name| OpenRun::new(name.clone(), states.remove(name)));
    Ok(open.collect())
}

/// Loads all attempts of the wanted (place of the run, step) into the runs' states.
pub(super) async fn load_attempts(
    connection: &mut PgConnection,
    runs: &mut [OpenRun],
    wanted: &[(usize, &str)],
) -> Result<(), ProjectionError> {
    if wanted.is_empty() {
        return Ok(());
    }
    let places: Vec<i64> = wanted.iter().map(|(place, _)| *place as i64).collect();
    let run = |place: usize| &runs[place].name;
    let tenants: Vec<&str> = wanted
        .iter()
        .map(|(place, _)| run(*place).tenant_id.as_str())
        .collect();
    let ids: Vec<&str> = wanted
        .iter()
        .map(|(place, _)| run(*place).run_id.as_str())
        .collect();
    let steps: Vec<&str> = wanted.iter().map(|(_, step)| *step).collect();
    let rows = sqlx::query(include_str!("sql/load_attempts.sql"))
        .bind(places)
        .bind(tenants)
        .bind(ids)
        .bind(steps)
        .fetch_all(connection)
        .await
        .map_err(ProjectionError::while_doing(
            "cannot read the steps' attempts",
        ))?;
    for row in &rows {
        let place: i64 = row.try_get("place").map_err(unreadable)?;
        let run = &mut runs[place as usize];
        let (step_id, attempt_id, attempt) = step_attempt(row, &run.name)?;
        if let Some(state) = &mut run.state {
            state
                .steps
                .entry(step_id)
                .or_default()
                .insert(attempt_id, attempt);
        }
    }
    Ok(())
}

/// Loads all attempts of the runs in these places into their states; none of a run whose step errors
/// alone are too large for a snapshot.
pub(super) async fn load_all_attempts(
    connection: &mut PgConnection,
    runs: &mut [OpenRun],
    places: &[usize],
) -> Result<(), ProjectionError> {
    if places.is_empty() {
        return Ok(());
    }
    let column = |name: fn(&RunName) -> &str| -> Vec<&str> {
        places
            .iter()
            .map(|&place| name(&runs[place].name))
            .collect()
    };
    let numbers: Vec<i64> = places.iter().map(|&place| place as i64).collect();
    let rows = sqlx::query(include_str!("sql/load_all_attempts.sql"))
        .bind(numbers)
        .bind(column(|run| run.tenant_id.as_str()))
        .bind(column(|run| run.run_id.as_str()))
        .bind(MAX_STATE_BYTES)
        .fetch_all(connection)
        .await
        .map_err(ProjectionError::while_doing(
            "cannot read the runs' attempts",
        ))?;
    for row in &rows {
        let place: i64 = row.try_get("place").map_err(unreadable)?;
        let run = &mut runs[place as usize];
        let (step_id, attempt_id, attempt) = step_attempt(row, &run.name)?;
        run.add_attempt(step_id, attempt_id, attempt);
    }
    for &place in places {
        runs[place].asked_for_all();
    }
    Ok(())
}

fn run_state(row: &PgRow, name: RunName) -> Result<RunState, ProjectionError> {
    let status: String = row.try_get("status").map_err(unreadable)?;
    let status = RunStatus::parse(&status).ok_or_else(|| corrupt(&name, "status", &status))?;
    let error = error(row, &name)?;
    decode_run(row, name, status, error).map_err(unreadable)
}

fn decode_run(
    row: &PgRow,
    name: RunName,
    status: RunStatus,
    error: Option<Value>,
) -> Result<RunState, sqlx::Error> {
    let count = |column| row.try_get::<i32, _>(column).map(i64::from);
    Ok(RunState {
        tenant_id: name.tenant_id,
        run_id: name.run_id,
        project_id: row.try_get("project_id")?,
        environment_id: row.try_get("environment_id")?,
        plan_id: row.try_get("plan_id")?,
        plan_version: row.try_get("plan_version")?,
        status,
        inconsistent: row.try_get::<&str, _>("consistency")? == "INCONSISTENT",
        last_event_seq: row.try_get("last_event_seq")?,
        first_persisted_at: row
            .try_get::<DateTime<Utc>, _>("first_persisted_at")?
            .into(),
        queued_at: time(row, "queued_at")?,
        started_at: time(row, "started_at")?,
        ended_at: time(row, "ended_at")?,
        emitted_started_at: time(row, "emitted_started_at")?,
        emitted_ended_at: time(row, "emitted_ended_at")?,
        interval_since: time(row, "interval_since")?,
        active_micros: row.try_get("active_us")?,
        paused_micros: row.try_get("paused_us")?,
        step_counts: StepCounts {
            running: count("steps_running")?,
            succeeded: count("steps_succeeded")?,
            failed: count("steps_failed")?,
            skipped: count("steps_skipped")?,
        },
        retries: count("retries")?,
        error,
        steps: BTreeMap::new(),
    })
}

fn step_attempt(
    row: &PgRow,
    name: &RunName,
) -> Result<(String, i32, StepAttempt), ProjectionError> {
    let status: String = row.try_get("status").map_err(unreadable)?;
    let status = StepStatus::parse(&status).ok_or_else(|| corrupt(name, "step status", &status))?;
    let error = error(row, name)?;
    let decode = || -> Result<_, sqlx::Error> {
        let attempt = StepAttempt {
            engine_attempt_id: row.try_get("engine_attempt_id")?,
            status,
            started_at: time(row, "started_at")?,
            completed_at: time(row, "completed_at")?,
            emitted_started_at: time(row, "emitted_started_at")?,
            emitted_completed_at: time(row, "emitted_completed_at")?,
            error,
        };
        Ok((
            row.try_get("step_id")?,
            row.try_get("logical_attempt_id")?,
            attempt,
        ))
    };
    decode().map_err(unreadable)
}

/// SQL NULL is the absence of an error; JSON null is a value.
fn error(row: &PgRow, name: &RunName) -> Result<Option<Value>, ProjectionError> {
    let text: Option<&str> = row.try_get("error").map_err(unreadable)?;
    let value = text.map(run_events::json::value).transpose();
    value.map_err(|e| corrupt(name, "error", &e.to_string()))
}
