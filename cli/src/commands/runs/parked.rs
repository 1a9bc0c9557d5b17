//! `runlog runs parked` and `runlog runs release`: the runs that a projection cannot apply, and another
//! try.

use serde::Serialize;
use service::exit::Exit;
use sqlx::FromRow;

use crate::app::App;
use crate::database::{connect, failed};
use crate::format::{Time, count, or_dash};
use crate::output::{Output, note, text};
use crate::scope::{Scope, ScopeArgs};

/// List the runs that a projection has set aside because it cannot apply one of their events
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog runs parked --all-tenants
  runlog runs parked --tenant acme-retail -o json

Exit code 1 if there are any. A parked run's rows stay as they are and the other runs go on. The error is
a bug, or a row that somebody changed: mend it (a new version, `runlog rebuild`), then `runlog runs release`.")]
pub(crate) struct ParkedArgs {
    #[command(flatten)]
    scope: ScopeArgs,
}

/// Have parked runs tried again, from the event that could not be applied on
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog runs release run-17 --tenant acme-retail
  runlog runs release --all --all-tenants

A run that fails again is parked again, with the error of the last try.")]
pub(crate) struct ReleaseArgs {
    /// The run
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    run_id: Option<String>,

    /// Every parked run
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    scope: ScopeArgs,
}

/// A row of `read_model.parked_run`.
#[derive(Debug, Serialize, FromRow)]
struct Parked {
    tenant_id: String,
    run_id: String,
    projection: String,
    version: i32,
    run_seq: i64,
    error: String,
    parked_at: Time,
    released_at: Option<Time>,
}

pub(super) async fn list(args: &ParkedArgs, app: &App) -> anyhow::Result<Exit> {
    let scope = args.scope.resolve()?;
    let pool = connect(&app.config().database).await?;
    let runs: Vec<Parked> = sqlx::query_as(
        "SELECT tenant_id, run_id, projection, version, run_seq, error, parked_at, released_at
         FROM read_model.parked_run
         WHERE $1::text IS NULL OR tenant_id = $1
         ORDER BY tenant_id, run_id, projection, version",
    )
    .bind(scope.tenant())
    .fetch_all(&pool)
    .await
    .map_err(|error| failed(error, "list the parked runs"))?;
    app.output
        .document(&runs, |output| table(&runs, &scope, output))?;
    Ok(if runs.is_empty() {
        Exit::Done
    } else {
        Exit::Problem
    })
}

fn table(runs: &[Parked], scope: &Scope, output: &Output) -> String {
    if runs.is_empty() {
        return format!("No run is parked {}.", scope.phrase());
    }
    let mut table = output.table(&[
        "TENANT",
        "RUN",
        "PROJECTION",
        "VERSION",
        "SEQ",
        "PARKED",
        "RELEASED",
        "ERROR",
    ]);
    for run in runs {
        table.add_row(vec![
            run.tenant_id.clone(),
            run.run_id.clone(),
            run.projection.clone(),
            run.version.to_string(),
            run.run_seq.to_string(),
            run.parked_at.to_string(),
            or_dash(run.released_at.as_ref()),
            run.error.clone(),
        ]);
    }
    text(&table)
}

pub(super) async fn release(args: &ReleaseArgs, app: &App) -> anyhow::Result<Exit> {
    let scope = args.scope.resolve()?;
    let pool = connect(&app.config().database).await?;
    let released: Vec<Parked> = sqlx::query_as(
        "UPDATE read_model.parked_run SET released_at = clock_timestamp()
         WHERE ($1::text IS NULL OR tenant_id = $1) AND ($2::text IS NULL OR run_id = $2)
         RETURNING tenant_id, run_id, projection, version, run_seq, error, parked_at, released_at",
    )
    .bind(scope.tenant())
    .bind(&args.run_id)
    .fetch_all(&pool)
    .await
    .map_err(|error| failed(error, "release the parked runs"))?;
    if released.is_empty() {
        let which = args.run_id.as_deref().unwrap_or("any");
        anyhow::bail!(
            "no such run is parked ({which}) {}; `runlog runs parked` shows those there are",
            scope.phrase()
        );
    }
    app.output
        .document(&released, |output| table(&released, &scope, output))?;
    note(format!(
        "{} released; runlog-projectors takes up each within seconds, and parks it again if it fails again.",
        count(released.len() as i64)
    ));
    Ok(Exit::Done)
}
