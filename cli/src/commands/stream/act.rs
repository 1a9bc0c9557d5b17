//! Carries a plan out: asks where something is given up, opens the generation, says what was done.
//! Called by `stream resume` and `stream rewind`.

use clap::CommandFactory;
use clap::error::ErrorKind;
use event_log::generation::{self, Generation, GenerationError, Operator};
use serde::Serialize;
use service::exit::Exit;
use sqlx::PgPool;

use super::plan::Plan;
use super::{Place, open_generation};
use crate::Cli;
use crate::app::App;
use crate::consent;
use crate::database::{connect, failed};
use crate::kafka::probe::{Probe, Watermarks};
use crate::output::note;
use crate::reason::reason;

/// What both commands take.
#[derive(Debug, clap::Args)]
pub(super) struct ActArgs {
    /// Why, for the audit
    #[arg(long, value_name = "TEXT", value_parser = reason, required_unless_present = "dry_run")]
    reason: Option<String>,

    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,

    /// Do not ask where offsets are left out or lost for ever
    #[arg(long)]
    yes: bool,
}

/// Which command it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Resume,
    Rewind,
}

/// Where the facts of a plan come from.
pub(super) struct Sources {
    pool: PgPool,
    /// The open generation.
    pub(super) shown: Generation,
    /// What Kafka has.
    pub(super) marks: Watermarks,
}

/// What was done, or would be.
#[derive(Debug, Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    plan: &'a Plan,
    dry_run: bool,
    operator: String,
    reason: Option<&'a str>,
    /// The row of event_log.audit; null in a dry run.
    audit_id: Option<i64>,
}

impl Sources {
    /// The open generation, and then Kafka's log.
    pub(super) async fn gather(app: &App, place: &Place) -> anyhow::Result<Self> {
        let pool = connect(&app.config().database).await?;
        let shown = open_generation(&pool, place).await?;
        let marks = ask_kafka(app, place, Probe::watermarks_of).await?;
        Ok(Self { pool, shown, marks })
    }
}

/// Asks Kafka something about a partition that it has.
pub(super) async fn ask_kafka<T: Send + 'static>(
    app: &App,
    place: &Place,
    question: impl FnOnce(&Probe, &str, i32) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let (config, place) = (app.config().kafka.clone(), place.clone());
    tokio::task::spawn_blocking(move || {
        let probe = Probe::new(&config)?;
        let partitions = probe.partitions(&place.topic)?.unwrap_or(0);
        if place.partition >= partitions {
            anyhow::bail!(
                "Kafka at {} has no partition {place}: there is nothing to go on with until the topic is there",
                config.bootstrap_servers
            );
        }
        question(&probe, &place.topic, place.partition)
    })
    .await?
}

/// A usage error: something that the command line has to say.
pub(super) fn usage(message: String) -> anyhow::Error {
    Cli::command()
        .error(ErrorKind::MissingRequiredArgument, message)
        .into()
}

pub(super) async fn carry_out(
    act: Act,
    sources: &Sources,
    plan: &Plan,
    args: &ActArgs,
    app: &App,
) -> anyhow::Result<Exit> {
    let mut report = Report {
        plan,
        dry_run: args.dry_run,
        operator: service::operator_name(),
        reason: args.reason.as_deref(),
        audit_id: None,
    };
    if !args.dry_run {
        if plan.gives_up() && !args.yes && !agreed(act, plan, app)? {
            note("Nothing was changed.");
            return Ok(Exit::Problem);
        }
        report.audit_id = Some(open(act, sources, plan, &report).await?);
    }
    app.output
        .document(&report, |output| plan.table(act.title(), output))?;
    note(match report.audit_id {
        None => "A dry run: nothing was changed.".to_owned(),
        Some(id) => format!(
            "Done, and kept as {id} in event_log.audit; `runlog status` shows how far the new generation is."
        ),
    });
    Ok(Exit::Done)
}

/// Shows the plan to somebody at a terminal, and asks.
fn agreed(act: Act, plan: &Plan, app: &App) -> anyhow::Result<bool> {
    if consent::can_be_asked() {
        note(plan.table(act.title(), &app.output));
    }
    consent::agreed(&plan.given_up())
}

async fn open(
    act: Act,
    sources: &Sources,
    plan: &Plan,
    report: &Report<'_>,
) -> anyhow::Result<i64> {
    let (pool, shown, start) = (&sources.pool, &sources.shown, plan.start_offset);
    let by = Operator {
        name: &report.operator,
        reason: report.reason.unwrap_or_default(),
    };
    let opened = match act {
        Act::Resume => generation::resume(pool, shown, start, by).await,
        Act::Rewind => generation::rewind(pool, shown, start, by).await,
    };
    Ok(opened.map_err(told)?.audit_id)
}

/// The error with the way out.
fn told(error: GenerationError) -> anyhow::Error {
    match error {
        GenerationError::Database(source) => failed(
            source,
            "open the next generation (`runlog stream list` shows whether it was opened)",
        ),
        GenerationError::Busy { .. } => {
            anyhow::Error::new(error).context("nothing was changed; try again")
        }
        error => anyhow::Error::new(error)
            .context("nothing was changed; look at `runlog stream list` and decide again"),
    }
}

impl Act {
    fn title(self) -> &'static str {
        match self {
            Self::Resume => "RESUME",
            Self::Rewind => "REWIND",
        }
    }
}
