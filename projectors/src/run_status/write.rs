//! Writing what a batch changed: two statements per table at most, whatever the batch's size.

use run_events::{Inconsistency, RunState, StepAttempt};
use serde_json::Value;
use sqlx::PgConnection;

use super::open_run::{Alert, OpenRun};
use crate::projection::ProjectionError;
use crate::rows::{Change, at, column, met};

fn json_text(value: Option<&Value>) -> Option<String> {
    value.map(Value::to_string)
}

/// run_current: the runs that changed. Those without a row first, which another worker may have made.
pub(super) async fn runs(
    connection: &mut PgConnection,
    runs: &[OpenRun],
) -> Result<(), ProjectionError> {
    let changed = |is_stored| {
        let runs = runs
            .iter()
            .filter(move |run| run.is_changed && run.is_stored == is_stored);
        runs.filter_map(|run| run.state.as_ref()).collect()
    };
    let insert = include_str!("sql/insert_runs.sql");
    write_runs(connection, insert, changed(false))
        .await
        .map_err(met)?;
    let update = include_str!("sql/update_runs.sql");
    write_runs(connection, update, changed(true))
        .await
        .map_err(ProjectionError::while_doing("cannot write the runs"))
}

async fn write_runs(
    connection: &mut PgConnection,
    statement: &'static str,
    rows: Vec<&RunState>,
) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(statement)
        .bind(column(&rows, |run| run.tenant_id.as_str()))
        .bind(column(&rows, |run| run.run_id.as_str()))
        .bind(column(&rows, |run| run.project_id.as_str()))
        .bind(column(&rows, |run| run.environment_id.as_str()))
        .bind(column(&rows, |run| run.plan_id.as_str()))
        .bind(column(&rows, |run| run.plan_version.as_str()))
        .bind(column(&rows, |run| run.status.as_str()))
        .bind(column(&rows, |run| run.consistency()))
        .bind(column(&rows, |run| run.last_event_seq))
        .bind(column(&rows, |run| run.first_persisted_at.to_datetime()))
        .bind(column(&rows, |run| at(run.queued_at)))
        .bind(column(&rows, |run| at(run.started_at)))
        .bind(column(&rows, |run| at(run.ended_at)))
        .bind(column(&rows, |run| run.sort_at().to_datetime()))
        .bind(column(&rows, |run| at(run.emitted_started_at)))
        .bind(column(&rows, |run| at(run.emitted_ended_at)))
        .bind(column(&rows, |run| at(run.interval_since)))
        .bind(column(&rows, |run| run.queue_wait_ms()))
        .bind(column(&rows, |run| run.active_micros))
        .bind(column(&rows, |run| run.paused_micros))
        .bind(column(&rows, |run| run.wall_ms()))
        .bind(column(&rows, |run| run.emitted_wall_ms()))
        .bind(column(&rows, |run| run.step_counts.running))
        .bind(column(&rows, |run| run.step_counts.succeeded))
        .bind(column(&rows, |run| run.step_counts.failed))
        .bind(column(&rows, |run| run.step_counts.skipped))
        .bind(column(&rows, |run| run.retries))
        .bind(column(&rows, |run| json_text(run.error.as_ref())))
        .execute(connection)
        .await?;
    Ok(())
}

struct AttemptRow<'a> {
    run: &'a RunState,
    step_id: &'a str,
    attempt_id: i32,
    attempt: &'a StepAttempt,
    change: &'a Change,
}

/// step_attempt: the attempts that changed.
pub(super) async fn attempts(
    connection: &mut PgConnection,
    runs: &[OpenRun],
) -> Result<(), ProjectionError> {
    let changed = runs.iter().flat_map(changed_attempts);
    let (stored, new): (Vec<_>, Vec<_>) = changed.partition(|row| row.change.is_stored);
    for (statement, rows) in [
        (include_str!("sql/insert_attempts.sql"), new),
        (include_str!("sql/update_attempts.sql"), stored),
    ] {
        write_attempts(connection, statement, rows)
            .await
            .map_err(ProjectionError::while_doing(
                "cannot write the step attempts",
            ))?;
    }
    Ok(())
}

