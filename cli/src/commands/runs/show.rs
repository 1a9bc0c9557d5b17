//! `runlog runs show`: one run with its steps and what was inconsistent about it.

use serde::Serialize;
use serde_json::Value;
use service::exit::Exit;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

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

Times are the log's clock (persistedAt); the emitted ones, and how long a step TOOK, the engine's.")]
pub(crate) struct Args {
    /// The run
    #[arg(value_name = "RUN")]
    run_id: String,

    #[command(flatten)]
    scope: ScopeArgs,
}

#[derive(Debug, Serialize)]
struct Shown {
    run: Run,
    steps: Vec<Step>,
    inconsistencies: Vec<Inconsistency>,
}

/// A row of `read_model.step_attempt`.
#[derive(Debug, Serialize, FromRow)]
struct Step {
    step_id: String,
    logical_attempt_id: i32,
    engine_attempt_id: i32,
    status: String,
    started_at: Option<Time>,
    completed_at: Option<Time>,
    duration_ms: Option<i64>,
    emitted_started_at: Option<Time>,
    emitted_completed_at: Option<Time>,
    error: Option<Value>,
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
struct Inconsistency {
    event_id: Uuid,
    event_type: String,
    run_seq: i64,
    persisted_at: Time,
    step_id: Option<String>,
    logical_attempt_id: Option<i32>,
    prior_state: String,
    attempted_state: String,
    code: String,
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
    let shown = read(&mut transaction, &tenant_id, &args.run_id)
        .await
        .map_err(|error| failed(error, "read the run"))?;
    let Some(shown) = shown else {
        anyhow::bail!(
            "the run {} is in the log, but not yet in the read model; `runlog status` shows how far \
             the projectors are, `runlog runs events {}` what the log has",
            args.run_id,
            args.run_id
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
    let inconsistencies = sqlx::query_as(
        "SELECT event_id, event_type, run_seq, persisted_at, step_id, logical_attempt_id,
                prior_state, attempted_state, code
         FROM read_model.run_inconsistency
         WHERE tenant_id = $1 AND run_id = $2
         ORDER BY run_seq",
    )
    .bind(tenant_id)
    .bind(run_id)
    .fetch_all(&mut *connection)
    .await?;
    Ok(Some(Shown {
        run,
        steps,
        inconsistencies,
    }))
}

fn tables(shown: &Shown, output: &Output) -> String {
    let mut parts = vec![run_table(&shown.run, output)];
    if !shown.steps.is_empty() {
        parts.push(steps_table(&shown.steps, output));
    }
    if !shown.inconsistencies.is_empty() {
        parts.push(inconsistencies_table(&shown.inconsistencies, output));
    }
    parts.join("\n\n")
}

fn run_table(run: &Run, output: &Output) -> String {
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
