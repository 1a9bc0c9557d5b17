//! `runlog verify`: whether the log is what was appended ([`chain`]), and whether the read models are
//! what a fresh fold of it gives ([`projections`]).

mod chain;
mod projections;

use serde::Serialize;
use service::exit::Exit;

use crate::app::App;
use crate::database::connect;

/// Verify the log by its chains and its ledger, and the read models by a fresh fold
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("what").required(true).multiple(true),
    after_help = "\
Examples:
  runlog verify --chain
  runlog verify --projections
  runlog verify --projections --only run_status --workers 4
  runlog verify --chain --projections -o json | jq -r .chain.digest

Runs beside everything else: it reads in short snapshots and writes only temporary tables. Exit code 1 if anything is
found; docs/operations.md says what each finding means.

--chain reads the whole log, computes every digest anew and compares the events with the ledger. It finds what was
edited, deleted, moved or added by hand. Days that were sealed (`runlog audit seal`) are compared with their seals: that
finds, too, who computed the chain and the ledger anew, and of one who computed the seals anew as well, a seal that was
kept outside tells. Its digest is that of all runs' last events: the same log gives the same one, always.

--projections compares each run up to the event that the projection has come to. Tables of sums over many runs are not
compared; `runlog rebuild` does that. The digest is that of all rows that the fold gives."
)]
pub(crate) struct Args {
    /// Verify the log: its sequences, digests, chains and ledger
    #[arg(long, group = "what")]
    chain: bool,

    /// Verify the read models
    #[arg(long, group = "what")]
    projections: bool,

    /// Of the read models only this projection's; may be repeated
    #[arg(long, value_name = "PROJECTION", requires = "projections")]
    only: Vec<String>,

    /// Connections that work side by side. Default: the number of processors
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: Option<u16>,
}

/// Both results, where the chain was asked for.
#[derive(Serialize)]
struct Document<'a> {
    chain: &'a chain::Report,
    #[serde(skip_serializing_if = "Option::is_none")]
    projections: Option<&'a [projections::Report]>,
}

pub(crate) async fn run(args: &Args, app: &App) -> anyhow::Result<Exit> {
    let wanted = projections::wanted(&args.only)?;
    let pool = connect(&app.config().database).await?;
    let workers = args.workers.map_or_else(processors, usize::from);
    let chain = match args.chain {
        true => Some(chain::verify(&pool, workers).await?),
        false => None,
    };
    let projections = match args.projections {
        true => Some(projections::verify(&pool, &wanted, workers).await?),
        false => None,
    };
    let is_well = chain.as_ref().is_none_or(chain::Report::is_well)
        && projections
            .iter()
            .flatten()
            .all(projections::Report::is_well);
    match (&chain, projections.as_deref()) {
        (Some(chain), projections) => {
            let document = Document { chain, projections };
            app.output.document(&document, |output| {
                let mut text = chain::table(chain, output);
                if let Some(reports) = projections {
                    text = format!("{text}\n\n{}", projections::table(reports, output));
                }
                text
            })?;
        }
        (None, Some(reports)) => app
            .output
            .document(&reports, |output| projections::table(reports, output))?,
        // The arguments do not allow it.
        (None, None) => {}
    }
    Ok(if is_well { Exit::Done } else { Exit::Problem })
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