async fn write_attempts(
    connection: &mut PgConnection,
    statement: &'static str,
    rows: Vec<AttemptRow<'_>>,
) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(statement)
        .bind(column(&rows, |row| row.run.tenant_id.as_str()))
        .bind(column(&rows, |row| row.run.run_id.as_str()))
        .bind(column(&rows, |row| row.step_id))
        .bind(column(&rows, |row| row.attempt_id))
        .bind(column(&rows, |row| row.attempt.engine_attempt_id))
        .bind(column(&rows, |row| row.attempt.status.as_str()))
        .bind(column(&rows, |row| at(row.attempt.started_at)))
        .bind(column(&rows, |row| at(row.attempt.completed_at)))
        .bind(column(&rows, |row| row.attempt.duration_ms()))
        .bind(column(&rows, |row| at(row.attempt.emitted_started_at)))
        .bind(column(&rows, |row| at(row.attempt.emitted_completed_at)))
        .bind(column(&rows, |row| json_text(row.attempt.error.as_ref())))
        .bind(column(&rows, |row| row.change.last_event_seq))
        .execute(connection)
        .await?;
    Ok(())
}

fn changed_attempts(run: &OpenRun) -> impl Iterator<Item = AttemptRow<'_>> {
    let changed = run
        .state
        .iter()
        .zip(std::iter::repeat(&run.changed_attempts));
    changed
        .flat_map(|(state, changed)| changed.iter().map(move |attempt| (state, attempt)))
        .filter_map(|(run, ((step_id, attempt_id), change))| {
            Some(AttemptRow {
                run,
                step_id,
                attempt_id: *attempt_id,
                attempt: run.steps.get(step_id)?.get(attempt_id)?,
                change,
            })
        })
}

/// run_inconsistency: the batch's alerts. Returns how many are new.
pub(super) async fn inconsistencies(
    connection: &mut PgConnection,
    runs: &[OpenRun],
) -> Result<u64, ProjectionError> {
    let of_run = |run| -> Vec<(&OpenRun, &Alert)> {
        let run: &OpenRun = run;
        run.alerts.iter().map(|alert| (run, alert)).collect()
    };
    let rows: Vec<(&OpenRun, &Alert)> = runs.iter().flat_map(of_run).collect();
    if rows.is_empty() {
        return Ok(0);
    }
    let step = |alert: &Alert| alert.step.clone().unzip();
    let inserted = sqlx::query(include_str!("sql/insert_inconsistencies.sql"))
        .bind(column(&rows, |(run, _)| run.name.tenant_id.as_str()))
        .bind(column(&rows, |(run, _)| run.name.run_id.as_str()))
        .bind(column(&rows, |(_, alert)| alert.event_id))
        .bind(column(&rows, |(_, alert)| alert.event_type.as_str()))
        .bind(column(&rows, |(_, alert)| alert.run_seq))
        .bind(column(&rows, |(_, alert)| alert.persisted_at))
        .bind(column(&rows, |(_, alert)| step(alert).0))
        .bind(column(&rows, |(_, alert)| step(alert).1))
        .bind(column(&rows, |(_, alert)| alert.what.prior_state))
        .bind(column(&rows, |(_, alert)| alert.what.attempted_state))
        .bind(column(&rows, |_| Inconsistency::CODE))
        .bind(column(&rows, |(_, alert)| alert.project_id.as_str()))
        .bind(column(&rows, |(_, alert)| alert.environment_id.as_str()))
        .execute(connection)
        .await
        .map_err(ProjectionError::while_doing(
            "cannot write the inconsistencies",
        ))?;
    Ok(inserted.rows_affected())
}
