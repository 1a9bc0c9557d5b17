//! (b) Ingest's drain of a full topic, from the first row to the last, into a database that has
//! none of it; and the same with the projectors beside it (d). Called by `compare`, `scaling`, `flat`.

use std::time::{Duration, Instant};

use anyhow::ensure;
use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::database::Database;
use crate::load::Load;
use crate::meter::{Consumed, Meter};
use crate::program::{Program, Used, used_by};
use crate::stack::Stack;

/// Between two looks at how far a program has come: the resolution of the end of each measurement.
const LOOK: Duration = Duration::from_millis(20);
/// A program that comes no further for so long is taken for stuck.
const STUCK: Duration = Duration::from_secs(60);

/// What a drain took.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Drained {
    /// Rows of the log.
    pub(crate) events: u64,
    /// From the first row's persisted_at to the moment when the last was seen, by the database's clock.
    pub(crate) seconds: f64,
    /// Rows per second.
    pub(crate) rate: f64,
    /// Of ingest, from its start.
    pub(crate) ingest: Used,
    /// Of the servers, from ingest's start.
    pub(crate) servers: Consumed,
}

/// What the drain took with the projectors beside it, until they had applied everything.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Together {
    /// Of ingest and the servers, and the seconds until everything was projected.
    #[serde(flatten)]
    pub(crate) drained: Drained,
    /// Of the projectors, from their start.
    pub(crate) projectors: Used,
}

/// Drains the topic with so many ingest processes.
///
/// # Errors
/// Where a process fails or stands still, or the log has not got every event.
pub(crate) async fn drain(
    stack: &Stack,
    database: &mut Database,
    load: &Load,
    processes: usize,
) -> anyhow::Result<Drained> {
    let meter = begin(stack, database).await?;
    let mut ingest = Vec::new();
    for _ in 0..processes {
        ingest.push(Program::ingest(stack, database, &load.topic, &[])?);
    }
    let ended = wait_for_ingest(database, load, &mut ingest).await?;
    let used = used_by(&ingest)?;
    let servers = meter.since(stack, &mut database.connection).await?;
    for program in ingest {
        program.stop().await?;
    }
    drained(database, load, ended, used, servers).await
}

/// Drains the topic into the log and all read models at once.
///
/// # Errors
/// Where a process fails or stands still, or the log has not got every event.
pub(crate) async fn together(
    stack: &Stack,
    database: &mut Database,
    load: &Load,
) -> anyhow::Result<Together> {
    let meter = begin(stack, database).await?;
    let mut programs = [
        Program::ingest(stack, database, &load.topic, &[])?,
        Program::projectors(stack, &database.name, NOT_VERIFYING)?,
    ];
    wait_for_ingest(database, load, &mut programs).await?;
    let ended = wait_for_projections(database, load, &mut programs).await?;
    let servers = meter.since(stack, &mut database.connection).await?;
    let [ingest, projectors] = programs;
    let used = (ingest.used()?, projectors.used()?);
    ingest.stop().await?;
    projectors.stop().await?;
    Ok(Together {
        drained: drained(database, load, ended, used.0, servers).await?,
        projectors: used.1,
    })
}

/// For the projectors: while throughput is measured, nothing else is done beside it.
pub(crate) const NOT_VERIFYING: &[(&str, &str)] = &[("RUNLOG_PROJECTORS__VERIFY_INTERVAL", "0s")];

async fn begin(stack: &Stack, database: &mut Database) -> anyhow::Result<Meter> {
    database.checkpoint().await?;
    Meter::read(stack, &mut database.connection).await
}

async fn drained(
    database: &mut Database,
    load: &Load,
    ended: DateTime<Utc>,
    ingest: Used,
    servers: Consumed,
) -> anyhow::Result<Drained> {
    let (first, appended, duplicates): (DateTime<Utc>, i64, i64) =
        sqlx::query_as(include_str!("sql/drained.sql"))
            .bind(&load.topic)
            .fetch_one(&mut database.connection)
            .await?;
    let (events, repeated) = (load.events, load.records - load.events);
    ensure!(
        appended.cast_unsigned() == events && duplicates.cast_unsigned() == repeated,
        "the log has {appended} events and {duplicates} duplicates of {}, which holds {events} and {repeated}",
        load.topic
    );
    let seconds = seconds_between(first, ended);
    Ok(Drained {
        events,
        seconds,
        rate: events as f64 / seconds,
        ingest,
        servers,
    })
}

pub(crate) fn seconds_between(from: DateTime<Utc>, to: DateTime<Utc>) -> f64 {
    (to - from).as_seconds_f64()
}

async fn wait_for_ingest(
    database: &mut Database,
    load: &Load,
    programs: &mut [Program],
) -> anyhow::Result<DateTime<Utc>> {
    let stored = "SELECT coalesce(sum(next_offset), 0)::bigint, clock_timestamp() \
                  FROM event_log.stream WHERE topic = $1";
    let mut last = Progress::new("ingest");
    loop {
        let (offset, now): (i64, DateTime<Utc>) = sqlx::query_as(stored)
            .bind(&load.topic)
            .fetch_one(&mut database.connection)
            .await?;
        if offset.cast_unsigned() == load.records {
            return Ok(now);
        }
        last.next_look(offset, programs).await?;
    }
}

async fn wait_for_projections(
    database: &mut Database,
    load: &Load,
    programs: &mut [Program],
) -> anyhow::Result<DateTime<Utc>> {
    let least = "SELECT coalesce(min(a.applied), 0)::bigint, clock_timestamp() \
                 FROM read_model.projection_version v \
                 LEFT JOIN LATERAL (SELECT coalesce(sum(c.applied), 0) AS applied \
                   FROM read_model.projection_checkpoint c \
                   WHERE c.projection = v.projection AND c.version = v.version) a ON true \
                 WHERE v.state = 'live'";
    let mut last = Progress::new("the projectors");
    loop {
        let (applied, now): (i64, DateTime<Utc>) = sqlx::query_as(least)
            .fetch_one(&mut database.connection)
            .await?;
        if applied.cast_unsigned() == load.events {
            return Ok(now);
        }
        last.next_look(applied, programs).await?;
    }
}

/// Notices that something comes no further.
pub(crate) struct Progress {
    who: &'static str,
    at: i64,
    since: Instant,
}

impl Progress {
    /// Of a program that has done nothing yet.
    pub(crate) fn new(who: &'static str) -> Self {
        Self {
            who,
            at: -1,
            since: Instant::now(),
        }
    }

    /// Takes in how far it has come, and waits until it is time to look again.
    ///
    /// # Errors
    /// Where a program ended, or nothing has changed for too long.
    pub(crate) async fn next_look(
        &mut self,
        at: i64,
        programs: &mut [Program],
    ) -> anyhow::Result<()> {
        for program in programs {
            program.check()?;
        }
        if at != self.at {
            (self.at, self.since) = (at, Instant::now());
        }
        let (who, still) = (self.who, self.since.elapsed());
        ensure!(
            still < STUCK,
            "{who} stands still at {at} for {} s",
            still.as_secs()
        );
        tokio::time::sleep(LOOK).await;
        Ok(())
    }
}
