//! Reading the log. Projectors read streams below the horizon; the CLI reads runs.
//!
//! The horizon of a stream is its `next_offset`. Its row is locked from the first statement of a
//! batch to the commit, by one owner, so events of one stream become visible in offset order: read
//! the horizon first, and everything below it is there.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use run_events::{EventType, IdempotencyKey, LoggedEvent, RunEvent, json};
use serde_json::{Map, Value};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Row};

mod stream_page;

pub use stream_page::{PageSize, Payloads, stream_events};

/// Where a stream stands: what ingest has committed of one topic, partition and generation.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct StreamHead {
    /// The stream's number.
    pub stream_id: i64,
    /// The Kafka topic.
    pub topic: String,
    /// The Kafka partition.
    pub partition: i32,
    /// The generation; the next one is read when this one is closed and read to its end.
    pub generation: i32,
    /// The first offset it accounts for.
    pub start_offset: i64,
    /// The horizon: everything below is visible.
    pub next_offset: i64,
    /// Events among those offsets.
    pub appended: i64,
    /// Records known to be duplicates.
    pub duplicates: i64,
    /// Records kept as dead letters.
    pub dead_lettered: i64,
    /// Offsets without a record.
    pub skipped: i64,
    /// Who holds the claim, for people.
    pub owner: Option<String>,
    /// Why it waits for an operator.
    pub halted_reason: Option<String>,
    /// When its last batch was persisted.
    pub last_persisted_at: Option<DateTime<Utc>>,
    /// When the next generation took over.
    pub closed_at: Option<DateTime<Utc>>,
}

/// An event with its place in the log.
#[derive(Debug, Clone)]
pub struct StreamEvent {
    /// The run's number: the narrow key to read its other events by.
    pub run_no: i64,
    /// The stream it came through.
    pub stream_id: i64,
    /// The Kafka offset.
    pub source_offset: i64,
    /// The event itself.
    pub logged: LoggedEvent,
}

/// The heads of all streams, in (topic, partition, generation) order.
///
/// # Errors
/// The database's.
pub async fn stream_heads(connection: &mut PgConnection) -> Result<Vec<StreamHead>, sqlx::Error> {
    sqlx::query_as(include_str!("sql/stream_heads.sql"))
        .fetch_all(connection)
        .await
}

/// The topic and partition of each stream that the login may know of: for an analyst those of its own tenants.
///
/// # Errors
/// The database's.
pub async fn places(
    connection: &mut PgConnection,
) -> Result<HashMap<i64, (String, i32)>, sqlx::Error> {
    let rows: Vec<(i64, String, i32)> =
        sqlx::query_as("SELECT stream_id, topic, partition FROM event_log.stream")
            .fetch_all(connection)
            .await?;
    let place = |(stream_id, topic, partition)| (stream_id, (topic, partition));
    Ok(rows.into_iter().map(place).collect())
}

/// The horizon of one stream as it is now; `None` where there is no such stream.
///
/// # Errors
/// The database's.
pub async fn horizon(
    connection: &mut PgConnection,
    stream_id: i64,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar("SELECT next_offset FROM event_log.stream WHERE stream_id = $1")
        .bind(stream_id)
        .fetch_optional(connection)
        .await
}

/// When the first event of a stream with `from <= offset < horizon` was persisted; `None` = there is none.
///
/// # Errors
/// The database's.
pub async fn next_persisted_at(
    connection: &mut PgConnection,
    stream_id: i64,
    from: i64,
    horizon: i64,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    let next = "SELECT persisted_at FROM event_log.event \
                WHERE stream_id = $1 AND source_offset >= $2 AND source_offset < $3 \
                ORDER BY source_offset LIMIT 1";
    sqlx::query_scalar(next)
        .bind(stream_id)
        .bind(from)
        .bind(horizon)
        .fetch_optional(connection)
        .await
}

/// How many events of a stream were taken out of the log, with their runs. A reader that begins now does not
/// meet them.
///
/// # Errors
/// The database's.
pub async fn retired_events(
    connection: &mut PgConnection,
    stream_id: i64,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT coalesce(sum(events), 0)::bigint FROM event_log.retired_events WHERE stream_id = $1",
    )
    .bind(stream_id)
    .fetch_one(connection)
    .await
}

/// Up to `limit` events of one run with `from <= runSeq <= to`, in runSeq order.
///
/// # Errors
/// The database's.
pub async fn run_events(
    connection: &mut PgConnection,
    run_no: i64,
    from: i64,
    to: i64,
    limit: i64,
) -> Result<Vec<StreamEvent>, sqlx::Error> {
    sqlx::query_as(include_str!("sql/run_events.sql"))
        .bind(run_no)
        .bind(from)
        .bind(to)
        .bind(limit)
        .fetch_all(connection)
        .await
}

/// A run of the log.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct LoggedRun {
    /// Its number.
    pub run_no: i64,
    /// The tenant that owns it.
    pub tenant_id: String,
    /// Its id within the tenant.
    pub run_id: String,
}

/// The runs with numbers above `after` and up to `to`, by number.
///
/// # Errors
/// The database's.
pub async fn runs_between(
    connection: &mut PgConnection,
    after: i64,
    to: i64,
) -> Result<Vec<LoggedRun>, sqlx::Error> {
    sqlx::query_as(
        "SELECT run_no, tenant_id, run_id FROM event_log.run WHERE run_no > $1 AND run_no <= $2 ORDER BY run_no",
    )
    .bind(after)
    .bind(to)
    .fetch_all(connection)
    .await
}

