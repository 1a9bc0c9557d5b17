//! `runlog runs events`: one run's events as the log has them, in runSeq order.

use std::collections::HashMap;

use event_log::read::{self, StreamEvent};
use run_events::Micros;
use serde::Serialize;
use serde_json::{Map, Value};
use service::exit::Exit;
use sqlx::PgConnection;

use super::tenant_of;
use crate::app::App;
use crate::database::{connect, failed};
use crate::format::or_dash;
use crate::output::{Output, note, text};
use crate::scope::ScopeArgs;

/// List a run's events in order, page by page
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog runs events 0d3c6a9e-4f0c-4a8e-9d5d-3d4c0f7dbb8a --tenant acme-retail
  runlog runs events 0d3c6a9e-4f0c-4a8e-9d5d-3d4c0f7dbb8a --tenant acme-retail --after 100
  runlog runs events 0d3c6a9e-4f0c-4a8e-9d5d-3d4c0f7dbb8a --tenant acme-retail -o json | jq '.events[].payload'

The order is runSeq and nothing else; emittedAt is the producer's clock.")]
pub(crate) struct Args {
    /// The run
    #[arg(value_name = "RUN")]
    run_id: String,

    #[command(flatten)]
    scope: ScopeArgs,

    /// Only events after this runSeq
    #[arg(long, default_value_t = 0, value_name = "SEQ", value_parser = clap::value_parser!(i64).range(0..))]
    after: i64,

    /// How many at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
}

#[derive(Debug, Serialize)]
struct Page {
    tenant_id: String,
    run_id: String,
    events: Vec<Event>,
    /// What --after must be for the next page; null = this is the last.
    next_after: Option<i64>,
}

#[derive(Debug, Serialize)]
struct Event {
    run_seq: i64,
    event_id: String,
    event_type: String,
    step_id: Option<String>,
    logical_attempt_id: i32,
    engine_attempt_id: i32,
    idempotency_key: String,
    emitted_at: Micros,
    persisted_at: Micros,
    topic: String,
    partition: i32,
    source_offset: i64,
    payload: Option<Map<String, Value>>,
}

pub(super) async fn run(args: &Args, app: &App) -> anyhow::Result<Exit> {
    let scope = args.scope.resolve()?;
    let pool = connect(&app.config().database).await?;
    let mut connection = pool
        .acquire()
        .await
        .map_err(|error| failed(error, "read the run's events"))?;
    let tenant_id = tenant_of(&mut connection, &scope, &args.run_id).await?;
    let page = page(&mut connection, args, tenant_id)
        .await
        .map_err(|error| failed(error, "read the run's events"))?;
    app.output.document(&page, |output| table(&page, output))?;
    if let Some(after) = page.next_after {
        note(format!("There are more: --after {after}"));
    }
    Ok(Exit::Done)
}

async fn page(
    connection: &mut PgConnection,
    args: &Args,
    tenant_id: String,
) -> Result<Page, sqlx::Error> {
    let run_no = read::run_no(&mut *connection, &tenant_id, &args.run_id).await?;
    // One more than asked for tells whether there is a next page.
    let mut found = match run_no {
        Some(run_no) => {
            let from = args.after.saturating_add(1);
            read::run_events(&mut *connection, run_no, from, i64::MAX, args.limit + 1).await?
        }
        None => Vec::new(),
    };
    let more = found.len() as i64 > args.limit;
    found.truncate(usize::try_from(args.limit).unwrap_or(usize::MAX));
    let places = read::places(connection).await?;
    let events: Vec<Event> = found
        .into_iter()
        .map(|event| shown(event, &places))
        .collect();
    Ok(Page {
        tenant_id,
        run_id: args.run_id.clone(),
        next_after: events.last().map(|event| event.run_seq).filter(|_| more),
        events,
    })
}

fn shown(found: StreamEvent, places: &HashMap<i64, (String, i32)>) -> Event {
    let (topic, partition) = places.get(&found.stream_id).cloned().unwrap_or_default();
    let event = found.logged.event;
    Event {
        run_seq: found.logged.run_seq,
        event_id: event.event_id.to_string(),
        event_type: event.event_type.to_string(),
        step_id: event.step_id,
        logical_attempt_id: event.logical_attempt_id,
        engine_attempt_id: event.engine_attempt_id,
        idempotency_key: event.idempotency_key.to_string(),
        emitted_at: event.emitted_at,
        persisted_at: found.logged.persisted_at,
        topic,
        partition,
        source_offset: found.source_offset,
        payload: event.payload,
    }
}

fn table(page: &Page, output: &Output) -> String {
    let mut table = output.table(&[
        "SEQ",
        "EVENT",
        "STEP",
        "ATTEMPT",
        "PERSISTED",
        "EMITTED",
        "POSITION",
    ]);
    for event in &page.events {
        table.add_row([
            event.run_seq.to_string(),
            event.event_type.clone(),
            or_dash(event.step_id.as_ref()),
            event.logical_attempt_id.to_string(),
            event.persisted_at.to_string(),
            event.emitted_at.to_string(),
            format!(
                "{}/{}@{}",
                event.topic, event.partition, event.source_offset
            ),
        ]);
    }
    text(&table)
}
