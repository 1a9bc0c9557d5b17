//! The projection `run_status`: `read_model.run_current`, `step_attempt`, `run_inconsistency` and
//! `run_snapshot`.
//! Called by the runner; folds with [`run_events::RunState`], so that what it shows is what a replay
//! of the log shows.
//!
//! A batch: the runs' rows are locked in key order ([`rows`]), the attempts of the steps that the
//! batch touches are loaded, the events are folded ([`open_run`]), and what changed is written
//! ([`write`]). A run of which a snapshot may be due ([`points`]) is loaded whole, and its snapshots are
//! stored ([`snapshots`]). The cost of an event does not depend on how long its run is: snapshots are
//! the further apart the more attempts they hold.

mod open_run;
mod points;
mod rows;
mod snapshots;
mod write;

use event_log::read::{Payloads, StreamEvent};
use run_events::LoggedEvent;
use sqlx::PgConnection;

use crate::by_run::{self, ByRun, RunModel};
use crate::projection::{ApplyFuture, Effects, Projection, ProjectionError};
use open_run::OpenRun;

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

    /// For the error in it.
    fn payloads(&self) -> Payloads {
        Payloads::Of(&["RunFailed", "StepFailed"])
    }

    fn apply<'a>(
        &'a self,
        transaction: &'a mut PgConnection,
        events: &'a [StreamEvent],
    ) -> ApplyFuture<'a> {
        Box::pin(by_run::apply::<Self>(transaction, events))
    }
}

impl RunModel for RunStatusProjection {
    type Run = OpenRun;

    async fn lock(
        connection: &mut PgConnection,
        by_run: &ByRun<'_>,
    ) -> Result<Vec<OpenRun>, ProjectionError> {
        rows::lock_runs(connection, by_run).await
    }

    fn next_seq(run: &OpenRun) -> i64 {
        run.next_seq()
    }

    /// The attempts of the steps that these events touch; all of a run of which a snapshot may be due.
    async fn load(
        connection: &mut PgConnection,
        runs: &mut [OpenRun],
        events: &[&[&StreamEvent]],
    ) -> Result<(), ProjectionError> {
        let lacks_attempts = |(run, events): (&OpenRun, &&[&StreamEvent])| {
            run.lacks_attempts(events.iter().map(|event| &event.logged))
        };
        let lacking = runs.iter().zip(events).map(lacks_attempts);
        let places: Vec<usize> = lacking
            .enumerate()
            .filter_map(|(place, lacks)| lacks.then_some(place))
            .collect();
        rows::load_all_attempts(connection, runs, &places).await?;
        let mut wanted = Vec::new();
        for (place, (run, events)) in runs.iter_mut().zip(events).enumerate() {
            let unknown = run.steps_to_load(events.iter().map(|event| &event.logged));
            wanted.extend(unknown.into_iter().map(|step_id| (place, step_id)));
        }
        rows::load_attempts(connection, runs, &wanted).await
    }

    fn apply(run: &mut OpenRun, logged: &LoggedEvent) {
        run.apply(logged);
    }

    async fn write(
        connection: &mut PgConnection,
        runs: &[OpenRun],
    ) -> Result<Effects, ProjectionError> {
        write::runs(connection, runs).await?;
        write::attempts(connection, runs).await?;
        let inconsistencies = write::inconsistencies(connection, runs).await?;
        snapshots::store(connection, runs).await?;
        Ok(Effects { inconsistencies })
    }
}