/// The runs with these numbers, by number.
///
/// # Errors
/// The database's.
pub async fn runs_of(
    connection: &mut PgConnection,
    run_nos: &[i64],
) -> Result<Vec<LoggedRun>, sqlx::Error> {
    sqlx::query_as(
        "SELECT run_no, tenant_id, run_id FROM event_log.run WHERE run_no = ANY ($1) ORDER BY run_no",
    )
    .bind(run_nos)
    .fetch_all(connection)
    .await
}

/// The highest run number; 0 where there is no run.
///
/// # Errors
/// The database's.
pub async fn last_run_no(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT coalesce(max(run_no), 0) FROM event_log.run")
        .fetch_one(connection)
        .await
}

/// Up to `limit` events of these runs (number, last runSeq that is wanted), by run and runSeq, behind
/// `after` (the same two of the last event that was read; zeros at the start).
///
/// # Errors
/// The database's.
pub async fn events_of_runs(
    connection: &mut PgConnection,
    runs: &[(i64, i64)],
    after: (i64, i64),
    limit: i64,
) -> Result<Vec<StreamEvent>, sqlx::Error> {
    let (numbers, last): (Vec<i64>, Vec<i64>) = runs.iter().copied().unzip();
    sqlx::query_as(include_str!("sql/events_of_runs.sql"))
        .bind(numbers)
        .bind(last)
        .bind(after.0)
        .bind(after.1)
        .bind(limit)
        .fetch_all(connection)
        .await
}

/// The last runSeq of each of these runs that a reader has passed which stands at these places (stream,
/// next offset). Runs of which it has passed nothing are left out.
///
/// # Errors
/// The database's.
pub async fn last_read(
    connection: &mut PgConnection,
    runs: &[i64],
    reader: &[(i64, i64)],
) -> Result<Vec<(i64, i64)>, sqlx::Error> {
    let (streams, offsets): (Vec<i64>, Vec<i64>) = reader.iter().copied().unzip();
    sqlx::query_as(include_str!("sql/last_read.sql"))
        .bind(runs)
        .bind(streams)
        .bind(offsets)
        .fetch_all(connection)
        .await
}

/// The number of a tenant's run; `None` where the tenant has no such run.
///
/// # Errors
/// The database's.
pub async fn run_no(
    connection: &mut PgConnection,
    tenant_id: &str,
    run_id: &str,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar("SELECT run_no FROM event_log.run WHERE tenant_id = $1 AND run_id = $2")
        .bind(tenant_id)
        .bind(run_id)
        .fetch_optional(connection)
        .await
}

/// By the places of the columns, which are the same in all statements that read events: finding them by
/// name costs as much as all else.
impl FromRow<'_, PgRow> for StreamEvent {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let emitted_at: DateTime<Utc> = row.try_get(4)?;
        let persisted_at: DateTime<Utc> = row.try_get(5)?;
        let event = RunEvent {
            event_id: row.try_get(6)?,
            engine_attempt_id: row.try_get(7)?,
            logical_attempt_id: row.try_get(8)?,
            idempotency_key: IdempotencyKey(row.try_get(9)?),
            tenant_id: row.try_get(10)?,
            run_id: row.try_get(11)?,
            event_type: EventType::from_name(row.try_get::<&str, _>(12)?),
            project_id: row.try_get(13)?,
            environment_id: row.try_get(14)?,
            plan_id: row.try_get(15)?,
            plan_version: row.try_get(16)?,
            step_id: row.try_get(17)?,
            payload: payload(row.try_get(18)?)?,
            emitted_at: emitted_at.into(),
        };
        Ok(Self {
            run_no: row.try_get(0)?,
            stream_id: row.try_get(2)?,
            source_offset: row.try_get(3)?,
            logged: LoggedEvent {
                run_seq: row.try_get(1)?,
                persisted_at: persisted_at.into(),
                event,
            },
        })
    }
}

fn payload(text: Option<&str>) -> Result<Option<Map<String, Value>>, sqlx::Error> {
    match text.map(json::value) {
        Some(Ok(Value::Object(map))) => Ok(Some(map)),
        Some(Err(error)) => Err(sqlx::Error::Decode(Box::new(error))),
        _ => Ok(None),
    }
}

/// How many dead letters wait for somebody, by reason.
///
/// # Errors
/// The database's.
pub async fn pending_dead_letters(
    executor: impl sqlx::PgExecutor<'_>,
) -> Result<Vec<(String, i64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT reason, count(*) FROM event_log.dead_letter WHERE status = 'pending' GROUP BY reason",
    )
    .fetch_all(executor)
    .await
}

/// Bytes of the pending dead letters of each topic, as the quotas count them.
///
/// # Errors
/// The database's.
pub async fn dead_letter_bytes(
    executor: impl sqlx::PgExecutor<'_>,
) -> Result<Vec<(String, i64)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT topic, sum(bytes)::bigint
         FROM event_log.dead_letter_usage JOIN event_log.stream USING (stream_id) GROUP BY topic",
    )
    .fetch_all(executor)
    .await
}
