//! `runlog migrate`: applies the migrations that are missing.

use anyhow::Context;
use event_log::schema;
use serde_json::json;
use service::exit::Exit;

use crate::app::App;
use crate::database;

/// Create or update the database schema
///
/// Applies the migrations that this build brings and the database lacks, one process at a time.
/// Safe to run again: it then changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog migrate
  RUNLOG_DATABASE__URL=postgres://owner@db/runlog runlog migrate -o json")]
pub(crate) struct Args {}

pub(crate) async fn run(_: &Args, app: &App) -> anyhow::Result<Exit> {
    let pool = database::reach_patiently(&app.config().database).await?;
    let applied = schema::migrate(&pool).await.context(
        "the migrations could not be applied; each is one transaction, so nothing is half done",
    )?;
    let rows: Vec<_> = applied
        .iter()
        .map(|m| json!({"version": m.version, "description": m.description}))
        .collect();
    app.output.document(&json!({ "applied": rows }), |_| {
        if applied.is_empty() {
            return "Nothing to do: the schema is up to date.".to_owned();
        }
        let lines = applied
            .iter()
            .map(|m| format!("Applied {:04} {}", m.version, m.description));
        lines.collect::<Vec<_>>().join("\n")
    })?;
    Ok(Exit::Done)
}
