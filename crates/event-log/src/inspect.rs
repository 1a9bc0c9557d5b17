//! Looking things up for people: what became of an event, dead letters, how far behind a reader is.
//! Called by the CLI. Reads only, through the views for people where an index serves them.

use chrono::{DateTime, Utc};
use run_events::Micros;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Row};
use uuid::Uuid;

/// Where an event is in the log.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct FoundEvent {
    /// The tenant that owns the run.
    pub tenant_id: String,
    /// The run.
    pub run_id: String,
    /// Its place in the run.
    pub run_seq: i64,
    /// The event's identity.
    pub event_id: Uuid,
    /// What happened.
    pub event_type: String,
    /// The key, 64 lower-case hex digits.
    pub idempotency_key: String,
    /// When the log took it.
    pub persisted_at: DateTime<Utc>,
    /// The Kafka topic it came from.
    pub topic: String,
    /// The Kafka partition it came from.
    pub partition: i32,
    /// Its Kafka offset.
    pub source_offset: i64,
}

/// A dead letter without its bytes.
#[derive(Debug, Clone, PartialEq, FromRow)]
pub struct DeadLetter {
    /// The dead letter's number.
    pub dead_letter_id: i64,
    /// The Kafka topic it came from.
    pub topic: String,
    /// The Kafka partition it came from.
    pub partition: i32,
    /// Its Kafka offset.
    pub source_offset: i64,
    /// The tenant, where the record names a valid one that its topic may speak for.
    pub tenant_id: Option<String>,
    /// The run, where the record names a valid one.
    pub run_id: Option<String>,
    /// Why it could not be appended.
    pub reason: String,
    /// What exactly is wrong.
    pub detail: String,
    /// When it was kept.
    pub received_at: DateTime<Utc>,
    /// `pending`, `replayed` or `discarded`.
    pub status: String,
    /// Whether only the first bytes of key, headers or value are kept.
    pub truncated: bool,
    /// Bytes of the whole value; `None` = a tombstone.
    pub value_bytes: Option<i64>,
}

/// A dead letter with its bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetterRecord {
    /// All but the bytes.
    pub letter: DeadLetter,
    /// The record's key; `None` = it had none.
    pub key: Option<Vec<u8>>,
    /// The record's value, or its first bytes; `None` = a tombstone.
    pub value: Option<Vec<u8>>,
    /// SHA-256 of the whole value.
    pub value_digest: Option<Vec<u8>>,
    /// The record's headers in order: name and value, both bytes on the wire.
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// Which dead letters are wanted; `None` = any. A tenant leaves out the letters of no known tenant.
#[derive(Debug, Clone, Copy, Default)]
pub struct DeadLetterFilter<'a> {
    /// Only this tenant's.
    pub tenant_id: Option<&'a str>,
    /// Only with this reason.
    pub reason: Option<&'a str>,
    /// Only from this topic.
    pub topic: Option<&'a str>,
}

/// The event with this id, if the log has it and it is the tenant's (`None` = any tenant's).
///
/// # Errors
/// The database's.
pub async fn event_by_id(
    connection: &mut PgConnection,
    tenant_id: Option<&str>,
    event_id: Uuid,
) -> Result<Option<FoundEvent>, sqlx::Error> {
    sqlx::query_as(
        "SELECT tenant_id, run_id, run_seq, event_id, event_type, idempotency_key,
                persisted_at, topic, partition, source_offset
         FROM event_log.run_events
         WHERE event_id = $1 AND ($2::text IS NULL OR tenant_id = $2)",
    )
    .bind(event_id)
    .bind(tenant_id)
    .fetch_optional(connection)
    .await
}

/// The events with this idempotency key. A key is unique per run, not in the log; without `run_id`
/// every run's keys are searched, which reads the whole index.
///
/// # Errors
/// The database's.
pub async fn events_by_key(
    connection: &mut PgConnection,
    tenant_id: Option<&str>,
    run_id: Option<&str>,
    key: &[u8; 32],
) -> Result<Vec<FoundEvent>, sqlx::Error> {
    sqlx::query_as(include_str!("sql/events_by_key.sql"))
        .bind(tenant_id)
        .bind(run_id)
        .bind(key.as_slice())
        .fetch_all(connection)
        .await
}

