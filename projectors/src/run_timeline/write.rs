//! Writing what a batch changed: two statements per table at most, whatever the batch's size.

use sqlx::PgConnection;

use super::OpenRun;
use super::timeline::{Interval, Timeline};
use crate::projection::{ProjectionError, RunName};
use crate::rows::{column, met};

/// The runs that changed, with their timelines.
fn changed(runs: &[OpenRun]) -> impl Iterator<Item = (&RunName, &Timeline)> {
    runs.iter()
        .filter_map(|run| Some((&run.name, run.timeline.as_ref()?)))
        .filter(|(_, timeline)| timeline.is_changed)
}

/// run_timeline_run: the runs that changed. Those without a row first, which another worker may have made.
pub(super) async fn runs(
    connection: &mut PgConnection,
    runs: &[OpenRun],
) -> Result<(), ProjectionError> {
    let (new, known): (Vec<_>, Vec<_>) = changed(runs).partition(|(_, run)| run.stored == 0);
    let insert = include_str!("sql/insert_runs.sql");
    write_runs(connection, insert, new).await.map_err(met)?;
    let update = include_str!("sql/update_runs.sql");
    write_runs(connection, update, known)
        .await
        .map_err(ProjectionError::while_doing("cannot write the runs"))
}

async fn write_runs(
    connection: &mut PgConnection,
    statement: &'static str,
    rows: Vec<(&RunName, &Timeline)>,
) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let started = |run: &Timeline| run.current.started;
    sqlx::query(statement)
        .bind(column(&rows, |(name, _)| name.tenant_id.as_str()))
        .bind(column(&rows, |(name, _)| name.run_id.as_str()))
        .bind(column(&rows, |(_, run)| run.last_event_seq))
        .bind(column(&rows, |(_, run)| run.is_queued))
        .bind(column(&rows, |(_, run)| run.current.number))
        .bind(column(&rows, |(_, run)| run.current.state.as_str()))
        .bind(column(&rows, |(_, run)| {
            started(run).persisted.to_datetime()
        }))
        .bind(column(&rows, |(_, run)| started(run).emitted.to_datetime()))
        .bind(column(&rows, |(_, run)| run.project_id.as_str()))
        .bind(column(&rows, |(_, run)| run.environment_id.as_str()))
        .bind(column(&rows, |(_, run)| run.plan_id.as_str()))
        .bind(column(&rows, |(_, run)| run.plan_version.as_str()))
        .execute(connection)
        .await?;
    Ok(())
}

struct IntervalRow<'a> {
    name: &'a RunName,
    run: &'a Timeline,
    interval: &'a Interval,
    last_event_seq: i64,
}

fn changed_intervals<'a>(
    (name, run): (&'a RunName, &'a Timeline),
) -> impl Iterator<Item = IntervalRow<'a>> {
    let changed = run.changed.values();
    changed.map(move |(interval, last_event_seq)| IntervalRow {
        name,
        run,
        interval,
        last_event_seq: *last_event_seq,
    })
}

/// run_state_interval: the intervals that began, ended or were moved.
pub(super) async fn intervals(
    connection: &mut PgConnection,
    runs: &[OpenRun],
) -> Result<(), ProjectionError> {
    let changed = changed(runs).flat_map(changed_intervals);
    let (stored, new): (Vec<_>, Vec<_>) =
        changed.partition(|row| row.interval.number <= row.run.stored);
    for (statement, rows) in [
        (include_str!("sql/insert_intervals.sql"), new),
        (include_str!("sql/update_intervals.sql"), stored),
    ] {
        write_intervals(connection, statement, rows)
            .await
            .map_err(ProjectionError::while_doing("cannot write the intervals"))?;
    }
    Ok(())
}

async fn write_intervals(
    connection: &mut PgConnection,
    statement: &'static str,
    rows: Vec<IntervalRow<'_>>,
) -> Result<(), sqlx::Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let started = |row: &IntervalRow<'_>| row.interval.started;
    let ended = |row: &IntervalRow<'_>| row.interval.ended;
    sqlx::query(statement)
        .bind(column(&rows, |row| row.name.tenant_id.as_str()))
        .bind(column(&rows, |row| row.name.run_id.as_str()))
        .bind(column(&rows, |row| row.interval.number))
        .bind(column(&rows, |row| row.interval.state.as_str()))
        .bind(column(&rows, |row| started(row).persisted.to_datetime()))
        .bind(column(&rows, |row| {
            ended(row).map(|at| at.persisted.to_datetime())
        }))
        .bind(column(&rows, |row| row.interval.duration_ms()))
        .bind(column(&rows, |row| started(row).emitted.to_datetime()))
        .bind(column(&rows, |row| {
            ended(row).map(|at| at.emitted.to_datetime())
        }))
        .bind(column(&rows, |row| row.run.project_id.as_str()))
        .bind(column(&rows, |row| row.run.environment_id.as_str()))
        .bind(column(&rows, |row| row.run.plan_id.as_str()))
        .bind(column(&rows, |row| row.run.plan_version.as_str()))
        .bind(column(&rows, |row| row.last_event_seq))
        .execute(connection)
        .await?;
    Ok(())
}
