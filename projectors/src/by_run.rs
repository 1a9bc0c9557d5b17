//! A batch, run by run: what every projection does that keeps a row per run with the runSeq it has come
//! to. Called by the projections in their [`Projection::apply`](crate::projection::Projection::apply);
//! calls them back through [`RunModel`].
//!
//! A run's events may come through two streams, whose workers are at different places: whoever is first
//! reads what is missing from the log, and the other one finds it applied. So each event is applied once,
//! in runSeq order, and redelivery changes nothing.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;

use event_log::read::{StreamEvent, run_events};
use run_events::LoggedEvent;
use sqlx::PgConnection;

use crate::projection::{Effects, ProjectionError, RunName};

/// Events that are read at once to fill a gap.
const PAGE: i64 = 500;

/// The events of a batch, by run in key order, which is the order of the locks. Within a run they are
/// in the stream's order, which is runSeq's.
pub type ByRun<'e> = BTreeMap<RunName, Vec<&'e StreamEvent>>;

/// A read model that is made of its runs' events, run by run.
pub trait RunModel {
    /// A run while a batch is folded into it. No I/O, and nothing of other runs.
    type Run: Send + Sync;

    /// Locks the rows of these runs until the transaction ends, and reads what the fold needs of them. The
    /// answer has the order of `by_run`. To be done in that order: workers that meet at the same runs then
    /// wait for each other once, and never in a circle. A run without a row gets one here, or else in
    /// `write`, with [`ProjectionError::Met`] where another worker was first.
    fn lock(
        connection: &mut PgConnection,
        by_run: &ByRun<'_>,
    ) -> impl Future<Output = Result<Vec<Self::Run>, ProjectionError>> + Send;

    /// The runSeq that the run takes next.
    fn next_seq(run: &Self::Run) -> i64;

    /// Reads what the fold needs beside the runs' rows for these events; `events` has an entry per run.
    /// Needs to read nothing twice: the runs remember it. Called again for the events behind a gap
    /// once it is filled.
    fn load(
        connection: &mut PgConnection,
        runs: &mut [Self::Run],
        events: &[&[&StreamEvent]],
    ) -> impl Future<Output = Result<(), ProjectionError>> + Send {
        let _ = (connection, runs, events);
        async { Ok(()) }
    }

    /// Applies the event of [`RunModel::next_seq`]; one below that was applied before, and changes
    /// nothing.
    fn apply(run: &mut Self::Run, logged: &LoggedEvent);

    /// Writes what has changed: first the rows of the runs, then what only their locks protect.
    fn write(
        connection: &mut PgConnection,
        runs: &[Self::Run],
    ) -> impl Future<Output = Result<Effects, ProjectionError>> + Send;
}

/// Applies a batch.
///
/// # Errors
/// The model's, or [`ProjectionError::MissingEvent`] where the log has a hole.
pub async fn apply<M: RunModel>(
    connection: &mut PgConnection,
    events: &[StreamEvent],
) -> Result<Effects, ProjectionError> {
    if events.is_empty() {
        return Ok(Effects::default());
    }
    let by_run = by_run(events);
    let mut runs = M::lock(connection, &by_run).await?;
    let of_runs: Vec<&[&StreamEvent]> = by_run.values().map(Vec::as_slice).collect();
    M::load(connection, &mut runs, &of_runs).await?;
    for (run, (name, events)) in runs.iter_mut().zip(&by_run) {
        for (place, event) in events.iter().enumerate() {
            if event.logged.run_seq > M::next_seq(run) {
                fill_gap::<M>(connection, name, run, event).await?;
                // What was missing may decide what the fold needs for the rest.
                M::load(connection, std::slice::from_mut(run), &[&events[place..]]).await?;
            }
            M::apply(run, &event.logged);
        }
    }
    M::write(connection, &runs).await
}

fn by_run(events: &[StreamEvent]) -> ByRun<'_> {
    // By number first: a name is made and compared once for each run, not for each event.
    let mut by_number: HashMap<i64, Vec<&StreamEvent>> = HashMap::new();
    for event in events {
        by_number.entry(event.run_no).or_default().push(event);
    }
    by_number
        .into_values()
        .map(|events| (RunName::of(&events[0].logged.event), events))
        .collect()
}

/// Applies the events before `seen` that this stream does not hold: they came through another one
/// whose worker is behind. The log has them: run_seq is given out in the order of commits.
async fn fill_gap<M: RunModel>(
    connection: &mut PgConnection,
    name: &RunName,
    run: &mut M::Run,
    seen: &StreamEvent,
) -> Result<(), ProjectionError> {
    let (run_no, seen) = (seen.run_no, seen.logged.run_seq);
    while M::next_seq(run) < seen {
        let missing = M::next_seq(run);
        let page = run_events(connection, run_no, missing, seen - 1, PAGE)
            .await
            .map_err(ProjectionError::while_doing("cannot read a run's events"))?;
        let page: Vec<&StreamEvent> = page.iter().collect();
        M::load(connection, std::slice::from_mut(run), &[&page]).await?;
        for event in page {
            M::apply(run, &event.logged);
        }
        if M::next_seq(run) == missing {
            return Err(ProjectionError::MissingEvent {
                run: name.clone(),
                missing,
                seen,
            });
        }
    }
    Ok(())
}
