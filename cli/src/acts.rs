//! Acts of an operator on many runs: some at a time, and tried again while somebody is in the way. Called by `retire` and
//! `erase`.

use std::time::{Duration, Instant};

use anyhow::bail;
use event_log::fault::sqlstate;
use runlog_projectors::projection::ProjectionError;

use crate::database::failed;
use crate::output::note;

/// How long an act is tried while somebody is in its way: batches that take long, a verification.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long nothing is said of that.
const SILENCE: Duration = Duration::from_secs(5);
/// Between two tries, at first.
const PAUSE: Duration = Duration::from_millis(100);

/// Cuts runs (number, events) into acts of so many events, or a single run that has more.
pub(crate) fn parts(runs: &[(i64, i64)], at_once: i64) -> Vec<&[(i64, i64)]> {
    let (mut parts, mut start, mut events) = (Vec::new(), 0, 0);
    for (place, (_, of_run)) in runs.iter().enumerate() {
        if place > start && events + of_run > at_once {
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

/// Carries an act out as soon as nobody is in its way, and returns its row of `event_log.audit`; `None` = what it was about
/// has changed, and it was refused.
pub(crate) async fn patiently(
    mut act: impl AsyncFnMut() -> Result<i64, ProjectionError>,
) -> anyhow::Result<Option<i64>> {
    let (began, mut pause, mut told) = (Instant::now(), PAUSE, false);
    loop {
        let error = match act().await {
            Ok(audit_id) => return Ok(Some(audit_id)),
            Err(error) => error,
        };
        let ProjectionError::Database { cause, doing } = error else {
            return Err(anyhow::Error::new(error)
                .context("nothing was changed by this act, and what was done before is done"));
        };
        let code = sqlstate(&cause);
        let said = cause
            .as_database_error()
            .map_or_else(String::new, |error| error.message().to_owned());
        match code.as_deref() {
            // Somebody holds what it needs, or it lost a deadlock.
            Some("55P03" | "40P01") if began.elapsed() < PATIENCE => {
                if !std::mem::replace(&mut told, began.elapsed() > SILENCE) && told {
                    note(format!("Waiting: {said}."));
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(2));
            }
            Some("55P03" | "40P01") => bail!(
                "somebody was in the way for {} s ({said}); what was done before is done: run it again later",
                PATIENCE.as_secs()
            ),
            Some("55000") => return Ok(None),
            Some("55006") => bail!(
                "{said}: no run can be retired until it has ended; what was done before is done"
            ),
            _ => return Err(failed(cause, doing.trim_start_matches("cannot "))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn an_act_is_as_many_runs_as_have_so_many_events_and_one_at_least() {
        assert!(parts(&[], 10).is_empty());
        assert_eq!(parts(&[(1, 90)], 10).len(), 1);
        let runs = [(1, 9), (2, 1), (3, 1), (4, 10), (5, 20), (6, 3)];
        let of = |part: &&[(i64, i64)]| part.iter().map(|(run, _)| *run).collect::<Vec<_>>();
        let parts: Vec<Vec<i64>> = parts(&runs, 10).iter().map(of).collect();
        assert_eq!(parts, [vec![1, 2], vec![3], vec![4], vec![5], vec![6]]);
    }
}
