//! The heads of a day: reads the day's events through the streams, and makes the leaves of them.
//!
//! persistedAt never falls within a stream, so the day is one range of offsets in each, which a binary
//! search over the unique index (stream_id, source_offset) finds. The log's other days are not read.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use chrono::{DateTime, NaiveDate, Utc};
use run_events::Digest;
use run_events::seal::{Head, Seal, merkle};
use sqlx::PgConnection;

use super::ended::{end, start};
use crate::server_time::ServerTime;

/// Events that are read at once. They are narrow.
const PAGE: i64 = 20_000;
/// Runs whose names are looked up at once.
const NAMES: usize = 10_000;

/// How many events were read so far.
#[derive(Debug, Default)]
pub struct Progress(AtomicU64);

impl Progress {
    /// Events that were read.
    pub fn events(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where a run stands at the end of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunHead {
    /// The run's number.
    pub run_no: i64,
    /// The highest runSeq among the run's events of the day. A run whose events came through two
    /// partitions may have a lower one on a later day.
    pub run_seq: i64,
    /// The run's events of the day.
    pub events: u64,
    /// The leaf.
    pub leaf: Digest,
}

/// Why a run has no leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// The run's number.
    pub run_no: i64,
    /// What is wrong.
    pub what: &'static str,
}

/// The heads of a day, in ascending order of their leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayHeads {
    /// The day.
    pub day: NaiveDate,
    /// One for each run that got events.
    pub heads: Vec<RunHead>,
    /// Runs that have no leaf, and why: what is there of them is no log.
    pub damaged: Vec<Damage>,
}

impl DayHeads {
    /// The seal of the day behind `previous`.
    pub fn seal(&self, previous: Digest) -> Seal {
        let leaves: Vec<Digest> = self.heads.iter().map(|head| head.leaf).collect();
        Seal {
            day: self.day,
            runs: leaves.len() as u64,
            events: self.heads.iter().map(|head| head.events).sum(),
            root: merkle::root(&leaves),
            previous,
        }
    }
}

/// What was read of a run: its highest runSeq with that event's chain digest, and how many events.
struct OfDay {
    run_seq: i64,
    /// `None` = it is no digest.
    chain: Option<Digest>,
    events: u64,
}

/// Reads a day. 100 bytes of memory for each run that got events on it.
///
/// # Errors
/// The database's.
pub async fn collect(
    connection: &mut PgConnection,
    day: NaiveDate,
    progress: &Progress,
) -> Result<DayHeads, sqlx::Error> {
    let streams: Vec<(i64, i64, i64)> = sqlx::query_as(
        "SELECT stream_id, start_offset, next_offset FROM event_log.stream ORDER BY stream_id",
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut runs = HashMap::new();
    for (stream_id, first, horizon) in streams {
        let from = first_from(connection, stream_id, first, horizon, start(day)).await?;
        let to = first_from(connection, stream_id, from, horizon, end(day)).await?;
        read(connection, stream_id, from, to, &mut runs, progress).await?;
    }
    let (mut heads, damaged) = leaves(connection, runs).await?;
    heads.sort_unstable_by_key(|head| head.leaf.0);
    Ok(DayHeads {
        day,
        heads,
        damaged,
    })
}

/// The lowest offset of `low..=high` behind all events of the stream that are earlier than `time`.
async fn first_from(
    connection: &mut PgConnection,
    stream_id: i64,
    low: i64,
    high: i64,
    time: DateTime<Utc>,
) -> Result<i64, sqlx::Error> {
    let time = ServerTime::from(time);
    let (mut low, mut high) = (low, high);
    while low < high {
        let middle = low + (high - low) / 2;
        let event: Option<(i64, ServerTime)> =
            sqlx::query_as(include_str!("../sql/seal_probe.sql"))
                .bind(stream_id)
                .bind(middle)
                .bind(high)
                .fetch_optional(&mut *connection)
                .await?;
        match event {
            Some((offset, persisted_at)) if persisted_at < time => low = offset + 1,
            // Offsets without an event belong to the event behind them.
            _ => high = middle,
        }
    }
    Ok(low)
}

async fn read(
    connection: &mut PgConnection,
    stream_id: i64,
    from: i64,
    to: i64,
    runs: &mut HashMap<i64, OfDay>,
    progress: &Progress,
) -> Result<(), sqlx::Error> {
    let mut from = from;
    while from < to {
        let page: Vec<(i64, i64, i64, Vec<u8>)> =
            sqlx::query_as(include_str!("../sql/seal_events.sql"))
                .bind(stream_id)
                .bind(from)
                .bind(to)
                .bind(PAGE)
                .fetch_all(&mut *connection)
                .await?;
        for (offset, run_no, run_seq, chain) in &page {
            from = offset + 1;
            let chain = chain.as_slice().try_into().ok().map(Digest);
            add(runs, *run_no, *run_seq, chain);
        }
        progress.0.fetch_add(page.len() as u64, Ordering::Relaxed);
        if (page.len() as i64) < PAGE {
            break;
        }
    }
    Ok(())
}

fn add(runs: &mut HashMap<i64, OfDay>, run_no: i64, run_seq: i64, chain: Option<Digest>) {
    let run = runs.entry(run_no).or_insert(OfDay {
        run_seq,
        chain,
        events: 0,
    });
    run.events += 1;
    // Streams are read one after another, so a lower one may come later.
    if run_seq > run.run_seq {
        (run.run_seq, run.chain) = (run_seq, chain);
    }
}

async fn leaves(
    connection: &mut PgConnection,
    runs: HashMap<i64, OfDay>,
) -> Result<(Vec<RunHead>, Vec<Damage>), sqlx::Error> {
    let mut numbers: Vec<i64> = runs.keys().copied().collect();
    numbers.sort_unstable();
    let (mut heads, mut damaged) = (Vec::with_capacity(numbers.len()), Vec::new());
    for numbers in numbers.chunks(NAMES) {
        let names: Vec<(i64, String, String)> = sqlx::query_as(
            "SELECT run_no, tenant_id, run_id FROM event_log.run WHERE run_no = ANY($1)",
        )
        .bind(numbers)
        .fetch_all(&mut *connection)
        .await?;
        let names: HashMap<i64, (String, String)> = names
            .into_iter()
            .map(|(run_no, tenant_id, run_id)| (run_no, (tenant_id, run_id)))
            .collect();
        for run_no in numbers {
            let run_no = *run_no;
            let what = match (runs.get(&run_no), names.get(&run_no)) {
                (Some(run), Some((tenant_id, run_id))) => match run.chain {
                    Some(chain) => {
                        heads.push(run.head(run_no, tenant_id, run_id, chain));
                        continue;
                    }
                    None => "the chain_digest of its last event is no digest",
                },
                _ => "the log has events of it, and event_log.run does not have the run",
            };
            damaged.push(Damage { run_no, what });
        }
    }
    Ok((heads, damaged))
}

impl OfDay {
    fn head(&self, run_no: i64, tenant_id: &str, run_id: &str, chain: Digest) -> RunHead {
        let head = Head {
            tenant_id,
            run_id,
            run_seq: self.run_seq,
            events: self.events,
            chain,
        };
        RunHead {
            run_no,
            run_seq: self.run_seq,
            events: self.events,
            leaf: head.leaf(),
        }
    }
}
