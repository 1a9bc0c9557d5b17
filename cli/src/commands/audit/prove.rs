//! `runlog audit prove`: writes the proof of one run.

use anyhow::anyhow;
use chrono::NaiveDate;
use event_log::seal::{Proof, ProofError, proof};
use run_events::seal::proof::ProofCheck;
use service::exit::Exit;
use sqlx::PgConnection;

use super::day;
use crate::app::App;
use crate::commands::runs::tenant_of;
use crate::database::{connect, failed};
use crate::output::{note, print};
use crate::scope::ScopeArgs;

/// Write the proof that a run was part of a seal, for somebody without the database
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog audit prove 0d3c6a9e-4f0c-4a8e-9d5d-3d4c0f7dbb8a --tenant acme-retail > proof.jsonl
  runlog audit prove 0d3c6a9e-4f0c-4a8e-9d5d-3d4c0f7dbb8a --tenant acme-retail --day 2026-01-31 > proof.jsonl
  runlog audit check proof.jsonl --seal seals.json

The proof is JSON, a document a line, whatever -o says: the run, the seals and the way to them, and then the run's
events up to what was sealed, payloads included. Of other runs and tenants it holds only hashes. Of an event whose
payload was erased it holds the digest of the content.

Exit codes: 0 done, 1 the run is in no seal, or is not what was sealed, 2 usage, 3 PostgreSQL does not answer.")]
pub(crate) struct Args {
    /// The run
    #[arg(value_name = "RUN")]
    run_id: String,

    #[command(flatten)]
    scope: ScopeArgs,

    /// By the seal of this day. Default: that which goes farthest in the run
    #[arg(long, value_parser = day)]
    day: Option<NaiveDate>,
}

pub(super) async fn run(args: &Args, app: &App) -> anyhow::Result<Exit> {
    let scope = args.scope.resolve()?;
    let pool = connect(&app.config().database).await?;
    let mut connection = pool
        .acquire()
        .await
        .map_err(|error| failed(error, "connect"))?;
    let tenant_id = tenant_of(&mut connection, &scope, &args.run_id).await?;
    let proof = proof(&mut connection, &tenant_id, &args.run_id, args.day).await;
    let proof = proof.map_err(|error| told(error, args))?;
    let (head, problems) = write(&mut connection, proof).await?;
    for problem in &problems {
        note(problem);
    }
    if problems.is_empty() {
        note(head);
        return Ok(Exit::Done);
    }
    Err(anyhow!(
        "this is no proof: the log is not what was sealed; `runlog verify --chain` tells more"
    ))
}

/// Writes the lines, and checks them as whoever gets them will; what to say, and what does not fit.
async fn write(
    connection: &mut PgConnection,
    mut proof: Proof,
) -> anyhow::Result<(String, Vec<String>)> {
    let first = proof.head.line();
    let mut check = ProofCheck::begin(&first)?;
    print(&first)?;
    loop {
        let lines = proof.lines(connection).await;
        let lines = lines.map_err(|error| failed(error, "read the run's events"))?;
        if lines.is_empty() {
            break;
        }
        for line in lines {
            check.event(&line)?;
            print(&line)?;
        }
    }
    let (seals, checked) = (proof.head.seals, check.end());
    let day = |place: Option<&run_events::seal::Written>| {
        place
            .map(|written| written.seal.day.to_string())
            .unwrap_or_default()
    };
    let said = format!(
        "{} events, by the seal of {}; it holds the seals up to {}, and is checked against any of them.",
        proof.head.run_seq,
        day(seals.first()),
        day(seals.last())
    );
    Ok((said, checked.told.problems))
}

fn told(error: ProofError, args: &Args) -> anyhow::Error {
    match error {
        ProofError::Database(error) => failed(error, "read what belongs to the proof"),
        ProofError::NotSealed { .. } => anyhow::Error::new(error).context(format!(
            "there is nothing to prove of run {} yet: `runlog audit list` shows the days that are sealed",
            args.run_id
        )),
        ProofError::Retired => error.into(),
        ProofError::Changed { .. } => {
            anyhow::Error::new(error).context("there is no proof: `runlog verify --chain` tells more")
        }
    }
}
