//! `runlog runs show`: one run with its steps and what was inconsistent about it, as it is or as it was.

use run_events::Micros;
use serde::Serialize;
use serde_json::Value;
use service::exit::Exit;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::at::{self, At, Moment};
use super::list::{Run, run_columns};
use super::tenant_of;
use crate::app::App;
use crate::database::{connect, failed};
use crate::format::{Time, duration_or_dash, or_dash, shortened};
use crate::output::{Output, text};
use crate::scope::ScopeArgs;

/// Show a run, its steps and its inconsistencies
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog runs show 0d3c6a9e-4f0c-4a8e-9d5d-3d4c0f7dbb8a --tenant acme-retail
  runlog runs show 0d3c6a9e-4f0c-4a8e-9d5d-3d4c0f7dbb8a --all-tenants -o json | jq .steps
  runlog runs show 0d3c6a9e-4f0c-4a8e-9d5d-3d4c0f7dbb8a --tenant acme-retail --at-seq 120
  runlog runs show 0d3c6a9e-4f0c-4a8e-9d5d-3d4c0f7dbb8a --tenant acme-retail --at-time 2026-01-02T03:04:05Z

Times are the log's clock (persistedAt); the emitted ones, and how long a step TOOK, the engine's.
--at-seq and --at-time read the log: the events up to then, from the nearest snapshot on.")]
pub(crate) struct Args {
    /// The run
    #[arg(value_name = "RUN")]
    run_id: String,

    #[command(flatten)]
    scope: ScopeArgs,

    /// The run as it was after the event with this runSeq
    #[arg(long, value_name = "SEQ", conflicts_with = "at_time", value_parser = at::run_seq)]
    at_seq: Option<i64>,

    /// The run as it was at this time (RFC 3339): after the last event that the log had by then
    #[arg(long, value_name = "TIME", value_parser = at::time)]
    at_time: Option<Micros>,
}

#[derive(Debug, Serialize)]
pub(super) struct Shown {
    pub(super) run: Run,
    pub(super) steps: Vec<Step>,
    pub(super) inconsistencies: Vec<Inconsistency>,
    /// Which state this is; without it, the one that the read model has now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<At>,
}

/// A row of `read_model.step_attempt`.
#[derive(Debug, Serialize, FromRow)]
pub(super) struct Step {
    pub(super) step_id: String,
    pub(super) logical_attempt_id: i32,
    pub(super) engine_attempt_id: i32,
    pub(super) status: String,
    pub(super) started_at: Option<Time>,
    pub(super) completed_at: Option<Time>,
    pub(super) duration_ms: Option<i64>,
    pub(super) emitted_started_at: Option<Time>,
    pub(super) emitted_completed_at: Option<Time>,
    pub(super) error: Option<Value>,
}

impl Step {
    /// How long the attempt took by the engine's clock. `duration_ms` is the log's, which is short
    /// where events came in late and together.
    fn took_ms(&self) -> Option<i64> {
        let (started, completed) = (self.emitted_started_at?, self.emitted_completed_at?);
        Some((completed.0 - started.0).num_milliseconds())
    }
}

/// A row of `read_model.run_inconsistency`.
#[derive(Debug, Serialize, FromRow)]
pub(super) struct Inconsistency {
    pub(super) event_id: Uuid,
    pub(super) event_type: String,
    pub(super) run_seq: i64,
    pub(super) persisted_at: Time,
    pub(super) step_id: Option<String>,
    pub(super) logical_attempt_id: Option<i32>,
    pub(super) prior_state: String,
    pub(super) attempted_state: String,
    pub(super) code: String,
}

pub(super) async fn run(args: &Args, app: &App) -> anyhow::Result<Exit> {
    let scope = args.scope.resolve()?;
    let pool = connect(&app.config().database).await?;
    // One snapshot, so that run and steps belong together.
    let mut transaction = pool
        .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await
        .map_err(|error| failed(error, "read the run"))?;
    let tenant_id = tenant_of(&mut transaction, &scope, &args.run_id).await?;
    let run_id = &args.run_id;
    let moment = args.at_seq.map(Moment::Seq);
    let shown = match moment.or(args.at_time.map(Moment::Time)) {
        Some(moment) => Some(at::read(&mut transaction, &tenant_id, run_id, moment).await?),
        None => read(&mut transaction, &tenant_id, run_id)
            .await
            .map_err(|error| failed(error, "read the run"))?,
    };
    let Some(shown) = shown else {
        anyhow::bail!(
            "the run {run_id} is in the log, but not yet in the read model; `runlog status` shows how far \
             the projectors are, `runlog runs events {run_id}` what the log has"
        );
    };
    app.output
        .document(&shown, |output| tables(&shown, output))?;
    Ok(Exit::Done)
}

