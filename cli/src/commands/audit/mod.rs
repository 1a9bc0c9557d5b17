//! `runlog audit`: seals of days, and proofs of runs that an outsider checks against them.

mod check;
mod list;
mod prove;
mod seal;

use chrono::NaiveDate;
use clap::Subcommand;
use event_log::seal::Stored;
use run_events::seal::Seal;
use serde::Serialize;
use service::exit::Exit;

use crate::app::App;
use crate::output::{Format, Output, note};

/// Seal days, and prove to an outsider what the log was
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Seal(seal::Args),
    List(list::Args),
    Prove(prove::Args),
    Check(check::Args),
}

/// Runs the commands that need a database.
pub(crate) async fn run(command: &Command, app: &App) -> anyhow::Result<Exit> {
    match command {
        Command::Seal(args) => seal::run(args, app).await,
        Command::List(args) => list::run(args, app).await,
        Command::Prove(args) => prove::run(args, app).await,
        Command::Check(args) => check::run(args, &app.output),
    }
}

/// Runs the one that needs neither a database nor a configuration; `None` = it is another.
pub(crate) fn run_alone(command: &Command, format: Format) -> Option<anyhow::Result<Exit>> {
    match command {
        Command::Check(args) => Some(check::run(args, &Output::new(format))),
        _ => None,
    }
}

/// A day on the command line.
fn day(text: &str) -> Result<NaiveDate, String> {
    text.parse()
        .map_err(|_| "must be a day as 2026-01-31".to_owned())
}

/// A seal as it is printed; to be kept outside.
#[derive(Debug, Serialize)]
struct Printed {
    #[serde(flatten)]
    seal: Seal,
    /// When it was stored; null in a dry run.
    sealed_at: Option<String>,
}

impl From<&Stored> for Printed {
    fn from(stored: &Stored) -> Self {
        Self {
            seal: stored.written.seal,
            sealed_at: Some(run_events::Micros::from(stored.sealed_at).to_string()),
        }
    }
}

/// Tells what is wrong with the seals among themselves; whether it is nothing.
fn chain_holds(seals: &[Stored]) -> bool {
    let wrong = event_log::seal::chain(seals);
    for (day, what) in &wrong {
        note(format!("seal of {day}: {what}"));
    }
    if !wrong.is_empty() {
        note("The seals were changed. docs/operations.md says what to do (Seal the log).");
    }
    wrong.is_empty()
}
