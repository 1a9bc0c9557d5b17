//! `runlog wait-schema`: waits until the database answers and has this build's schema, for
//! processes that start beside the migration.

use std::time::Duration;

use event_log::schema::{self, SchemaError};
use serde_json::json;
use service::backoff::Backoff;
use service::exit::Exit;
use tokio::time::{Instant, sleep};

use crate::app::App;
use crate::database;
use crate::output::note;

/// Wait until the database has this build's schema
///
/// For containers that start beside the migration: ends when the database answers and every
/// migration of this build is applied.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog wait-schema && exec runlog-ingest
  runlog wait-schema --timeout 5m

Exit codes: 0 it is there, 1 migrations are still missing, 3 the database does not answer.")]
pub(crate) struct Args {
    /// How long to wait, such as 30s or 5m
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

pub(crate) async fn run(args: &Args, app: &App) -> anyhow::Result<Exit> {
    let deadline = Instant::now() + args.timeout;
    let pool = database::reach(&app.config().database, args.timeout).await?;
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));
    let mut told = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match schema::check_within(&pool, left).await {
            Ok(()) => break,
            Err(error @ SchemaError::Behind { .. }) => {
                if Instant::now() >= deadline {
                    return Err(error.into());
                }
                if !std::mem::replace(&mut told, true) {
                    note(format!("Waiting: {error}"));
                }
            }
            Err(error) if Instant::now() >= deadline => return Err(error.into()),
            Err(_) => {}
        }
        let left = deadline.saturating_duration_since(Instant::now());
        sleep(backoff.next_delay().min(left)).await;
    }
    app.output.document(&json!({"ready": true}), |_| {
        "The schema is ready.".to_owned()
    })?;
    Ok(Exit::Done)
}
