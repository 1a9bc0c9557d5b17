//! The projection `run_timeline`: `read_model.run_state_interval`. Called by the runner; its states are
//! those of [`run_events::RunStatus`], so that its intervals are what `run_current` sums up.
//!
//! A batch: the runs' rows are locked in key order ([`rows`]), the events are folded ([`timeline`]), and
//! what changed is written ([`write`]). A run's row holds the interval that the run is in, which is all
//! that an event can change: its cost does not depend on how long its run is.

mod rows;
mod timeline;
mod write;

use event_log::read::{Payloads, StreamEvent};
use run_events::LoggedEvent;
use sqlx::PgConnection;

use crate::by_run::{self, ByRun, RunModel};
use crate::projection::{ApplyFuture, Effects, Projection, ProjectionError, RunName};
use timeline::Timeline;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub struct RunTimelineProjection;

impl RunTimelineProjection {
    /// Its name in the configuration, the checkpoints and the metrics.
    pub const NAME: &str = "run_timeline";
}

impl Projection for RunTimelineProjection {
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

/// One run of a batch. Its row is locked.
#[derive(Debug)]
pub struct OpenRun {
    name: RunName,
    /// `None` before the run's first event was applied.
    timeline: Option<Timeline>,
}

impl RunModel for RunTimelineProjection {
    type Run = OpenRun;

    async fn lock(
        connection: &mut PgConnection,
        by_run: &ByRun<'_>,
    ) -> Result<Vec<OpenRun>, ProjectionError> {
        rows::lock_runs(connection, by_run).await
    }

    fn next_seq(run: &OpenRun) -> i64 {
        let timeline = run.timeline.as_ref();
        timeline.map_or(1, |timeline| timeline.last_event_seq + 1)
    }

    fn apply(run: &mut OpenRun, logged: &LoggedEvent) {
        if logged.run_seq != Self::next_seq(run) {
            return;
        }
        let timeline = &mut run.timeline;
        timeline
            .get_or_insert_with(|| Timeline::before(logged))
            .apply(logged);
    }

    async fn write(
        connection: &mut PgConnection,
        runs: &[OpenRun],
    ) -> Result<Effects, ProjectionError> {
        write::runs(connection, runs).await?;
        write::intervals(connection, runs).await?;
        Ok(Effects::default())
    }
}
