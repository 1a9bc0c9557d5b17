//! The acts of a retention, one after the other: a few thousand events each, then as long a pause for ingest as the act
//! took. An act that somebody is in the way of is tried again.

use std::time::{Duration, Instant};

use anyhow::bail;
use event_log::fault::sqlstate;
use event_log::generation::Operator;
use event_log::retention::Candidate;
use runlog_projectors::projection::{ProjectionError, RunName};
use runlog_projectors::retention::{Ended, Retirer};
use sqlx::PgConnection;

use super::Report;
use crate::database::failed;
use crate::output::note;
use crate::progress::Progress;

/// Runs that are looked at together.
const RUNS: i64 = 200;
/// Events of an act, unless a single run has more: what bounds how long ingest waits for it.
const EVENTS: i64 = 4_000;
/// How long an act is tried while somebody is in its way: batches that take long, a verification.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two tries, at first.
const PAUSE: Duration = Duration::from_millis(100);

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
        let mut runs = retirable(connection, ended, &page, &mut report.kept).await?;
        runs.truncate(usize::try_from(limit - report.runs).unwrap_or(usize::MAX));
        for act in parts(&runs) {
            if !report.dry_run {
                let began = Instant::now();
                let audit_id = patiently(connection, &retirer, act, by).await?;
                report.first_audit_id.get_or_insert(audit_id);
                report.last_audit_id = Some(audit_id);
                tokio::time::sleep(began.elapsed()).await;
            }
            report.runs += act.len() as u64;
            report.events += act.iter().map(|(_, head)| head.unsigned_abs()).sum::<u64>();
            progress.at(report.runs, report.events);
        }
    }
    progress.finish();
    Ok(())
}

/// Those of the runs that can be retired, as (number, last runSeq).
async fn retirable(
    connection: &mut PgConnection,
    ended: &Ended<'_>,
    page: &[RunName],
    kept: &mut std::collections::BTreeMap<String, u64>,
) -> anyhow::Result<Vec<(i64, i64)>> {
    let candidates = ended.candidates(connection, page).await;
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

/// Cuts runs (number, events) into acts.
fn parts(runs: &[(i64, i64)]) -> Vec<&[(i64, i64)]> {
    let (mut parts, mut start, mut events) = (Vec::new(), 0, 0);
    for (place, (_, of_run)) in runs.iter().enumerate() {
        if place > start && events + of_run > EVENTS {
            parts.push(&runs[start..place]);
            (start, events) = (place, 0);
        }
        events += of_run;
    }
    if start < runs.len() {
        parts.push(&runs[start..]);
    }
    parts
}

/// Carries an act out as soon as nobody is in its way.
async fn patiently(
    connection: &mut PgConnection,
    retirer: &Retirer,
    runs: &[(i64, i64)],
    by: Operator<'_>,
) -> anyhow::Result<i64> {
    let (began, mut pause, mut told) = (Instant::now(), PAUSE, false);
    loop {
        let error = match retirer.retire(connection, runs, by).await {
            Ok(audit_id) => return Ok(audit_id),
            Err(error) => error,
        };
        let ProjectionError::Database { cause, doing } = error else {
            return Err(
                anyhow::Error::new(error).context("cannot count what the runs add to the sums")
            );
        };
        let code = sqlstate(&cause);
        let said = cause
            .as_database_error()
            .map_or_else(String::new, |error| error.message().to_owned());
        match code.as_deref() {
            // Somebody holds what it needs, or it lost a deadlock.
            Some("55P03" | "40P01") if began.elapsed() < PATIENCE => {
                if !std::mem::replace(&mut told, began.elapsed() > Duration::from_secs(5)) && told {
                    note(format!("Waiting: {said}."));
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
            Some("55P03" | "40P01") => bail!(
                "somebody was in the way for {} s ({said}); what was retired before is done: run it again later",
                PATIENCE.as_secs()
            ),
            Some("55000") => bail!(
                "{said}; what was retired before is done: run it again, which leaves out what has to stay"
            ),
            _ => return Err(failed(cause, doing.trim_start_matches("cannot "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{EVENTS, parts};

    #[test]
    fn an_act_is_as_many_runs_as_have_so_many_events_and_one_at_least() {
        assert!(parts(&[]).is_empty());
        assert_eq!(parts(&[(1, EVENTS * 9)]).len(), 1);
        let runs = [
            (1, EVENTS - 1),
            (2, 1),
            (3, 1),
            (4, EVENTS),
            (5, EVENTS * 2),
            (6, 3),
        ];
        let of = |part: &&[(i64, i64)]| part.iter().map(|(run, _)| *run).collect::<Vec<_>>();
        let parts: Vec<Vec<i64>> = parts(&runs).iter().map(of).collect();
        assert_eq!(parts, [vec![1, 2], vec![3], vec![4], vec![5], vec![6]]);
    }
}