async fn read(
    connection: &mut PgConnection,
    tenant_id: &str,
    run_id: &str,
) -> Result<Option<Shown>, sqlx::Error> {
    let run: Option<Run> = sqlx::query_as(concat!(
        "SELECT ",
        run_columns!(),
        " FROM read_model.run_current WHERE tenant_id = $1 AND run_id = $2"
    ))
    .bind(tenant_id)
    .bind(run_id)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(run) = run else { return Ok(None) };
    let steps = sqlx::query_as(
        "SELECT step_id, logical_attempt_id, engine_attempt_id, status, started_at, completed_at,
                duration_ms, emitted_started_at, emitted_completed_at, error
         FROM read_model.step_attempt
         WHERE tenant_id = $1 AND run_id = $2
         ORDER BY coalesce(started_at, completed_at), step_id, logical_attempt_id",
    )
    .bind(tenant_id)
    .bind(run_id)
    .fetch_all(&mut *connection)
    .await?;
    let inconsistencies = inconsistencies(connection, tenant_id, run_id, i64::MAX).await?;
    Ok(Some(Shown {
        run,
        steps,
        inconsistencies,
        at: None,
    }))
}

/// Those of the run up to this runSeq.
pub(super) async fn inconsistencies(
    connection: &mut PgConnection,
    tenant_id: &str,
    run_id: &str,
    up_to: i64,
) -> Result<Vec<Inconsistency>, sqlx::Error> {
    sqlx::query_as(
        "SELECT event_id, event_type, run_seq, persisted_at, step_id, logical_attempt_id,
                prior_state, attempted_state, code
         FROM read_model.run_inconsistency
         WHERE tenant_id = $1 AND run_id = $2 AND run_seq <= $3
         ORDER BY run_seq",
    )
    .bind(tenant_id)
    .bind(run_id)
    .bind(up_to)
    .fetch_all(connection)
    .await
}

fn tables(shown: &Shown, output: &Output) -> String {
    let mut parts = vec![run_table(&shown.run, shown.at.as_ref(), output)];
    if !shown.steps.is_empty() {
        parts.push(steps_table(&shown.steps, output));
    }
    if !shown.inconsistencies.is_empty() {
        parts.push(inconsistencies_table(&shown.inconsistencies, output));
    }
    parts.join("\n\n")
}

fn run_table(run: &Run, at: Option<&At>, output: &Output) -> String {
    let mut table = output.table(&["RUN", &run.run_id]);
    table.add_row(["tenant", &run.tenant_id]);
    table.add_row(["project", &run.project_id]);
    table.add_row(["environment", &run.environment_id]);
    table.add_row(["plan", &format!("{} {}", run.plan_id, run.plan_version)]);
    table.add_row(vec!["status".into(), output.status(&run.status)]);
    table.add_row(vec!["consistency".into(), output.status(&run.consistency)]);
    for (name, time) in [
        ("queued", run.queued_at),
        ("started", run.started_at),
        ("ended", run.ended_at),
        ("emitted started", run.emitted_started_at),
        ("emitted ended", run.emitted_ended_at),
    ] {
        table.add_row([name, &or_dash(time)]);
    }
    for (name, milliseconds) in [
        ("queue wait", run.queue_wait_ms),
        ("active", run.active_ms),
        ("paused", run.paused_ms),
        ("wall", run.wall_ms),
        ("emitted wall", run.emitted_wall_ms),
    ] {
        table.add_row([name, &duration_or_dash(milliseconds)]);
    }
    let steps = format!(
        "{} succeeded, {} failed, {} skipped, {} running; {} retries",
        run.steps_succeeded, run.steps_failed, run.steps_skipped, run.steps_running, run.retries
    );
    table.add_row(["steps", &steps]);
    table.add_row(["error", &or_dash(run.error.as_ref())]);
    table.add_row(["last event", &format!("runSeq {}", run.last_event_seq)]);
    if let Some(at) = at {
        table.add_row([
            "as of",
            &format!(
                "runSeq {} of {}, {}",
                at.run_seq, at.last_run_seq, at.persisted_at
            ),
        ]);
        let from = at.snapshot.as_ref().map_or_else(
            || "the run's first event on".to_owned(),
            |used| {
                format!(
                    "the snapshot at runSeq {}, {} events on",
                    used.run_seq, at.events_folded
                )
            },
        );
        table.add_row(["folded from", &from]);
        table.add_row(["digest", &at.digest]);
    }
    text(&table)
}

fn steps_table(steps: &[Step], output: &Output) -> String {
    let mut table = output.table(&["STEP", "ATTEMPT", "STATUS", "STARTED", "TOOK", "ERROR"]);
    for step in steps {
        let error = step
            .error
            .as_ref()
            .map(|error| shortened(&error.to_string(), 100));
        table.add_row(vec![
            (&step.step_id).into(),
            step.logical_attempt_id.into(),
            output.status(&step.status),
            or_dash(step.started_at).into(),
            duration_or_dash(step.took_ms()).into(),
            or_dash(error).into(),
        ]);
    }
    text(&table)
}

fn inconsistencies_table(rows: &[Inconsistency], output: &Output) -> String {
    let mut table = output.table(&[
        "INCONSISTENT",
        "SEQ",
        "EVENT",
        "STEP",
        "ATTEMPT",
        "WAS",
        "ASKED FOR",
    ]);
    for row in rows {
        table.add_row([
            row.code.clone(),
            row.run_seq.to_string(),
            format!("{} {}", row.event_type, row.event_id),
            or_dash(row.step_id.as_ref()),
            or_dash(row.logical_attempt_id),
            row.prior_state.clone(),
            row.attempted_state.clone(),
        ]);
    }
    text(&table)
}
