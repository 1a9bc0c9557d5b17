//! `runlog erase`: takes the payloads of one run, or of all runs of a tenant, out of the log, and what was made of them out of
//! the read models and the dead letters. Some runs at a time, each an audited act; ended in the middle, the same command
//! goes on with what is left.

use std::time::Instant;

use anyhow::bail;
use event_log::erasure;
use event_log::generation::Operator;
use event_log::read::run_no;
use runlog_projectors::erasure::Eraser;
use serde::Serialize;
use service::exit::Exit;
use sqlx::PgConnection;

use crate::acts::{parts, patiently};
use crate::app::App;
use crate::consent::agreed;
use crate::database::{connect_patiently, failed};
use crate::output::{Output, note, text};
use crate::progress::Progress;
use crate::reason::reason;

/// Runs that are looked for at once.
const RUNS: i64 = 200;
/// Events of an act, unless a single run has more: what bounds how long the projections stand still for it.
const EVENTS: i64 = 2_000;

/// Erasure: take the payloads of a run, or of a tenant, away, for ever
///
/// The events stay, with their digests: the chain and the dedup go on as before. What the read models made of the payloads
/// goes in the same transaction; of dead letters, key, value, headers and detail go too.
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("what").required(true),
    after_help = "\
Examples:
  runlog erase --tenant acme --run r-2026-0001 --dry-run
  runlog erase --tenant acme --run r-2026-0001 --reason 'request 4711' --yes
  runlog erase --tenant acme --all-runs --reason 'contract ended' --yes

Events that arrive later keep their payloads, until the command is run again; a repeat of an erased event is a duplicate
as before, and brings nothing back. Dead letters that name no tenant, since their records could not be read, are nobody's
and stay: see `runlog dlq list`.

Not erased: what Kafka still has, until its own retention; backups, replicas' and archived WAL; and old row versions in the
database's files, until VACUUM. Names and times of runs and steps are no payload and stay.

Exit codes: 0 done (or shown, with --dry-run; or there was nothing to erase), 1 something kept it from its end, 2 usage
(also: --yes is missing), 3 PostgreSQL does not answer."
)]
pub(crate) struct Args {
    /// The tenant
    #[arg(long)]
    tenant: String,

    /// This run's payloads and dead letters
    #[arg(long, value_name = "RUN", group = "what")]
    run: Option<String>,

    /// Those of all runs of the tenant, and its other dead letters
    #[arg(long, group = "what")]
    all_runs: bool,

    /// Why, for the audit
    #[arg(long, value_name = "TEXT", value_parser = reason, required_unless_present = "dry_run")]
    reason: Option<String>,

    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,

    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// What was done, or would be.
#[derive(Debug, Serialize)]
struct Report<'a> {
    tenant: &'a str,
    /// Null = all of the tenant's.
    run: Option<&'a str>,
    dry_run: bool,
    /// Runs that had payloads.
    runs: u64,
    dead_letters: u64,
    /// The first and the last act's row of event_log.audit; null where there was none.
    first_audit_id: Option<i64>,
    last_audit_id: Option<i64>,
}

impl Report<'_> {
    fn note(&mut self, audit_id: i64) {
        self.first_audit_id.get_or_insert(audit_id);
        self.last_audit_id = Some(audit_id);
    }
}

