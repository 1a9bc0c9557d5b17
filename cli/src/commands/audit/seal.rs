//! `runlog audit seal`: seals the days that are over, or compares a day with its seal.

use std::time::Duration;

use anyhow::{anyhow, bail};
use chrono::NaiveDate;
use event_log::seal::{self, Progress, SealError, Stored};
use run_events::Digest;
use run_events::seal::Seal;
use service::exit::Exit;
use sqlx::{PgConnection, PgPool};

use super::{Printed, chain_holds, day};
use crate::app::App;
use crate::database::{connect_patiently, failed};
use crate::output::{note, text};
use crate::progress;

/// How long batches that are under way are waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Differences that are told.
const TOLD: usize = 20;

/// Seal the days that are over and not sealed yet, oldest first
///
/// A seal is one digest of what the log was at the end of a day (UTC, by persistedAt): of where each run stood that
/// got events on it, and of the seal of the day before. It is stored in the database; it proves something to others
/// once it is kept outside, where whoever has the database cannot reach it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog audit seal                              every night, from 00:10 UTC on
  runlog audit seal -o json > seals.json         what to keep: on paper, in git, with a timestamping service
  runlog audit seal --until 2026-01-31
  runlog audit seal --day 2026-01-31             sealed already: is the day still what it was?
  runlog audit seal --dry-run

Runs beside ingest: it waits until each batch that is under way has ended, a minute at most. Days without events are
sealed too, so that none is left out unseen. It seals what is there: run `runlog verify --chain` first.

Exit codes: 0 done, 1 a day is not over, or is not what was sealed, 2 usage, 3 PostgreSQL does not answer.")]
pub(crate) struct Args {
    /// This day: seal it, or compare it with its seal where it has one
    #[arg(long, value_parser = day, conflicts_with = "until")]
    day: Option<NaiveDate>,

    /// Seal the days up to this one. Default: the last one that is over
    #[arg(long, value_parser = day, value_name = "DAY")]
    until: Option<NaiveDate>,

