//! `runlog runs list`: the newest runs first.

use run_events::RunStatus;
use serde::Serialize;
use serde_json::Value;
use service::exit::Exit;
use sqlx::FromRow;

use crate::app::App;
use crate::database::{connect, failed};
use crate::format::{Time, duration_or_dash, or_dash};
use crate::output::{Output, text};
use crate::scope::{Scope, ScopeArgs};

/// List runs, newest first
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog runs list --tenant acme-retail
  runlog runs list --all-tenants --status FAILED --limit 20
  runlog runs list --all-tenants -o json | jq -r '.[] | select(.consistency == \"INCONSISTENT\") | .run_id'

STARTED is the log's clock. TOOK is the engine's: how long the run took, whenever the log learned it.")]
pub(crate) struct Args {
    #[command(flatten)]
    scope: ScopeArgs,

    /// Only runs in this status: PENDING, RUNNING, PAUSED, COMPLETED, FAILED or CANCELLED
    #[arg(long, value_parser = status)]
    status: Option<RunStatus>,

    /// How many at most
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
}

/// A row of `read_model.run_current`.
#[derive(Debug, Serialize, FromRow)]
pub(super) struct Run {
    pub(super) tenant_id: String,
    pub(super) run_id: String,
    pub(super) project_id: String,
    pub(super) environment_id: String,
    pub(super) plan_id: String,
    pub(super) plan_version: String,
    pub(super) status: String,
    pub(super) consistency: String,
    pub(super) last_event_seq: i64,
    pub(super) queued_at: Option<Time>,
    pub(super) started_at: Option<Time>,
    pub(super) ended_at: Option<Time>,
    pub(super) sort_at: Time,
    pub(super) emitted_started_at: Option<Time>,
    pub(super) emitted_ended_at: Option<Time>,
    pub(super) queue_wait_ms: Option<i64>,
    pub(super) active_ms: Option<i64>,
    pub(super) paused_ms: Option<i64>,
    pub(super) wall_ms: Option<i64>,
    pub(super) emitted_wall_ms: Option<i64>,
    pub(super) steps_running: i32,
    pub(super) steps_succeeded: i32,
    pub(super) steps_failed: i32,
    pub(super) steps_skipped: i32,
    pub(super) retries: i32,
    pub(super) error: Option<Value>,
    /// None of a run as it once was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) projected_at: Option<Time>,
}

/// The columns of [`Run`], for every query of it.
macro_rules! run_columns {
    () => {
        "tenant_id, run_id, project_id, environment_id, plan_id, plan_version, status, consistency,
         last_event_seq, queued_at, started_at, ended_at, sort_at, emitted_started_at,
         emitted_ended_at, queue_wait_ms, active_ms, paused_ms, wall_ms, emitted_wall_ms,
         steps_running, steps_succeeded, steps_failed, steps_skipped, retries, error, projected_at"
    };
}
pub(super) use run_columns;

pub(super) async fn run(args: &Args, app: &App) -> anyhow::Result<Exit> {
    let scope = args.scope.resolve()?;
    let pool = connect(&app.config().database).await?;
    let runs: Vec<Run> = sqlx::query_as(concat!(
        "SELECT ",
        run_columns!(),
        " FROM read_model.run_current
          WHERE ($1::text IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR status = $2)
          ORDER BY sort_at DESC, tenant_id, run_id
          LIMIT $3"
    ))
    .bind(scope.tenant())
    .bind(args.status.map(RunStatus::as_str))
    .bind(args.limit)
    .fetch_all(&pool)
    .await
    .map_err(|error| failed(error, "list runs"))?;
    app.output
        .document(&runs, |output| table(&runs, &scope, output))?;
    Ok(Exit::Done)
}

fn table(runs: &[Run], scope: &Scope, output: &Output) -> String {
    if runs.is_empty() {
        return format!("There are no such runs {}.", scope.phrase());
    }
    let mut table = output.table(&[
        "TENANT",
        "RUN",
        "STATUS",
        "CONSISTENCY",
        "PLAN",
        "ENVIRONMENT",
        "STARTED",
        "TOOK",
        "STEPS OK/FAILED/SKIPPED/RUNNING",
        "RETRIES",
        "SEQ",
    ]);
    for run in runs {
        let steps = format!(
            "{}/{}/{}/{}",
            run.steps_succeeded, run.steps_failed, run.steps_skipped, run.steps_running
        );
        table.add_row(vec![
            (&run.tenant_id).into(),
            (&run.run_id).into(),
            output.status(&run.status),
            output.status(&run.consistency),
            format!("{} {}", run.plan_id, run.plan_version).into(),
            (&run.environment_id).into(),
            or_dash(run.started_at.as_ref()).into(),
            duration_or_dash(run.emitted_wall_ms).into(),
            steps.into(),
            run.retries.into(),
            run.last_event_seq.into(),
        ]);
    }
    text(&table)
}

fn status(text: &str) -> Result<RunStatus, String> {
    RunStatus::parse(&text.to_ascii_uppercase()).ok_or_else(|| {
        "must be one of PENDING, RUNNING, PAUSED, COMPLETED, FAILED, CANCELLED".to_owned()
    })
}
