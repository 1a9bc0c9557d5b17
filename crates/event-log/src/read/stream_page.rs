//! A page of one stream's events, as projections read them: only what is asked for, and bounded in memory.
//! Called by the projectors' batches through [`super`].

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use futures_util::TryStreamExt as _;
use run_events::RunEvent;
use sqlx::{FromRow as _, PgConnection, Row as _};

use super::{StreamEvent, payload};

/// The events of which a reader wants the payloads. The others come as if they had none, and theirs, which
/// may be large, are not even fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payloads {
    /// All of them.
    All,
    /// Those of these types, by name.
    Of(&'static [&'static str]),
}

/// How much is read at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageSize {
    /// Events at most.
    pub events: i64,
    /// What they may weigh in memory, about, in bytes; one event comes whatever it weighs.
    pub bytes: usize,
}

/// What an event takes in memory beside its texts, about, in bytes.
const EVENT_WEIGHT: usize = 512;
/// How often its reader has a payload, about: as text, as a value, and as what is made and written of it.
const PAYLOAD_COPIES: usize = 4;

/// The place of the payload's estimated size in the columns of `stream_events.sql`.
const PAYLOAD_BYTES: usize = 19;

/// A page of a stream's events with `from <= offset < horizon`, in offset order. The horizon is a
/// `next_offset` that was read before. None = there are no more below it. An event whose run is retired
/// meanwhile is left out.
///
/// # Errors
/// The database's.
pub async fn stream_events(
    connection: &mut PgConnection,
    stream_id: i64,
    from: i64,
    horizon: i64,
    size: PageSize,
    payloads: Payloads,
) -> Result<Vec<StreamEvent>, sqlx::Error> {
    let mut next = from;
    loop {
        let mut page = page(connection, stream_id, next..horizon, size, payloads).await?;
        let Some(last) = page.events.last() else {
            return Ok(page.events);
        };
        next = last.source_offset + 1;
        name_runs(connection, &mut page.events).await?;
        if page.events.is_empty() {
            continue;
        }
        fetch_payloads(connection, stream_id, &mut page, size.bytes).await?;
        return Ok(page.events);
    }
}

struct Page {
    events: Vec<StreamEvent>,
    /// The offsets of those whose payloads are wanted.
    wanted: Vec<i64>,
}

/// Events without the ids of their runs and without payloads.
async fn page(
    connection: &mut PgConnection,
    stream_id: i64,
    offsets: Range<i64>,
    size: PageSize,
    payloads: Payloads,
) -> Result<Page, sqlx::Error> {
    let types = match payloads {
        Payloads::All => None,
        Payloads::Of(types) => Some(types),
    };
    let mut rows = sqlx::query(include_str!("../sql/stream_events.sql"))
        .bind(stream_id)
        .bind(offsets.start)
        .bind(offsets.end)
        .bind(size.events)
        .bind(types)
        .fetch(connection);
    let (mut events, mut wanted, mut bytes) = (Vec::new(), Vec::new(), 0);
    while let Some(row) = rows.try_next().await? {
        let event = StreamEvent::from_row(&row)?;
        let payload: i32 = row.try_get(PAYLOAD_BYTES)?;
        bytes += weight(&event.logged.event);
        if payload > 0 {
            bytes += PAYLOAD_COPIES * payload.unsigned_abs() as usize;
            wanted.push(event.source_offset);
        }
        events.push(event);
        if bytes >= size.bytes {
            break;
        }
    }
    Ok(Page { events, wanted })
}

fn weight(event: &RunEvent) -> usize {
    let ids = [
        &event.tenant_id,
        &event.project_id,
        &event.environment_id,
        &event.plan_id,
        &event.plan_version,
    ];
    let ids: usize = ids.into_iter().map(String::len).sum();
    EVENT_WEIGHT + ids + event.step_id.as_ref().map_or(0, String::len)
}

/// Gives the events their runs' ids, each run looked up once.
async fn name_runs(
    connection: &mut PgConnection,
    events: &mut Vec<StreamEvent>,
) -> Result<(), sqlx::Error> {
    let numbers: BTreeSet<i64> = events.iter().map(|event| event.run_no).collect();
    if numbers.is_empty() {
        return Ok(());
    }
    let ids: Vec<(i64, String)> =
        sqlx::query_as("SELECT run_no, run_id FROM event_log.run WHERE run_no = ANY ($1)")
            .bind(numbers.into_iter().collect::<Vec<_>>())
            .fetch_all(connection)
            .await?;
    let ids: HashMap<i64, String> = ids.into_iter().collect();
    events.retain_mut(|event| {
        let id = ids.get(&event.run_no);
        id.is_some_and(|id| {
            event.logged.event.run_id.clone_from(id);
            true
        })
    });
    Ok(())
}

/// Fetches the payloads of the events at these offsets, and cuts the page where they turn out to weigh too
/// much: how large a compressed one is, only fetching it tells.
async fn fetch_payloads(
    connection: &mut PgConnection,
    stream_id: i64,
    page: &mut Page,
    max_bytes: usize,
) -> Result<(), sqlx::Error> {
    let Page { events, wanted } = page;
    if wanted.is_empty() {
        return Ok(());
    }
    let mut rows = sqlx::query(include_str!("../sql/stream_payloads.sql"))
        .bind(stream_id)
        .bind(&*wanted)
        .fetch(connection);
    let mut bytes = 0;
    while let Some(row) = rows.try_next().await? {
        let (offset, text): (i64, Option<&str>) = (row.try_get(0)?, row.try_get(1)?);
        let Ok(place) = events.binary_search_by_key(&offset, |event| event.source_offset) else {
            continue;
        };
        events[place].logged.event.payload = payload(text)?;
        bytes += PAYLOAD_COPIES * text.map_or(0, str::len);
        if bytes >= max_bytes {
            events.truncate(place + 1);
            break;
        }
    }
    Ok(())
}
