//! `runlog events find`: what became of an event.

use anyhow::{anyhow, bail};
use clap::Subcommand;
use event_log::inspect::{self, FoundEvent};
use run_events::IdempotencyKey;
use serde::Serialize;
use service::exit::Exit;
use sqlx::PgConnection;
use uuid::Uuid;

use super::dlq::Letter;
use crate::app::App;
use crate::database::{connect, failed};
use crate::format::{Time, shortened};
use crate::output::{Output, note, text};
use crate::scope::ScopeArgs;

/// How many dead letters are looked up at most.
const LETTERS: i64 = 100;

/// Look at single events
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Find(FindArgs),
}

/// Find out what became of an event: appended where, or a dead letter
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog events find 0198c2f0-7a1e-7c3e-9d2a-3d4c0f7dbb8a --tenant acme-retail
  runlog events find 7f4b974658a54fb2aee9ecb9cefebd2eec27f3fd01f0f8c0d031dfc4a5b96e3c --all-tenants

Of a record that repeats an event only the original is kept: its own event id is nowhere, its
idempotencyKey finds the original. A key is unique per run; with --run it is found at once, without
it every run is searched.

Exit codes: 0 found, 1 not found.")]
pub(crate) struct FindArgs {
    /// The eventId (a UUID) or the idempotencyKey (64 hex digits)
    #[arg(value_name = "EVENT_ID|KEY", value_parser = wanted)]
    wanted: Wanted,

    /// Only in this run (with a key)
    #[arg(long, value_name = "RUN")]
    run: Option<String>,

    #[command(flatten)]
    scope: ScopeArgs,
}

#[derive(Debug, Clone, PartialEq)]
enum Wanted {
    Id(Uuid),
    Key(IdempotencyKey),
}

#[derive(Debug, Serialize)]
struct Found {
    appended: Vec<Place>,
    dead_letters: Vec<Letter>,
}

#[derive(Debug, Serialize)]
struct Place {
    tenant_id: String,
    run_id: String,
    run_seq: i64,
    event_id: Uuid,
    event_type: String,
    idempotency_key: String,
    persisted_at: Time,
    topic: String,
    partition: i32,
    source_offset: i64,
}

pub(crate) async fn run(command: &Command, app: &App) -> anyhow::Result<Exit> {
    let Command::Find(args) = command;
    let scope = args.scope.resolve()?;
    if args.run.is_some() && matches!(args.wanted, Wanted::Id(_)) {
        note("--run is of no use with an event id, which is unique in the whole log.");
    }
    let pool = connect(&app.config().database).await?;
    let mut connection = pool
        .acquire()
        .await
        .map_err(|error| failed(error, "look for the event"))?;
    let found = find(&mut connection, args, scope.tenant())
        .await
        .map_err(|error| {
            let slow = error.as_database_error().and_then(|e| e.code()).as_deref() == Some("57014");
            let error = failed(error, "look for the event");
            if slow {
                return error.context(
                "the search took longer than database.statement_timeout: name the run with --run",
            );
            }
            error
        })?;
    if found.appended.is_empty() && found.dead_letters.is_empty() {
        bail!(anyhow!(
            "no event {} and no dead letter with it; it may be on its way (`runlog status`), or repeat \
             an event under another id (look for its idempotencyKey)",
            scope.phrase()
        ));
    }
    app.output
        .document(&found, |output| tables(&found, output))?;
    Ok(Exit::Done)
}

async fn find(
    connection: &mut PgConnection,
    args: &FindArgs,
    tenant: Option<&str>,
) -> Result<Found, sqlx::Error> {
    let (appended, text) = match &args.wanted {
        Wanted::Id(id) => {
            let found = inspect::event_by_id(&mut *connection, tenant, *id).await?;
            (Vec::from_iter(found), id.to_string())
        }
        Wanted::Key(key) => {
            let run = args.run.as_deref();
            let found = inspect::events_by_key(&mut *connection, tenant, run, &key.0).await?;
            (found, key.to_string())
        }
    };
    let letters = inspect::dead_letters_holding(connection, tenant, &text, LETTERS).await?;
    Ok(Found {
        appended: appended.into_iter().map(Place::from).collect(),
        dead_letters: letters.into_iter().map(Letter::from).collect(),
    })
}

impl From<FoundEvent> for Place {
    fn from(event: FoundEvent) -> Self {
        Self {
            tenant_id: event.tenant_id,
            run_id: event.run_id,
            run_seq: event.run_seq,
            event_id: event.event_id,
            event_type: event.event_type,
            idempotency_key: event.idempotency_key,
            persisted_at: Time(event.persisted_at),
            topic: event.topic,
            partition: event.partition,
            source_offset: event.source_offset,
        }
    }
}

fn tables(found: &Found, output: &Output) -> String {
    let mut parts = Vec::new();
    if !found.appended.is_empty() {
        let mut table = output.table(&[
            "APPENDED", "TENANT", "RUN", "SEQ", "EVENT", "EVENT ID", "POSITION",
        ]);
        for place in &found.appended {
            table.add_row([
                place.persisted_at.to_string(),
                place.tenant_id.clone(),
                place.run_id.clone(),
                place.run_seq.to_string(),
                place.event_type.clone(),
                place.event_id.to_string(),
                format!(
                    "{}/{}@{}",
                    place.topic, place.partition, place.source_offset
                ),
            ]);
        }
        parts.push(text(&table));
    }
    if !found.dead_letters.is_empty() {
        let mut table = output.table(&["DEAD LETTER", "REASON", "DETAIL", "POSITION"]);
        for letter in &found.dead_letters {
            table.add_row([
                letter.dead_letter_id.to_string(),
                letter.reason.clone(),
                shortened(&letter.detail, 80),
                letter.position(),
            ]);
        }
        parts.push(text(&table));
    }
    parts.join("\n\n")
}

fn wanted(text: &str) -> Result<Wanted, String> {
    if let Ok(id) = Uuid::try_parse(text) {
        return Ok(Wanted::Id(id));
    }
    let key = IdempotencyKey::parse(&text.to_ascii_lowercase());
    key.map(Wanted::Key).ok_or_else(|| {
        "must be an eventId (a UUID) or an idempotencyKey (64 hex digits)".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::{Wanted, wanted};

    #[test]
    fn ids_and_keys_are_told_apart() {
        let id = wanted("0D3C6A9E-4f0c-4a8e-9d5d-3d4c0f7dbb8a");
        assert!(matches!(id, Ok(Wanted::Id(_))));
        assert!(matches!(wanted(&"A".repeat(64)), Ok(Wanted::Key(_))));
        assert!(wanted("run-1").is_err());
    }
}
