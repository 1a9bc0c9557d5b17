//! What the product has made of the records: its views, read into [`Table`]s.
//!
//! Called by [`crate::Pipeline`]. Only documented views and columns are named here.

use crate::oracle::expect::{after, place, stream};
use crate::oracle::json::Json;
use crate::oracle::log::Reading;
use crate::oracle::table::{Cell, Row, Table};
use anyhow::{Context, Result, bail};
use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, Row as _};
use std::collections::BTreeMap;

/// A column, by how it becomes a cell.
#[derive(Clone, Copy, Debug)]
enum Column {
    Text(&'static str),
    Int(&'static str),
    /// A time, as microseconds since 1970 UTC.
    Time(&'static str),
    /// Bytes, as hex digits.
    Bytes(&'static str),
}

use Column::{Bytes, Int, Text, Time};

const RUN_EVENTS: &[Column] = &[
    Int("partition"),
    Int("source_offset"),
    Text("tenant_id"),
    Text("run_id"),
    Int("run_seq"),
    Text("event_id"),
    Text("event_type"),
    Text("idempotency_key"),
    Text("project_id"),
    Text("environment_id"),
    Text("plan_id"),
    Text("plan_version"),
    Int("engine_attempt_id"),
    Int("logical_attempt_id"),
    Text("step_id"),
    Time("emitted_at"),
    Time("persisted_at"),
    Text("payload"),
    Text("topic"),
];
const DEAD_LETTERS: &[Column] = &[
    Int("partition"),
    Int("source_offset"),
    Text("topic"),
    Text("tenant_id"),
    Text("run_id"),
    Text("reason"),
    Text("detail"),
    Bytes("key"),
    Bytes("value"),
];
const STREAMS: &[Column] = &[
    Int("partition"),
    Int("generation"),
    Text("topic"),
    Int("start_offset"),
    Int("next_offset"),
    Int("appended"),
    Int("duplicates"),
    Int("dead_lettered"),
    Int("skipped"),
    Text("halted_reason"),
    Time("closed_at"),
];
const RUN_CURRENT: &[Column] = &[
    Text("tenant_id"),
    Text("run_id"),
    Text("project_id"),
    Text("environment_id"),
    Text("plan_id"),
    Text("plan_version"),
    Text("status"),
    Text("consistency"),
    Int("last_event_seq"),
    Time("queued_at"),
    Time("started_at"),
    Time("ended_at"),
    Time("sort_at"),
    Time("emitted_started_at"),
    Time("emitted_ended_at"),
    Int("queue_wait_ms"),
    Int("active_ms"),
    Int("paused_ms"),
    Int("wall_ms"),
    Int("emitted_wall_ms"),
    Int("steps_running"),
    Int("steps_succeeded"),
    Int("steps_failed"),
    Int("steps_skipped"),
    Int("retries"),
    Text("error"),
    Time("projected_at"),
];
const STEP_ATTEMPT: &[Column] = &[
    Text("tenant_id"),
    Text("run_id"),
    Text("step_id"),
    Int("logical_attempt_id"),
    Int("engine_attempt_id"),
    Text("status"),
    Time("started_at"),
    Time("completed_at"),
    Int("duration_ms"),
    Time("emitted_started_at"),
    Time("emitted_completed_at"),
    Text("error"),
];
const RUN_INCONSISTENCY: &[Column] = &[
    Text("tenant_id"),
    Text("run_id"),
    Text("event_id"),
    Text("event_type"),
    Int("run_seq"),
    Time("persisted_at"),
    Text("step_id"),
    Int("logical_attempt_id"),
    Text("prior_state"),
    Text("attempted_state"),
    Text("code"),
    Text("project_id"),
    Text("environment_id"),
];
const RUN_STATE_INTERVAL: &[Column] = &[
    Text("tenant_id"),
    Text("run_id"),
    Int("interval_no"),
    Text("state"),
    Time("started_at"),
    Time("ended_at"),
    Int("duration_ms"),
    Time("emitted_started_at"),
    Time("emitted_ended_at"),
    Text("project_id"),
    Text("environment_id"),
    Text("plan_id"),
    Text("plan_version"),
    Int("last_event_seq"),
    Time("projected_at"),
];

/// The projections that the models which are compared come from.
const PROJECTIONS: &[&str] = &["run_status", "run_timeline", "run_stats"];

const RUN_HOURLY: &[Column] = &[
    Text("tenant_id"),
    Time("hour"),
    Text("project_id"),
    Text("environment_id"),
    Text("plan_id"),
    Int("queued"),
    Int("started"),
    Int("completed"),
    Int("failed"),
    Int("cancelled"),
    Int("duration_ms_sum"),
    Text("durations"),
    Int("last_event_seq"),
    Time("projected_at"),
];
const RUN_DAILY: &[Column] = &[
    Text("tenant_id"),
    Time("day"),
    Text("project_id"),
    Text("environment_id"),
    Text("plan_id"),
    Int("queued"),
    Int("started"),
    Int("completed"),
    Int("failed"),
    Int("cancelled"),
    Int("duration_ms_sum"),
    Text("durations"),
    Int("last_event_seq"),
    Time("projected_at"),
];
const STEP_DAILY: &[Column] = &[
    Text("tenant_id"),
    Time("day"),
    Text("plan_id"),
    Text("step_id"),
    Int("started"),
    Int("succeeded"),
    Int("failed"),
    Int("skipped"),
    Int("retries"),
    Int("duration_ms_sum"),
    Text("durations"),
    Int("last_event_seq"),
    Time("projected_at"),
];

impl Column {
    fn name(self) -> &'static str {
        match self {
            Text(name) | Int(name) | Time(name) | Bytes(name) => name,
        }
    }

    fn expression(self) -> String {
        let name = self.name();
        match self {
            Text(_) => format!("{name}::text AS {name}"),
            Int(_) => format!("{name}::int8 AS {name}"),
            Time(_) => format!("(extract(epoch FROM {name}) * 1000000)::int8 AS {name}"),
            Bytes(_) => format!("encode({name}, 'hex') AS {name}"),
        }
    }
}

/// Everything that is compared with the oracle.
#[derive(Debug)]
pub struct Observed {
    /// `event_log.run_events`
    pub run_events: Table,
    /// `event_log.dead_letters`
    pub dead_letters: Table,
    /// `event_log.streams`
    pub ledger: Table,
    /// `read_model.run_current`
    pub run_current: Table,
    /// `read_model.step_attempt`
    pub step_attempt: Table,
    /// `read_model.run_inconsistency`
    pub run_inconsistency: Table,
    /// `read_model.run_state_interval`
    pub run_state_interval: Table,
    /// `read_model.run_hourly`
    pub run_hourly: Table,
    /// `read_model.run_daily`
    pub run_daily: Table,
    /// `read_model.step_daily`
    pub step_daily: Table,
}

/// Reads all of it.
///
/// # Errors
/// Where a view or a column is not there.
pub async fn observe(pool: &PgPool) -> Result<Observed> {
    let by_place: Identity = |row| Ok(place(int(row, "partition")?, int(row, "source_offset")?));
    let by_stream: Identity = |row| Ok(stream(int(row, "partition")?, int(row, "generation")?));
    let by_run: Identity = |row| texts(row, &["tenant_id", "run_id"]);
    let by_attempt: Identity = |row| {
        texts(
            row,
            &["tenant_id", "run_id", "step_id", "logical_attempt_id"],
        )
    };
    let by_interval: Identity = |row| texts(row, &["tenant_id", "run_id", "interval_no"]);
    let by_event: Identity = |row| texts(row, &["tenant_id", "run_id", "event_id"]);
    Ok(Observed {
        run_events: read(pool, "event_log.run_events", RUN_EVENTS, by_place).await?,
        dead_letters: read(
            pool,
            // Rows with the same place are told apart by their order.
            "event_log.dead_letters ORDER BY dead_letter_id",
            DEAD_LETTERS,
            by_place,
        )
        .await?,
        ledger: read(pool, "event_log.streams", STREAMS, by_stream).await?,
        run_current: read(pool, "read_model.run_current", RUN_CURRENT, by_run).await?,
        step_attempt: read(pool, "read_model.step_attempt", STEP_ATTEMPT, by_attempt).await?,
        run_inconsistency: read(
            pool,
            "read_model.run_inconsistency",
            RUN_INCONSISTENCY,
            by_event,
        )
        .await?,
        run_state_interval: read(
            pool,
            "read_model.run_state_interval",
            RUN_STATE_INTERVAL,
            by_interval,
        )
        .await?,
        run_hourly: read(pool, "read_model.run_hourly", RUN_HOURLY, |row| {
            let key = [
                "tenant_id",
                "hour",
                "project_id",
                "environment_id",
                "plan_id",
            ];
            texts(row, &key)
        })
        .await?,
        run_daily: read(pool, "read_model.run_daily", RUN_DAILY, |row| {
            let key = [
                "tenant_id",
                "day",
                "project_id",
                "environment_id",
                "plan_id",
            ];
            texts(row, &key)
        })
        .await?,
        step_daily: read(pool, "read_model.step_daily", STEP_DAILY, |row| {
            texts(row, &["tenant_id", "day", "plan_id", "step_id"])
        })
        .await?,
    })
}

/// `persisted_at` by partition and offset, in microseconds.
///
/// # Errors
/// Where a row has none.
pub fn persisted_at(run_events: &Table) -> Result<BTreeMap<(i32, i64), i64>> {
    let entry = |row: &Row| {
        let partition = i32::try_from(int(row, "partition")?)?;
        Ok((
            (partition, int(row, "source_offset")?),
            int(row, "persisted_at")?,
        ))
    };
    run_events.values().map(entry).collect()
}

type Identity = fn(&Row) -> Result<Vec<String>>;

async fn read(pool: &PgPool, view: &str, columns: &[Column], identity: Identity) -> Result<Table> {
    let list: Vec<String> = columns.iter().map(|column| column.expression()).collect();
    let sql = format!(
        "SELECT to_jsonb(t)::text FROM (SELECT {} FROM {view}) AS t",
        list.join(", ")
    );
    let rows = sqlx::query(AssertSqlSafe(sql))
        .fetch_all(pool)
        .await
        .with_context(|| format!("reading {view}"))?;
    let mut table = Table::new();
    let mut rows_of = BTreeMap::new();
    for row in rows {
        let text: String = row.try_get(0)?;
        let Ok(Json::Object(members)) = Json::read(text.as_bytes()) else {
            bail!("{view}: a row is not a JSON object: {text}");
        };
        let cells: Row = columns
            .iter()
            .map(|column| (column.name(), cell(members.get(column.name()))))
            .collect();
        let key = identity(&cells).with_context(|| view.to_owned())?;
        let before = rows_of.entry(key.clone()).or_insert(0);
        table.insert(after(key, *before), cells);
        *before += 1;
    }
    Ok(table)
}

fn cell(value: Option<&Json>) -> Cell {
    match value {
        Some(Json::Text(text)) => Cell::Text(text.clone()),
        Some(Json::Number {
            integer: Some(value),
            ..
        }) => Cell::Int(*value),
        _ => Cell::Null,
    }
}

fn int(row: &Row, column: &str) -> Result<i64> {
    match row.get(column) {
        Some(Cell::Int(value)) => Ok(*value),
        other => bail!("column {column} is {other:?}"),
    }
}

fn texts(row: &Row, columns: &[&str]) -> Result<Vec<String>> {
    let text = |column: &&str| match row.get(*column) {
        Some(Cell::Text(text)) => Ok(text.clone()),
        Some(Cell::Int(value)) => Ok(value.to_string()),
        other => bail!("column {column} is {other:?}"),
    };
    columns.iter().map(text).collect()
}

/// How far ingest and a projection are, over all partitions of a database with one topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Sum of the ledger's next offsets.
    pub stored: i64,
    /// Sum of the ledger's appended records.
    pub appended: i64,
    /// Sum of the checkpoints' applied events.
    pub applied: i64,
}

/// Reads the progress of ingest and of the projection `run_status`.
///
/// # Errors
/// Where the database does not answer.
pub async fn progress(pool: &PgPool) -> Result<Progress> {
    let row = sqlx::query(
        "SELECT (SELECT coalesce(sum(next_offset - start_offset), 0)::int8 FROM event_log.streams),
                (SELECT coalesce(sum(appended), 0)::int8 FROM event_log.streams),
                (SELECT coalesce(sum(applied), 0)::int8 FROM read_model.projection_checkpoints
                  WHERE projection = 'run_status' AND state = 'live')",
    )
    .fetch_one(pool)
    .await?;
    Ok(Progress {
        stored: row.try_get(0)?,
        appended: row.try_get(1)?,
        applied: row.try_get(2)?,
    })
}

/// What has been read of each partition, in the order in which it was read.
///
/// # Errors
/// Where the database does not answer.
pub async fn readings(pool: &PgPool) -> Result<Vec<Reading>> {
    let rows = sqlx::query(
        "SELECT partition::int4, generation::int8, start_offset::int8, next_offset::int8
           FROM event_log.streams ORDER BY partition, generation",
    )
    .fetch_all(pool)
    .await?;
    let reading = |row: &sqlx::postgres::PgRow| {
        Ok(Reading {
            partition: row.try_get(0)?,
            generation: row.try_get(1)?,
            start: row.try_get(2)?,
            end: row.try_get(3)?,
        })
    };
    rows.iter().map(reading).collect()
}

/// Per partition of the ledger: next offset of the open generation, appended by all of them, and the
/// checkpoint's next offset and applied events on the same, each of the projection that is furthest
/// from them (0 where there is no checkpoint).
///
/// # Errors
/// Where the database does not answer.
pub async fn positions(pool: &PgPool) -> Result<BTreeMap<i32, [i64; 4]>> {
    let rows = sqlx::query(
        "WITH each AS (
           SELECT s.partition,
                  coalesce(max(s.next_offset) FILTER (WHERE s.closed_at IS NULL), 0) AS stored,
                  sum(s.appended) AS appended,
                  coalesce(max(c.next_offset) FILTER (WHERE s.closed_at IS NULL), 0) AS checkpoint,
                  coalesce(sum(c.applied), 0) AS applied
             FROM event_log.streams AS s
            CROSS JOIN unnest($1::text[]) AS p (projection)
             LEFT JOIN read_model.projection_checkpoints AS c
               ON c.topic = s.topic AND c.partition = s.partition AND c.generation = s.generation
              AND c.projection = p.projection AND c.state = 'live'
            GROUP BY s.partition, p.projection
         )
         SELECT partition::int4, min(stored)::int8, min(appended)::int8, min(checkpoint)::int8,
                (array_agg(applied ORDER BY abs(applied - appended) DESC))[1]::int8
           FROM each
          GROUP BY partition",
    )
    .bind(PROJECTIONS)
    .fetch_all(pool)
    .await?;
    let entry = |row: &sqlx::postgres::PgRow| {
        Ok((
            row.try_get(0)?,
            [
                row.try_get(1)?,
                row.try_get(2)?,
                row.try_get(3)?,
                row.try_get(4)?,
            ],
        ))
    };
    rows.iter().map(entry).collect()
}
