//! What the projections share in reading and writing their rows. Called by the modules `rows` and `write`
//! of each.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use event_log::{FaultClass, classify};
use run_events::Micros;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::by_run::ByRun;
use crate::projection::{ProjectionError, RunName};

/// Locks those rows of the batch's runs that are there, and reads them with `decode`. The statement takes
/// the tenants and the runs, in key order.
pub(crate) async fn lock_runs<K>(
    connection: &mut PgConnection,
    by_run: &ByRun<'_>,
    lock: &'static str,
    decode: impl Fn(&PgRow, RunName) -> Result<K, ProjectionError>,
) -> Result<HashMap<RunName, K>, ProjectionError> {
    let tenants: Vec<&str> = by_run.keys().map(|run| run.tenant_id.as_str()).collect();
    let ids: Vec<&str> = by_run.keys().map(|run| run.run_id.as_str()).collect();
    let rows = sqlx::query(lock)
        .bind(tenants)
        .bind(ids)
        .fetch_all(connection)
        .await
        .map_err(ProjectionError::while_doing("cannot lock the runs"))?;
    let mut known = HashMap::with_capacity(rows.len());
    for row in &rows {
        let name = RunName {
            tenant_id: row.try_get("tenant_id").map_err(unreadable)?,
            run_id: row.try_get("run_id").map_err(unreadable)?,
        };
        known.insert(name.clone(), decode(row, name)?);
    }
    Ok(known)
}

/// For `map_err` of the insert of the runs that had no row when the batch began: another worker has made one
/// since.
pub(crate) fn met(cause: sqlx::Error) -> ProjectionError {
    if classify(&cause) == FaultClass::Unique {
        return ProjectionError::Met;
    }
    ProjectionError::while_doing("cannot insert new runs")(cause)
}

/// The attempts of a run that a batch changed, by step and logicalAttemptId.
#[derive(Debug, Default)]
pub(crate) struct ChangedAttempts(BTreeMap<(String, i32), Change>);

/// How an attempt changed.
#[derive(Debug)]
pub(crate) struct Change {
    /// run_seq of its latest valid event.
    pub(crate) last_event_seq: i64,
    /// Whether the attempt has a row.
    pub(crate) is_stored: bool,
}

impl ChangedAttempts {
    /// Takes note of a valid event of an attempt. Where it was there before and had not changed yet, it was
    /// loaded, and so has a row.
    pub(crate) fn note(&mut self, attempt: (String, i32), was_there: bool, run_seq: i64) {
        let change = self.0.entry(attempt).or_insert(Change {
            last_event_seq: run_seq,
            is_stored: was_there,
        });
        change.last_event_seq = run_seq;
    }

    /// All of them, by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&(String, i32), &Change)> {
        self.0.iter()
    }
}

/// One column of an unnest: `value` of every row.
pub(crate) fn column<'a, R, T>(rows: &'a [R], value: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// A time as the database takes it.
pub(crate) fn at(time: Option<Micros>) -> Option<DateTime<Utc>> {
    time.map(Micros::to_datetime)
}

/// A time that may be NULL.
pub(crate) fn time(row: &PgRow, column: &str) -> Result<Option<Micros>, sqlx::Error> {
    let time: Option<DateTime<Utc>> = row.try_get(column)?;
    Ok(time.map(Micros::from))
}

/// For `map_err`: a row has not the columns that it should have.
pub(crate) fn unreadable(cause: sqlx::Error) -> ProjectionError {
    ProjectionError::Database {
        doing: "cannot understand a row of the read model",
        cause,
    }
}

/// A column of a run's row has a value that this build cannot have written.
pub(crate) fn corrupt(run: &RunName, column: &str, value: &str) -> ProjectionError {
    let what = format!("{value:?} as its {column}, which this version does not know");
    ProjectionError::Corrupt {
        run: run.clone(),
        what,
    }
}
