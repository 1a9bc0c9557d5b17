//! From a row of `sql/verify_events.sql` to what is judged. Made for rows that anybody may have changed:
//! nothing in them is trusted to have its form.

use run_events::digest::Content;
use run_events::{Digest, IdempotencyKey, json};
use serde_json::Value;
use sqlx::Row;
use sqlx::postgres::PgRow;

use super::run::Event;
use crate::server_time::ServerTime;

/// The event of a row.
pub(super) fn event(row: &PgRow) -> Result<Event, sqlx::Error> {
    let emitted_at: ServerTime = row.try_get(6)?;
    Ok(Event {
        run_seq: row.try_get(1)?,
        stream_id: row.try_get(2)?,
        source_offset: row.try_get(3)?,
        event_id: row.try_get(4)?,
        key: bytes(row, 5)?.map(IdempotencyKey),
        emitted_at: emitted_at.into(),
        engine_attempt_id: row.try_get(7)?,
        content: content(row)?,
        content_digest: bytes(row, 8)?.map(Digest),
        is_erased: row.try_get(21)?,
        chain_digest: bytes(row, 9)?.map(Digest),
    })
}

fn bytes(row: &PgRow, column: usize) -> Result<Option<[u8; 32]>, sqlx::Error> {
    let bytes: &[u8] = row.try_get(column)?;
    Ok(bytes.try_into().ok())
}

/// The digest of the content as it is now; `None` where it is none that could have been appended.
fn content(row: &PgRow) -> Result<Option<Digest>, sqlx::Error> {
    let payload = match row.try_get::<Option<&str>, _>(18)?.map(json::value) {
        None => None,
        Some(Ok(Value::Object(map))) => Some(map),
        Some(_) => return Ok(None),
    };
    let content = Content {
        event_type: row.try_get(11)?,
        step_id: row.try_get(12)?,
        logical_attempt_id: row.try_get(13)?,
        plan_id: row.try_get(14)?,
        plan_version: row.try_get(15)?,
        project_id: row.try_get(16)?,
        environment_id: row.try_get(17)?,
        payload: payload.as_ref(),
    };
    Ok(content.digest())
}