pub(crate) async fn run(args: &Args, app: &App) -> anyhow::Result<Exit> {
    let run = args.run.as_deref();
    let pool = connect_patiently(&app.config().database).await?;
    let mut connection = pool
        .acquire()
        .await
        .map_err(|error| failed(error, "connect"))?;
    // It makes temporary tables, and a signal may end it in a transaction.
    connection.close_on_drop();
    let dead_letters = erasure::dead_letters(&mut connection, &args.tenant, run)
        .await
        .map_err(|error| failed(error, "count the dead letters"))?;
    if let Some(run) = run.filter(|_| dead_letters == 0) {
        known(&mut connection, &args.tenant, run).await?;
    }
    if !args.dry_run && !args.yes && !agreed(&question(args))? {
        note("Nothing was changed.");
        return Ok(Exit::Problem);
    }
    let mut report = Report {
        tenant: &args.tenant,
        run,
        dry_run: args.dry_run,
        runs: 0,
        dead_letters: dead_letters.unsigned_abs(),
        first_audit_id: None,
        last_audit_id: None,
    };
    let name = service::operator_name();
    let by = Operator {
        name: &name,
        reason: args.reason.as_deref().unwrap_or_default(),
    };
    let mut done = payloads(&mut connection, by, &mut report).await;
    if done.is_ok() && !args.dry_run {
        done = letters(&mut connection, by, &mut report).await;
    }
    app.output
        .document(&report, |output| table(&report, output))?;
    done?;
    note(match (report.dry_run, report.first_audit_id.is_none()) {
        (true, _) => "A dry run: nothing was changed.",
        (false, true) => "There was nothing to erase.",
        (false, false) => {
            "Done. Kafka, backups and archived WAL still have the records, for as long as they keep them; the database's \
             files until VACUUM. Events that arrive later keep their payloads."
        }
    });
    Ok(Exit::Done)
}

fn question(args: &Args) -> String {
    let of = match &args.run {
        Some(run) => format!("run {run:?} of tenant {:?}", args.tenant),
        None => format!("all runs of tenant {:?}", args.tenant),
    };
    format!("The payloads and dead letters of {of} are erased for ever")
}

async fn known(connection: &mut PgConnection, tenant: &str, run: &str) -> anyhow::Result<()> {
    let known = run_no(connection, tenant, run).await;
    if known
        .map_err(|error| failed(error, "look for the run"))?
        .is_none()
    {
        bail!(
            "tenant {tenant:?} has no run {run:?} and no dead letter of it: `runlog runs list --tenant {tenant}` shows its runs"
        );
    }
    Ok(())
}

/// Erases the payloads, some runs at a time.
async fn payloads(
    connection: &mut PgConnection,
    by: Operator<'_>,
    report: &mut Report<'_>,
) -> anyhow::Result<()> {
    let eraser = Eraser::new(connection)
        .await
        .map_err(|error| failed(error, "make tables to fold in"))?;
    let mut progress = Progress::start(None, "");
    let (mut after, mut events) = (0, 0);
    loop {
        let page =
            erasure::runs_with_payloads(connection, report.tenant, report.run, after, RUNS).await;
        let page = page.map_err(|error| failed(error, "look for payloads"))?;
        let Some((last, _)) = page.last() else { break };
        after = *last;
        for act in parts(&page, EVENTS) {
            if !report.dry_run {
                let began = Instant::now();
                let runs: Vec<i64> = act.iter().map(|(run_no, _)| *run_no).collect();
                let act = patiently(async || eraser.erase(connection, &runs, by).await).await?;
                let Some(audit_id) = act else {
                    bail!("a run was retired meanwhile: run the command again for the others");
                };
                report.note(audit_id);
                // The projections go on for as long as they stood still.
                tokio::time::sleep(began.elapsed()).await;
            }
            report.runs += act.len() as u64;
            events += act.iter().map(|(_, head)| head.unsigned_abs()).sum::<u64>();
            progress.at(report.runs, events);
        }
    }
    progress.finish();
    Ok(())
}

async fn letters(
    connection: &mut PgConnection,
    by: Operator<'_>,
    report: &mut Report<'_>,
) -> anyhow::Result<()> {
    let erased = erasure::erase_dead_letters(connection, report.tenant, report.run, by).await;
    let erased = erased.map_err(|error| failed(error, "erase the dead letters"))?;
    report.dead_letters = erased.map_or(0, |(_, letters)| letters.unsigned_abs());
    if let Some((audit_id, _)) = erased {
        report.note(audit_id);
    }
    Ok(())
}

fn table(report: &Report<'_>, output: &Output) -> String {
    let mut table = output.table(&["TENANT", "RUN", "RUNS WITH PAYLOADS", "DEAD LETTERS"]);
    table.add_row(vec![
        report.tenant.to_owned(),
        report.run.unwrap_or("(all)").to_owned(),
        report.runs.to_string(),
        report.dead_letters.to_string(),
    ]);
    text(&table)
}