/// Dead letters whose value holds this text: an event id or a key. Reads every dead letter of the
/// tenant.
///
/// # Errors
/// The database's.
pub async fn dead_letters_holding(
    connection: &mut PgConnection,
    tenant_id: Option<&str>,
    text: &str,
    limit: i64,
) -> Result<Vec<DeadLetter>, sqlx::Error> {
    sqlx::query_as(
        "SELECT dead_letter_id, topic, partition, source_offset, tenant_id, run_id,
                reason, detail, received_at, status, truncated, value_bytes
         FROM event_log.dead_letters
         WHERE ($1::text IS NULL OR tenant_id = $1) AND position($2::bytea in value) > 0
         ORDER BY dead_letter_id
         LIMIT $3",
    )
    .bind(tenant_id)
    .bind(text.as_bytes())
    .bind(limit)
    .fetch_all(connection)
    .await
}

/// Up to `limit` dead letters with a number above `after`, oldest first.
///
/// # Errors
/// The database's.
pub async fn dead_letters(
    connection: &mut PgConnection,
    filter: DeadLetterFilter<'_>,
    after: i64,
    limit: i64,
) -> Result<Vec<DeadLetter>, sqlx::Error> {
    sqlx::query_as(
        "SELECT dead_letter_id, topic, partition, source_offset, tenant_id, run_id,
                reason, detail, received_at, status, truncated, value_bytes
         FROM event_log.dead_letters
         WHERE dead_letter_id > $1
           AND ($2::text IS NULL OR tenant_id = $2)
           AND ($3::text IS NULL OR reason = $3)
           AND ($4::text IS NULL OR topic = $4)
         ORDER BY dead_letter_id
         LIMIT $5",
    )
    .bind(after)
    .bind(filter.tenant_id)
    .bind(filter.reason)
    .bind(filter.topic)
    .bind(limit)
    .fetch_all(connection)
    .await
}

/// One dead letter with its bytes; `None` where there is none of that number, or it is not the
/// tenant's (`None` = any tenant's).
///
/// # Errors
/// The database's.
pub async fn dead_letter(
    connection: &mut PgConnection,
    tenant_id: Option<&str>,
    dead_letter_id: i64,
) -> Result<Option<DeadLetterRecord>, sqlx::Error> {
    sqlx::query_as(include_str!("sql/dead_letter.sql"))
        .bind(dead_letter_id)
        .bind(tenant_id)
        .fetch_optional(connection)
        .await
}

/// For each (stream, offset): how many seconds ago, by the database's clock, the oldest event of the
/// stream at or above that offset was persisted; 0 where there is none. In the order asked.
///
/// # Errors
/// The database's.
pub async fn oldest_event_ages(
    connection: &mut PgConnection,
    from: &[(i64, i64)],
) -> Result<Vec<f64>, sqlx::Error> {
    let (streams, offsets): (Vec<i64>, Vec<i64>) = from.iter().copied().unzip();
    sqlx::query_scalar(include_str!("sql/oldest_event_ages.sql"))
        .bind(streams)
        .bind(offsets)
        .fetch_all(connection)
        .await
}

/// The runSeq of a run's last event, or of its last one that was persisted at `until` or before; `None`
/// where there is none. With a time it looks back from the last event on, event by event: persistedAt
/// need not rise with runSeq where events came through two partitions.
///
/// # Errors
/// The database's.
pub async fn run_head(
    connection: &mut PgConnection,
    run_no: i64,
    until: Option<Micros>,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT max(run_seq) FROM event_log.event
         WHERE run_no = $1 AND ($2::timestamptz IS NULL OR persisted_at <= $2)",
    )
    .bind(run_no)
    .bind(until.map(Micros::to_datetime))
    .fetch_one(connection)
    .await
}

/// The tenants that have a run of this name, of those that may be seen (`None` = all). Without a
/// tenant every run's name is searched, which reads the whole index.
///
/// # Errors
/// The database's.
pub async fn tenants_of_run(
    connection: &mut PgConnection,
    tenant_id: Option<&str>,
    run_id: &str,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT tenant_id FROM event_log.run
         WHERE run_id = $1 AND ($2::text IS NULL OR tenant_id = $2)
         ORDER BY tenant_id",
    )
    .bind(run_id)
    .bind(tenant_id)
    .fetch_all(connection)
    .await
}

impl FromRow<'_, PgRow> for DeadLetterRecord {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let names: Vec<Vec<u8>> = row.try_get("header_names")?;
        let values: Vec<Option<Vec<u8>>> = row.try_get("header_values")?;
        Ok(Self {
            letter: DeadLetter::from_row(row)?,
            key: row.try_get("key")?,
            value: row.try_get("value")?,
            value_digest: row.try_get("value_digest")?,
            headers: names.into_iter().zip(values).collect(),
        })
    }
}
