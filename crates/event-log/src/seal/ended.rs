//! Which days there are, and whether nothing can be added to one any more.

use std::time::Duration;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, SecondsFormat, TimeDelta, Utc};
use sqlx::{Connection, PgConnection};
use tokio::time::Instant;

use super::SealError;
use crate::fault::sqlstate;

/// How long after its end a day is sealed at the earliest: by so much may the clock of a standby that
/// takes over be behind, and still give no event to a day that is sealed.
pub const MARGIN: TimeDelta = TimeDelta::minutes(10);

/// `lock_not_available`: the lock_timeout passed.
const LOCK_TIMED_OUT: &str = "55P03";

/// Midnight at the beginning of a day.
pub(super) fn start(day: NaiveDate) -> DateTime<Utc> {
    day.and_time(NaiveTime::MIN).and_utc()
}

/// Midnight at its end.
pub(super) fn end(day: NaiveDate) -> DateTime<Utc> {
    start(day.checked_add_days(Days::new(1)).unwrap_or(day))
}

/// The day of the log's first event; `None` where it has none.
///
/// # Errors
/// The database's.
pub async fn first_day(connection: &mut PgConnection) -> Result<Option<NaiveDate>, sqlx::Error> {
    // Within a stream the first event is the earliest, and the index has it.
    sqlx::query_scalar(
        "SELECT (min(first.persisted_at) AT TIME ZONE 'UTC')::date
         FROM event_log.stream s
         CROSS JOIN LATERAL (SELECT e.persisted_at FROM event_log.event e WHERE e.stream_id = s.stream_id
                             ORDER BY e.source_offset LIMIT 1) AS first",
    )
    .fetch_one(connection)
    .await
}

/// The last day that may be sealed now, by the database's clock.
///
/// # Errors
/// The database's.
pub async fn last_day(connection: &mut PgConnection) -> Result<NaiveDate, sqlx::Error> {
    let now: DateTime<Utc> = sqlx::query_scalar("SELECT clock_timestamp()")
        .fetch_one(connection)
        .await?;
    let today = (now - MARGIN).date_naive();
    Ok(today.pred_opt().unwrap_or(today))
}

/// Makes sure that nothing is added any more to `day` or a day before it: it is over, and each batch that
/// was under way has ended. Waits `patience` at most for batches. Every later batch has a later time: it
/// reads the clock under the lock of its stream's row, which is what is waited for here.
///
/// # Errors
/// [`SealError::NotOver`], [`SealError::Busy`], or the database's.
pub async fn ended(
    connection: &mut PgConnection,
    day: NaiveDate,
    patience: Duration,
) -> Result<(), SealError> {
    if day > last_day(connection).await? {
        let from = end(day) + MARGIN;
        let from = from.to_rfc3339_opts(SecondsFormat::Secs, true);
        return Err(SealError::NotOver { day, from });
    }
    let open: Vec<(i64, String, i32)> = sqlx::query_as(
        "SELECT stream_id, topic, partition FROM event_log.stream WHERE closed_at IS NULL ORDER BY stream_id",
    )
    .fetch_all(&mut *connection)
    .await?;
    let deadline = Instant::now() + patience;
    for (stream_id, topic, partition) in open {
        let left = deadline.saturating_duration_since(Instant::now());
        match await_batch(connection, stream_id, left).await {
            Err(error) if sqlstate(&error).as_deref() == Some(LOCK_TIMED_OUT) => {
                return Err(SealError::Busy { topic, partition });
            }
            ended => ended?,
        }
    }
    Ok(())
}

async fn await_batch(
    connection: &mut PgConnection,
    stream_id: i64,
    patience: Duration,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    // 0 would be for ever.
    let timeout = format!("{}ms", patience.as_millis().max(100));
    sqlx::query("SELECT set_config('lock_timeout', $1, true)")
        .bind(timeout)
        .execute(&mut *transaction)
        .await?;
    sqlx::query(include_str!("../sql/seal_await_batch.sql"))
        .bind(stream_id)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}
