//! (c) The catch-up of one projection on a log that is complete. Called by `compare`.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::database::Database;
use crate::drain::{NOT_VERIFYING, Progress, seconds_between};
use crate::load::Load;
use crate::meter::{Consumed, Meter};
use crate::program::{Program, Used};
use crate::stack::Stack;

/// What a catch-up took.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CaughtUp {
    /// Events applied.
    pub(crate) events: u64,
    /// From the moment when a stream was first claimed to the one when everything was applied.
    pub(crate) seconds: f64,
    /// Events per second.
    pub(crate) rate: f64,
    /// Of the projectors, from their start.
    pub(crate) projectors: Used,
    /// Of the servers, from the projectors' start.
    pub(crate) servers: Consumed,
}

/// The projections that there are.
///
/// # Errors
/// Of PostgreSQL.
pub(crate) async fn names(database: &mut Database) -> anyhow::Result<Vec<String>> {
    let names =
        "SELECT projection FROM read_model.projection_version WHERE state = 'live' ORDER BY 1";
    Ok(sqlx::query_scalar(names)
        .fetch_all(&mut database.connection)
        .await?)
}

/// Lets one projection read the whole log.
///
/// # Errors
/// Where the projectors fail or stand still.
pub(crate) async fn catch_up(
    stack: &Stack,
    database: &mut Database,
    load: &Load,
    projection: &str,
) -> anyhow::Result<CaughtUp> {
    database.checkpoint().await?;
    let meter = Meter::read(stack, &mut database.connection).await?;
    let only = format!("[\"{projection}\"]");
    let mut more = NOT_VERIFYING.to_vec();
    more.push(("RUNLOG_PROJECTORS__PROJECTIONS", &only));
    let mut programs = [Program::projectors(stack, &database.name, &more)?];
    let seconds = wait(database, load, projection, &mut programs).await?;
    let servers = meter.since(stack, &mut database.connection).await?;
    let [projectors] = programs;
    let used = projectors.used()?;
    projectors.stop().await?;
    Ok(CaughtUp {
        events: load.events,
        seconds,
        rate: load.events as f64 / seconds,
        projectors: used,
        servers,
    })
}

async fn wait(
    database: &mut Database,
    load: &Load,
    projection: &str,
    programs: &mut [Program],
) -> anyhow::Result<f64> {
    let state = "SELECT count(claim), coalesce(sum(applied), 0)::bigint, clock_timestamp() \
                 FROM read_model.projection_checkpoint WHERE projection = $1";
    let mut begun = None;
    let mut last = Progress::new("the projectors");
    loop {
        let (claimed, applied, now): (i64, i64, DateTime<Utc>) = sqlx::query_as(state)
            .bind(projection)
            .fetch_one(&mut database.connection)
            .await?;
        if claimed > 0 {
            begun.get_or_insert(now);
        }
        if applied.cast_unsigned() == load.events {
            return Ok(seconds_between(begun.unwrap_or(now), now));
        }
        last.next_look(applied, programs).await?;
    }
}
