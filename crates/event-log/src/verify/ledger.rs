//! Compares the events of each stream with its row in the ledger. Called by [`super::verify`].
//!
//! The horizon is read first. What lies below it is complete and never changes, so it can be counted in
//! many short statements while ingest goes on.

use sqlx::{FromRow, PgConnection};

use super::finding::{Finding, Kind, Place};
use super::{Found, Progress, retired};
use crate::server_time::ServerTime;

/// Events that are read at once. They are narrow.
const PAGE: i64 = 20_000;

/// A row of the ledger, as it was when the verification began.
#[derive(Debug, Clone, FromRow)]
pub(super) struct Stream {
    stream_id: i64,
    topic: String,
    partition: i32,
    generation: i32,
    start_offset: i64,
    next_offset: i64,
    pub(super) appended: i64,
    last_persisted_at: Option<ServerTime>,
}

/// All streams.
pub(super) async fn streams(connection: &mut PgConnection) -> Result<Vec<Stream>, sqlx::Error> {
    sqlx::query_as(
        "SELECT stream_id, topic, partition, generation, start_offset, next_offset, appended, last_persisted_at
         FROM event_log.stream ORDER BY stream_id",
    )
    .fetch_all(connection)
    .await
}

/// Compares one stream.
pub(super) async fn stream(
    connection: &mut PgConnection,
    stream: &Stream,
    progress: &Progress,
    found: &mut Found,
) -> Result<(), sqlx::Error> {
    let mut check = StreamCheck::default();
    let mut from = stream.start_offset;
    loop {
        let page: Vec<(i64, ServerTime)> = sqlx::query_as(include_str!("../sql/verify_stream.sql"))
            .bind(stream.stream_id)
            .bind(from)
            .bind(stream.next_offset)
            .bind(PAGE)
            .fetch_all(&mut *connection)
            .await?;
        for (offset, persisted_at) in &page {
            if let Some(what) = check.event(*offset, *persisted_at, stream.last_persisted_at) {
                tell(stream, Kind::PersistedAt, Some(*offset), what, found);
            }
        }
        progress.counted(page.len() as i64);
        match page.last() {
            Some((offset, _)) if page.len() as i64 == PAGE => from = offset + 1,
            _ => break,
        }
    }
    let retired = retired::events_of(connection, stream.stream_id).await?;
    if check.events + retired != stream.appended {
        let and_retired = match retired {
            0 => String::new(),
            _ => format!(", and retired {retired}"),
        };
        let what = format!(
            "by its ledger {} events were appended, and the log has {}{and_retired}",
            stream.appended, check.events
        );
        tell(stream, Kind::Ledger, None, what, found);
    }
    found.streams += 1;
    outside(connection, stream, found).await
}

/// Events at offsets that the stream has not read.
async fn outside(
    connection: &mut PgConnection,
    stream: &Stream,
    found: &mut Found,
) -> Result<(), sqlx::Error> {
    let outside: Option<(i64, i64, i64, Option<i64>)> =
        sqlx::query_as(include_str!("../sql/verify_outside.sql"))
            .bind(stream.stream_id)
            .fetch_optional(connection)
            .await?;
    if let Some((start, next, events @ 1.., first)) = outside {
        let first = first.unwrap_or(next);
        let what = format!(
            "it has read the offsets from {start} to below {next}, and {events} of its events have others, the first {first}"
        );
        tell(stream, Kind::Offset, Some(first), what, found);
    }
    Ok(())
}

/// Streams that only events know.
pub(super) async fn unknown_streams(
    connection: &mut PgConnection,
    found: &mut Found,
) -> Result<(), sqlx::Error> {
    let unknown: Vec<i64> = sqlx::query_scalar(include_str!("../sql/verify_unknown_streams.sql"))
        .fetch_all(connection)
        .await?;
    for number in unknown {
        found.findings.push(Finding {
            kind: Kind::Stream,
            place: Place::StreamId(number),
            at: None,
            what: "the log has events of it, and the ledger does not have the stream".to_owned(),
            number,
        });
    }
    Ok(())
}

fn tell(stream: &Stream, kind: Kind, at: Option<i64>, what: String, found: &mut Found) {
    found.findings.push(Finding {
        kind,
        place: Place::Stream {
            topic: stream.topic.clone(),
            partition: stream.partition,
            generation: stream.generation,
        },
        at,
        what,
        number: stream.stream_id,
    });
}

/// A stream while its events are read in offset order.
#[derive(Debug, Default)]
struct StreamCheck {
    events: i64,
    last: Option<(i64, ServerTime)>,
}

impl StreamCheck {
    /// Takes the next event, and says what is wrong with its time. A batch's time is that of its
    /// predecessor or later, and the ledger has the last batch's (`sql/lock_stream.sql`).
    fn event(
        &mut self,
        offset: i64,
        persisted_at: ServerTime,
        last_batch: Option<ServerTime>,
    ) -> Option<String> {
        self.events += 1;
        let before = self.last.replace((offset, persisted_at));
        match before {
            Some((before, time)) if persisted_at < time => Some(format!(
                "offset {offset}: its persistedAt is earlier than that of offset {before}"
            )),
            _ if last_batch.is_some_and(|last| persisted_at > last) => Some(format!(
                "offset {offset}: its persistedAt is later than the stream's last batch"
            )),
            _ => None,
        }
    }
}