    /// Only show what would be sealed
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(args: &Args, app: &App) -> anyhow::Result<Exit> {
    let pool = connect_patiently(&app.config().database).await?;
    let mut connection = pool.acquire().await.map_err(read_failed)?;
    let stored = seal::seals(&mut connection, None).await;
    let stored = stored.map_err(read_failed)?;
    if !chain_holds(&stored) {
        return Ok(Exit::Problem);
    }
    if let Some(day) = args.day
        && let Some(last) = stored.last()
        && day <= last.written.seal.day
    {
        let of_day = stored.iter().find(|stored| stored.written.seal.day == day);
        let of_day =
            of_day.ok_or_else(|| anyhow!("{day} has no seal: it was before the first one"))?;
        return compare(&mut connection, of_day, app).await;
    }
    let Some((first, last)) = days(&mut connection, args, stored.last()).await? else {
        app.output
            .document::<[Printed; 0]>(&[], |_| "Nothing to seal.".to_owned())?;
        return Ok(Exit::Done);
    };
    seal::ended(&mut connection, last, PATIENCE)
        .await
        .map_err(told)?;
    let previous = stored
        .last()
        .map_or(Seal::FIRST, |stored| stored.written.digest);
    let mut sealed = Vec::new();
    let done = seal_days(
        &pool,
        &mut connection,
        (first, last),
        previous,
        args.dry_run,
        &mut sealed,
    )
    .await;
    // Also where it came to an end half-way: what is stored is to be kept.
    app.output.document(&sealed, |output| {
        let mut table = output.table(&["DAY", "RUNS", "EVENTS", "DIGEST"]);
        for Printed { seal, .. } in &sealed {
            table.add_row([
                seal.day.to_string(),
                seal.runs.to_string(),
                seal.events.to_string(),
                seal.digest().to_string(),
            ]);
        }
        text(&table)
    })?;
    done.map_err(told)?;
    note(match args.dry_run {
        true => "A dry run: nothing was stored.",
        false => {
            "Keep the last digest outside of this database: only then it proves anything to others."
        }
    });
    Ok(Exit::Done)
}

/// The first and the last day to seal; `None` = there is nothing.
async fn days(
    connection: &mut PgConnection,
    args: &Args,
    sealed: Option<&Stored>,
) -> anyhow::Result<Option<(NaiveDate, NaiveDate)>> {
    let first = match sealed {
        Some(stored) => stored.written.seal.day.succ_opt(),
        None => seal::first_day(connection).await.map_err(read_failed)?,
    };
    let Some(first) = first else {
        note("The log has no event.");
        return Ok(None);
    };
    let last = match args.day.or(args.until) {
        Some(day) => day,
        None => seal::last_day(connection).await.map_err(read_failed)?,
    };
    if args.day.is_some_and(|day| day != first) {
        bail!(
            "{last} is not the next day to be sealed, which is {first}; --until {last} seals all up to it"
        );
    }
    if last < first {
        note(format!("The next day to be sealed is {first}."));
        return Ok(None);
    }
    Ok(Some((first, last)))
}

async fn seal_days(
    pool: &PgPool,
    connection: &mut PgConnection,
    (first, last): (NaiveDate, NaiveDate),
    previous: Digest,
    dry_run: bool,
    sealed: &mut Vec<Printed>,
) -> Result<(), SealError> {
    let (read, mut bar) = (Progress::default(), progress::Progress::start(None, ""));
    let operator = service::operator_name();
    let mut previous = previous;
    for day in first.iter_days().take_while(|day| *day <= last) {
        let heads = {
            let mut work = std::pin::pin!(seal::collect(connection, day, &read));
            let mut tick = tokio::time::interval(Duration::from_millis(200));
            loop {
                tokio::select! {
                    heads = &mut work => break heads?,
                    _ = tick.tick() => bar.at(read.events(), read.events()),
                }
            }
        };
        let seal = heads.seal(previous);
        let mut printed = Printed {
            seal,
            sealed_at: None,
        };
        if !dry_run {
            seal::store(pool, &heads, &seal, &operator).await?;
            let stored = seal::seals(connection, Some(day)).await?;
            printed.sealed_at = stored
                .first()
                .and_then(|stored| Printed::from(stored).sealed_at);
        }
        sealed.push(printed);
        previous = seal.digest();
    }
    bar.finish();
    Ok(())
}

/// Compares a day with its seal.
async fn compare(
    connection: &mut PgConnection,
    stored: &Stored,
    app: &App,
) -> anyhow::Result<Exit> {
    let seal = &stored.written.seal;
    let findings = seal::day(connection, seal, &Progress::default()).await;
    let findings = findings.map_err(read_failed)?;
    for finding in findings.iter().take(TOLD) {
        // As Rust writes texts, so that a name cannot look like the rest of the line.
        let place = match (&finding.name, finding.run_no) {
            (Some((tenant_id, run_id)), _) => format!("tenant {tenant_id:?} run {run_id:?}: "),
            (None, Some(run_no)) => format!("run number {run_no}: "),
            (None, None) => String::new(),
        };
        note(format!("{place}{}", finding.what));
    }
    app.output.document(&[Printed::from(stored)], |_| {
        let digest = stored.written.digest;
        match findings.len() {
            0 => format!("{} is what was sealed: {digest}", seal.day),
            more => format!(
                "{} is not what was sealed ({digest}). Differences: {more}",
                seal.day
            ),
        }
    })?;
    Ok(match findings.is_empty() {
        true => Exit::Done,
        false => Exit::Problem,
    })
}

fn read_failed(error: sqlx::Error) -> anyhow::Error {
    failed(error, "read what is to be sealed")
}

/// The error with the way out.
fn told(error: SealError) -> anyhow::Error {
    let way_out = match &error {
        SealError::Database(_) => {
            let SealError::Database(error) = error else {
                return error.into();
            };
            return failed(error, "seal (`runlog audit list` shows what is sealed)");
        }
        SealError::NotOver { .. } => "the day is not over yet",
        SealError::Busy { .. } => "nothing more was sealed; try again, or look at `runlog status`",
        SealError::Damaged { .. } => "this is not to be sealed: run `runlog verify --chain`",
        SealError::Meanwhile { .. } => {
            "nothing more was sealed; `runlog audit list` shows the seals"
        }
    };
    anyhow::Error::new(error).context(way_out)
}
