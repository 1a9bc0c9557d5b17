//! `runlog runs summary`: how many runs are in which status, and how many are inconsistent.

use std::collections::BTreeMap;

use serde::Serialize;
use service::exit::Exit;

use crate::app::App;
use crate::database::{connect, failed};
use crate::format::count;
use crate::output::{Output, text};
use crate::scope::ScopeArgs;

/// Count runs by status and consistency
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog runs summary --tenant acme-retail
  runlog runs summary --all-tenants -o json")]
pub(crate) struct Args {
    #[command(flatten)]
    scope: ScopeArgs,
}

/// The same names as in the report of `simulate`, so that the two can be compared.
#[derive(Debug, Default, Serialize)]
struct Summary {
    runs: i64,
    runs_by_status: BTreeMap<String, i64>,
    inconsistent_runs: i64,
    #[serde(skip)]
    rows: Vec<Row>,
}

#[derive(Debug, sqlx::FromRow)]
struct Row {
    status: String,
    consistency: String,
    runs: i64,
}

pub(super) async fn run(args: &Args, app: &App) -> anyhow::Result<Exit> {
    let scope = args.scope.resolve()?;
    let pool = connect(&app.config().database).await?;
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT status, consistency, count(*) AS runs
         FROM read_model.run_current
         WHERE $1::text IS NULL OR tenant_id = $1
         GROUP BY status, consistency
         ORDER BY status, consistency",
    )
    .bind(scope.tenant())
    .fetch_all(&pool)
    .await
    .map_err(|error| failed(error, "count runs"))?;
    let summary = Summary::of(rows);
    app.output
        .document(&summary, |output| table(&summary, output))?;
    Ok(Exit::Done)
}

impl Summary {
    fn of(rows: Vec<Row>) -> Self {
        let mut summary = Self::default();
        for row in &rows {
            summary.runs += row.runs;
            *summary
                .runs_by_status
                .entry(row.status.clone())
                .or_default() += row.runs;
            if row.consistency == "INCONSISTENT" {
                summary.inconsistent_runs += row.runs;
            }
        }
        Self { rows, ..summary }
    }
}

fn table(summary: &Summary, output: &Output) -> String {
    let mut table = output.table(&["STATUS", "CONSISTENCY", "RUNS"]);
    for row in &summary.rows {
        table.add_row(vec![
            output.status(&row.status),
            output.status(&row.consistency),
            count(row.runs).into(),
        ]);
    }
    format!(
        "{}\n\n{} runs, {} of them inconsistent",
        text(&table),
        count(summary.runs),
        count(summary.inconsistent_runs)
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::{Row, Summary};

    #[test]
    fn statuses_are_summed_over_consistency() {
        let row = |status: &str, consistency: &str, runs| Row {
            status: status.to_owned(),
            consistency: consistency.to_owned(),
            runs,
        };
        let summary = Summary::of(vec![
            row("COMPLETED", "CONSISTENT", 5),
            row("COMPLETED", "INCONSISTENT", 2),
            row("FAILED", "INCONSISTENT", 1),
        ]);
        assert_eq!(
            serde_json::to_value(&summary).unwrap(),
            json!({"runs": 8, "runs_by_status": {"COMPLETED": 7, "FAILED": 1}, "inconsistent_runs": 3})
        );
    }
}
