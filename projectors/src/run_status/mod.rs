//! The projection `run_status`: `read_model.run_current`, `step_attempt` and `run_inconsistency`.
//! Called by the runner; folds with [`run_events::RunState`], so that what it shows is what a replay
//! of the log shows.
//!
//! A batch: the runs' rows are locked in key order ([`rows`]), the attempts of the steps that the
//! batch touches are loaded, the events are folded ([`open_run`]), and what changed is written
//! ([`write`]). The cost of an event does not depend on how long its run is.

mod open_run;
mod rows;
mod write;

use std::collections::BTreeMap;

use event_log::read::{StreamEvent, run_events};
use sqlx::PgConnection;

use crate::projection::{ApplyFuture, Effects, Projection, ProjectionError, RunName};
use open_run::OpenRun;

/// Events that are read at once to fill a gap.
const PAGE: i64 = 500;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct RunStatusProjection;

impl RunStatusProjection {
    /// Its name in the configuration, the checkpoints and the metrics.
    pub const NAME: &str = "run_status";
}

impl Projection for RunStatusProjection {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn apply<'a>(
        &'a self,
        transaction: &'a mut PgConnection,
        events: &'a [StreamEvent],
    ) -> ApplyFuture<'a> {
        Box::pin(apply(transaction, events))
    }
}

async fn apply(
    connection: &mut PgConnection,
    events: &[StreamEvent],
) -> Result<Effects, ProjectionError> {
    if events.is_empty() {
        return Ok(Effects::default());
    }
    // By run in key order: the order of the locks. Within a run, the stream's order is runSeq's.
    let mut by_run: BTreeMap<RunName, Vec<&StreamEvent>> = BTreeMap::new();
    for event in events {
        by_run
            .entry(RunName::of(&event.logged.event))
            .or_default()
            .push(event);
    }
    let mut runs = rows::lock_runs(connection, &by_run).await?;
    load_attempts(connection, &mut runs, by_run.values()).await?;
    for (run, events) in runs.iter_mut().zip(by_run.values()) {
        for event in events {
            if event.logged.run_seq > run.next_seq() {
                fill_gap(connection, run, event.logged.run_seq).await?;
            }
            run.apply(&event.logged);
        }
    }
    write::runs(connection, &runs).await?;
    write::attempts(connection, &runs).await?;
    let inconsistencies = write::inconsistencies(connection, &runs).await?;
    Ok(Effects { inconsistencies })
}

/// Loads what the fold needs of the steps that these events touch. `events` has an entry per run.
async fn load_attempts<'a, E>(
    connection: &mut PgConnection,
    runs: &mut [OpenRun],
    events: E,
) -> Result<(), ProjectionError>
where
    E: Iterator<Item = &'a Vec<&'a StreamEvent>>,
{
    let mut wanted = Vec::new();
    for (place, (run, events)) in runs.iter_mut().zip(events).enumerate() {
        let unknown = run.steps_to_load(events.iter().map(|event| &event.logged));
        wanted.extend(unknown.into_iter().map(|step_id| (place, step_id)));
    }
    rows::load_attempts(connection, runs, &wanted).await
}

/// Applies the events before `seen` that this stream does not hold: they came through another one
/// whose worker is behind. The log has them: run_seq is given out in the order of commits.
async fn fill_gap(
    connection: &mut PgConnection,
    run: &mut OpenRun,
    seen: i64,
) -> Result<(), ProjectionError> {
    while run.next_seq() < seen {
        let missing = run.next_seq();
        let page = run_events(connection, run.run_no, missing, seen - 1, PAGE)
            .await
            .map_err(ProjectionError::while_doing("cannot read a run's events"))?;
        let page: Vec<&StreamEvent> = page.iter().collect();
        load_attempts(
            connection,
            std::slice::from_mut(run),
            std::iter::once(&page),
        )
        .await?;
        for event in page {
            run.apply(&event.logged);
        }
        if run.next_seq() == missing {
            return Err(ProjectionError::MissingEvent {
                run: run.name.clone(),
                missing,
                seen,
            });
        }
    }
    Ok(())
}
