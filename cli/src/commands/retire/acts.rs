//! The acts of a retention, one after the other: a few thousand events each, then as long a pause for ingest as the act
//! took.

use std::collections::BTreeMap;
use std::time::Instant;

use event_log::generation::Operator;
use event_log::retention::{self, Candidate};
use runlog_projectors::projection::RunName;
use runlog_projectors::retention::{Ended, Retirer};
use sqlx::PgConnection;

use super::Report;
use crate::acts::{parts, patiently};
use crate::database::failed;
use crate::progress::Progress;

/// Runs that are looked at together.
const RUNS: i64 = 200;
/// Events of an act, unless a single run has more: what bounds how long ingest waits for it.
const EVENTS: i64 = 4_000;
/// Retires what can be, and counts the rest, up to `limit` runs.
pub(super) async fn run(
    connection: &mut PgConnection,
    ended: &Ended<'_>,
    limit: u64,
    by: Operator<'_>,
    total: i64,
    report: &mut Report,
) -> anyhow::Result<()> {
    let retirer = Retirer::new(connection)
        .await
        .map_err(|error| failed(error, "make tables to count with"))?;
    let total = total.unsigned_abs().min(limit);
    let mut progress = Progress::start(Some(total), "{human_pos}/{human_len} runs");
    let mut after = RunName {
        tenant_id: String::new(),
        run_id: String::new(),
    };
    while report.runs < limit {
        let page = ended.page(connection, &after, RUNS).await;
        let page = page.map_err(|error| failed(error, "read the runs"))?;
        let Some(last) = page.last() else { break };
        after = last.clone();
        let names: Vec<(&str, &str)> = page
            .iter()
            .map(|run| (run.tenant_id.as_str(), run.run_id.as_str()))
            .collect();
        let numbers = retention::numbers(connection, &names).await;
        let numbers = numbers.map_err(|error| failed(error, "look the runs up in the log"))?;
        let mut runs = retirable(connection, ended, &numbers, &mut report.kept).await?;
        runs.truncate(usize::try_from(limit - report.runs).unwrap_or(usize::MAX));
        for act in parts(&runs, EVENTS) {
            let mut act = act.to_vec();
            if !report.dry_run {
                act = carry_out(connection, &retirer, ended, act, by, report).await?;
            }
            report.runs += act.len() as u64;
            report.events += act.iter().map(|(_, head)| head.unsigned_abs()).sum::<u64>();
            progress.at(report.runs, report.events);
        }
    }
    progress.finish();
    Ok(())
}

/// One act; which runs it retired. One that has changed since it was looked up is looked up again.
async fn carry_out(
    connection: &mut PgConnection,
    retirer: &Retirer,
    ended: &Ended<'_>,
    mut runs: Vec<(i64, i64)>,
    by: Operator<'_>,
    report: &mut Report,
) -> anyhow::Result<Vec<(i64, i64)>> {
    while !runs.is_empty() {
        let began = Instant::now();
        let act = patiently(async || retirer.retire(connection, &runs, by).await).await?;
        if let Some(audit_id) = act {
            report.first_audit_id.get_or_insert(audit_id);
            report.last_audit_id = Some(audit_id);
            tokio::time::sleep(began.elapsed()).await;
            break;
        }
        let numbers: Vec<i64> = runs.iter().map(|(run_no, _)| *run_no).collect();
        runs = retirable(connection, ended, &numbers, &mut report.kept).await?;
    }
    Ok(runs)
}

/// Those of the runs that can be retired, as (number, last runSeq).
async fn retirable(
    connection: &mut PgConnection,
    ended: &Ended<'_>,
    numbers: &[i64],
    kept: &mut BTreeMap<String, u64>,
) -> anyhow::Result<Vec<(i64, i64)>> {
    let candidates = ended.candidates(connection, numbers).await;
    let candidates = candidates.map_err(|error| failed(error, "look the runs up in the log"))?;
    let mut runs = Vec::new();
    for candidate in candidates {
        match candidate {
            Candidate {
                run_no,
                head_seq: Some(head),
                obstacle: None,
                ..
            } => runs.push((run_no, head)),
            other => {
                let why = other
                    .obstacle
                    .unwrap_or_else(|| "it has no events".to_owned());
                *kept.entry(why).or_default() += 1;
            }
        }
    }
    Ok(runs)
}
