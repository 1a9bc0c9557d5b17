//! The projection `run_stats`: `read_model.run_hourly`, `run_daily` and `step_daily`, which count runs and
//! step attempts and keep how long they took. Called by the runner; judges transitions with
//! [`run_events`]' state machines, as the fold does.
//!
//! A batch: the rows that this projection keeps of its runs are locked in key order ([`rows`]), the
//! attempts that the batch touches are loaded, the events are judged and what is to be counted is noted
//! ([`open_run`]), that is summed up by window ([`sums`]), and all is written ([`write`]). An event is
//! counted in the transaction that moves its run's last_event_seq past it, and so once. The rows that
//! runs share come last and in key order: workers of two streams wait for each other only there, and
//! never in a circle.

mod histogram;
mod open_run;
mod rows;
mod sums;
mod write;

use event_log::read::{Payloads, StreamEvent};
use run_events::LoggedEvent;
use sqlx::PgConnection;

use crate::by_run::{self, ByRun, RunModel};
use crate::projection::{ApplyFuture, Effects, Projection, ProjectionError};
use open_run::OpenRun;
use sums::Sums;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct RunStatsProjection;

impl RunStatsProjection {
    /// Its name in the configuration, the checkpoints and the metrics.
    pub const NAME: &str = "run_stats";
}

impl Projection for RunStatsProjection {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn payloads(&self) -> Payloads {
        Payloads::Of(&[])
    }

    fn apply<'a>(
        &'a self,
        transaction: &'a mut PgConnection,
        events: &'a [StreamEvent],
    ) -> ApplyFuture<'a> {
        Box::pin(by_run::apply::<Self>(transaction, events))
    }
}

impl RunModel for RunStatsProjection {
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

    /// The attempts that these events touch.
    async fn load(
        connection: &mut PgConnection,
        runs: &mut [OpenRun],
        events: &[&[&StreamEvent]],
    ) -> Result<(), ProjectionError> {
        let mut wanted = Vec::new();
        for (place, (run, events)) in runs.iter_mut().zip(events).enumerate() {
            let unknown = run.attempts_to_load(events.iter().map(|event| &event.logged));
            wanted.extend(unknown.into_iter().map(|attempt| (place, attempt)));
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
        let sums = Sums::of(runs);
        write::hourly(connection, &sums.hourly).await?;
        write::daily(connection, &sums.daily).await?;
        write::steps(connection, &sums.steps).await?;
        Ok(Effects::default())
    }
}
