//! `runlog audit list`: the seals that there are.

use event_log::seal::seals;
use service::exit::Exit;

use super::{Printed, chain_holds};
use crate::app::App;
use crate::database::{connect, failed};
use crate::format::Time;
use crate::output::text;

/// List the seals
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog audit list
  runlog audit list -o json > seals.json
  runlog audit list -o json | jq -r '.[-1].digest'

Each seal holds the digest of the one before it, so whoever keeps the last one has them all. Exit code 1 where they do
not follow on each other.")]
pub(crate) struct Args {}

pub(super) async fn run(_: &Args, app: &App) -> anyhow::Result<Exit> {
    let what = "read the seals";
    let pool = connect(&app.config().database).await?;
    let mut connection = pool.acquire().await.map_err(|error| failed(error, what))?;
    let stored = seals(&mut connection, None).await;
    let stored = stored.map_err(|error| failed(error, what))?;
    let printed: Vec<Printed> = stored.iter().map(Printed::from).collect();
    app.output.document(&printed, |output| {
        let mut table = output.table(&["DAY", "RUNS", "EVENTS", "SEALED", "DIGEST"]);
        for stored in &stored {
            let seal = &stored.written.seal;
            table.add_row([
                seal.day.to_string(),
                seal.runs.to_string(),
                seal.events.to_string(),
                Time(stored.sealed_at).to_string(),
                stored.written.digest.to_string(),
            ]);
        }
        text(&table)
    })?;
    Ok(match chain_holds(&stored) {
        true => Exit::Done,
        false => Exit::Problem,
    })
}
