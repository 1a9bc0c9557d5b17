//! Writing what a batch changed: two statements per table at most, whatever the batch's size.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use super::open_run::{Attempt, KnownRun, OpenRun};
use super::sums::{RunCounts, RunKey, StepCounts, StepKey};
use crate::projection::{ProjectionError, RunName};
use crate::rows::{Change, at, column, met};

/// run_stats_run: the runs that changed. Those without a row first, which another worker may have made.
pub(super) async fn runs(
    connection: &mut PgConnection,
    runs: &[OpenRun],
) -> Result<(), ProjectionError> {
    let changed = |is_new| {
        let runs = runs
            .iter()
            .filter(move |run| run.is_changed && run.is_new == is_new);
        runs.filter_map(|run| Some((&run.name, run.known.as_ref()?)))
            .collect()
    };
    let insert = include_str!("sql/insert_runs.sql");
    write_runs(connection, insert, changed(true))
        .await
        .map_err(met)?;
    let update = include_str!("sql/update_runs.sql");
    write_runs(connection, update, changed(false))
        .await
        .map_err(ProjectionError::while_doing("cannot write the runs"))
}

async fn write_runs(
    connection: &mut PgConnection,
    statement: &'static str,
    rows: Vec<(&RunName, &KnownRun)>,
) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(statement)
        .bind(column(&rows, |(name, _)| name.tenant_id.as_str()))
        .bind(column(&rows, |(name, _)| name.run_id.as_str()))
        .bind(column(&rows, |(_, run)| run.project_id.as_str()))
        .bind(column(&rows, |(_, run)| run.environment_id.as_str()))
        .bind(column(&rows, |(_, run)| run.plan_id.as_str()))
        .bind(column(&rows, |(_, run)| run.status.as_str()))
        .bind(column(&rows, |(_, run)| run.is_queued))
        .bind(column(&rows, |(_, run)| at(run.emitted_started_at)))
        .bind(column(&rows, |(_, run)| run.last_event_seq))
        .execute(connection)
        .await?;
    Ok(())
}

struct AttemptRow<'a> {
    run: &'a RunName,
    step_id: &'a str,
    attempt_id: i32,
    attempt: Attempt,
    change: &'a Change,
}

/// run_stats_attempt: the attempts that changed.
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
        .bind(column(&rows, |row| row.attempt.status.as_str()))
        .bind(column(&rows, |row| at(row.attempt.emitted_started_at)))
        .bind(column(&rows, |row| row.change.last_event_seq))
        .execute(connection)
        .await?;
    Ok(())
}

fn changed_attempts(run: &OpenRun) -> impl Iterator<Item = AttemptRow<'_>> {
    let changed = run.changed_attempts.iter();
    changed.filter_map(|((step_id, attempt_id), change)| {
        Some(AttemptRow {
            run: &run.name,
            step_id,
            attempt_id: *attempt_id,
            attempt: run.attempt(step_id, *attempt_id)?,
            change,
        })
    })
}

/// run_hourly: what the batch adds.
pub(super) async fn hourly(
    connection: &mut PgConnection,
    sums: &BTreeMap<RunKey<'_>, RunCounts>,
) -> Result<(), ProjectionError> {
    add_runs(connection, include_str!("sql/add_to_run_hourly.sql"), sums).await
}

/// run_daily: what the batch adds.
pub(super) async fn daily(
    connection: &mut PgConnection,
    sums: &BTreeMap<RunKey<'_>, RunCounts>,
) -> Result<(), ProjectionError> {
    add_runs(connection, include_str!("sql/add_to_run_daily.sql"), sums).await
}

async fn add_runs(
    connection: &mut PgConnection,
    statement: &'static str,
    sums: &BTreeMap<RunKey<'_>, RunCounts>,
) -> Result<(), ProjectionError> {
    if sums.is_empty() {
        return Ok(());
    }
    let rows: Vec<(&RunKey<'_>, &RunCounts)> = sums.iter().collect();
    sqlx::query(statement)
        .bind(column(&rows, |(key, _)| key.tenant_id))
        .bind(column(&rows, |(key, _)| key.window.to_datetime()))
        .bind(column(&rows, |(key, _)| key.project_id))
        .bind(column(&rows, |(key, _)| key.environment_id))
        .bind(column(&rows, |(key, _)| key.plan_id))
        .bind(column(&rows, |(_, counts)| counts.queued))
        .bind(column(&rows, |(_, counts)| counts.started))
        .bind(column(&rows, |(_, counts)| counts.completed))
        .bind(column(&rows, |(_, counts)| counts.failed))
        .bind(column(&rows, |(_, counts)| counts.cancelled))
        .bind(column(&rows, |(_, counts)| {
            counts.durations.sum.to_string()
        }))
        .bind(column(&rows, |(_, counts)| counts.durations.to_sql()))
        .bind(column(&rows, |(_, counts)| counts.last_event_seq))
        .execute(connection)
        .await
        .map_err(ProjectionError::while_doing("cannot add to the run counts"))?;
    Ok(())
}

/// step_daily: what the batch adds.
pub(super) async fn steps(
    connection: &mut PgConnection,
    sums: &BTreeMap<StepKey<'_>, StepCounts>,
) -> Result<(), ProjectionError> {
    if sums.is_empty() {
        return Ok(());
    }
    let rows: Vec<(&StepKey<'_>, &StepCounts)> = sums.iter().collect();
    sqlx::query(include_str!("sql/add_to_step_daily.sql"))
        .bind(column(&rows, |(key, _)| key.tenant_id))
        .bind(column(&rows, |(key, _)| key.day.to_datetime()))
        .bind(column(&rows, |(key, _)| key.plan_id))
        .bind(column(&rows, |(key, _)| key.step_id))
        .bind(column(&rows, |(_, counts)| counts.started))
        .bind(column(&rows, |(_, counts)| counts.succeeded))
        .bind(column(&rows, |(_, counts)| counts.failed))
        .bind(column(&rows, |(_, counts)| counts.skipped))
        .bind(column(&rows, |(_, counts)| counts.retries))
        .bind(column(&rows, |(_, counts)| {
            counts.durations.sum.to_string()
        }))
        .bind(column(&rows, |(_, counts)| counts.durations.to_sql()))
        .bind(column(&rows, |(_, counts)| counts.last_event_seq))
        .execute(connection)
        .await
        .map_err(ProjectionError::while_doing(
            "cannot add to the step counts",
        ))?;
    Ok(())
}
