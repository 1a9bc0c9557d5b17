//! Snapshots: taken while a batch is folded, stored and thinned when it is written. One statement for most
//! batches, two more for one with snapshots of long runs, and none for one without a snapshot.
//!
//! Which snapshots are stored and kept may depend on the run's events only, not on where batches begin:
//! a rebuild must leave the same rows. So the size that is too large is that of the document as
//! PostgreSQL writes it, which is the same whichever way its numbers came here.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use run_events::digest::Digest;
use run_events::snapshot::Snapshot;
use run_events::{Micros, RunState};
use sqlx::PgConnection;

use super::open_run::OpenRun;
use super::points;
use crate::projection::{ProjectionError, RunName};
use crate::rows::column;

/// The longest document that is kept, in bytes of its text: some 50,000 attempts without errors. A run
/// whose errors alone are longer is not even loaded.
pub(super) const MAX_STATE_BYTES: i64 = 16 << 20;

/// A row of run_snapshot.
#[derive(Debug)]
pub(super) struct Taken {
    run_seq: i64,
    status: &'static str,
    consistency: &'static str,
    at_end: bool,
    document: String,
    digest: Digest,
    persisted_at: DateTime<Utc>,
}

impl Taken {
    /// The state, which holds all attempts, after its last event. `None` cannot happen: numbers of logged
    /// events are finite.
    pub(super) fn of(state: &RunState, persisted_at: Micros, at_end: bool) -> Option<Self> {
        let snapshot = Snapshot::from(state);
        Some(Self {
            run_seq: state.last_event_seq,
            status: state.status.as_str(),
            consistency: state.consistency(),
            at_end,
            document: serde_json::to_string(&snapshot).ok()?,
            digest: snapshot.digest()?,
            persisted_at: persisted_at.to_datetime(),
        })
    }
}

/// Stores the batch's snapshots, and removes those that are not kept beside them.
pub(super) async fn store(
    connection: &mut PgConnection,
    runs: &[OpenRun],
) -> Result<(), ProjectionError> {
    let of_run = |run| -> Vec<(&OpenRun, &Taken)> {
        let run: &OpenRun = run;
        run.taken.iter().map(|taken| (run, taken)).collect()
    };
    let rows: Vec<(&OpenRun, &Taken)> = runs.iter().flat_map(of_run).collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(include_str!("sql/insert_snapshots.sql"))
        .bind(column(&rows, |(run, _)| run.name.tenant_id.as_str()))
        .bind(column(&rows, |(run, _)| run.name.run_id.as_str()))
        .bind(column(&rows, |(_, taken)| taken.run_seq))
        .bind(column(&rows, |(_, taken)| taken.status))
        .bind(column(&rows, |(_, taken)| taken.consistency))
        .bind(column(&rows, |(_, taken)| taken.at_end))
        .bind(column(&rows, |(_, taken)| taken.document.as_str()))
        .bind(column(&rows, |(_, taken)| taken.digest.0.as_slice()))
        .bind(column(&rows, |(_, taken)| taken.persisted_at))
        .bind(MAX_STATE_BYTES)
        .execute(&mut *connection)
        .await
        .map_err(ProjectionError::while_doing("cannot write the snapshots"))?;
    let long = rows
        .iter()
        .filter(|(_, taken)| points::may_thin(taken.run_seq));
    let runs: BTreeSet<&RunName> = long.map(|(run, _)| &run.name).collect();
    thin(connection, &runs.into_iter().collect::<Vec<_>>()).await
}

/// Removes those snapshots of the runs that are not kept.
async fn thin(connection: &mut PgConnection, runs: &[&RunName]) -> Result<(), ProjectionError> {
    if runs.is_empty() {
        return Ok(());
    }
    let stored: Vec<(String, String, i64, bool)> =
        sqlx::query_as(include_str!("sql/snapshots_of_runs.sql"))
            .bind(column(runs, |run| run.tenant_id.as_str()))
            .bind(column(runs, |run| run.run_id.as_str()))
            .fetch_all(&mut *connection)
            .await
            .map_err(ProjectionError::while_doing("cannot read the snapshots"))?;
    let mut of_runs: BTreeMap<RunName, Vec<(i64, bool)>> = BTreeMap::new();
    for (tenant_id, run_id, run_seq, at_end) in stored {
        let name = RunName { tenant_id, run_id };
        of_runs.entry(name).or_default().push((run_seq, at_end));
    }
    remove(connection, &not_kept(&of_runs)).await
}

/// Those of the runs' snapshots (runSeq, at the end) that are not kept.
fn not_kept(of_runs: &BTreeMap<RunName, Vec<(i64, bool)>>) -> Vec<(&RunName, i64)> {
    let of_run = |(name, snapshots)| {
        let (name, snapshots): (_, &Vec<(i64, bool)>) = (name, snapshots);
        let newest = snapshots.iter().map(|(seq, _)| *seq).max().unwrap_or(0);
        snapshots
            .iter()
            .filter(move |(seq, at_end)| !at_end && !points::is_kept(*seq, newest))
            .map(move |(seq, _)| (name, *seq))
    };
    of_runs.iter().flat_map(of_run).collect()
}

async fn remove(
    connection: &mut PgConnection,
    rows: &[(&RunName, i64)],
) -> Result<(), ProjectionError> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(include_str!("sql/delete_snapshots.sql"))
        .bind(column(rows, |(run, _)| run.tenant_id.as_str()))
        .bind(column(rows, |(run, _)| run.run_id.as_str()))
        .bind(column(rows, |(_, run_seq)| *run_seq))
        .execute(connection)
        .await
        .map_err(ProjectionError::while_doing("cannot thin the snapshots"))?;
    Ok(())
}
