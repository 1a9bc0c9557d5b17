//! Reading the runs' rows, under the locks that a batch holds to its end.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use run_events::{Micros, RunStatus};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::OpenRun;
use super::timeline::{Interval, Moment, Timeline};
use crate::by_run::ByRun;
use crate::projection::{ProjectionError, RunName};
use crate::rows::{self, corrupt, unreadable};

/// Locks the rows of the batch's runs and reads them. The answer has the order of `by_run`.
pub(super) async fn lock_runs(
    connection: &mut PgConnection,
    by_run: &ByRun<'_>,
) -> Result<Vec<OpenRun>, ProjectionError> {
    let mut timelines = rows::lock_runs(
        connection,
        by_run,
        include_str!("sql/lock_runs.sql"),
        timeline,
    )
    .await?;
    let open = by_run.keys().map(|name| OpenRun {
        name: name.clone(),
        timeline: timelines.remove(name),
    });
    Ok(open.collect())
}

fn timeline(row: &PgRow, name: RunName) -> Result<Timeline, ProjectionError> {
    let state: &str = row.try_get("state").map_err(unreadable)?;
    let state = RunStatus::parse(state).ok_or_else(|| corrupt(&name, "state", state))?;
    decode(row, state).map_err(unreadable)
}

fn decode(row: &PgRow, state: RunStatus) -> Result<Timeline, sqlx::Error> {
    let time = |column| row.try_get::<DateTime<Utc>, _>(column).map(Micros::from);
    let number = row.try_get("interval_no")?;
    Ok(Timeline {
        project_id: row.try_get("project_id")?,
        environment_id: row.try_get("environment_id")?,
        plan_id: row.try_get("plan_id")?,
        plan_version: row.try_get("plan_version")?,
        last_event_seq: row.try_get("last_event_seq")?,
        is_queued: row.try_get("is_queued")?,
        current: Interval {
            number,
            state,
            started: Moment {
                persisted: time("started_at")?,
                emitted: time("emitted_started_at")?,
            },
            ended: None,
        },
        stored: number,
        is_changed: false,
        changed: BTreeMap::new(),
    })
}
