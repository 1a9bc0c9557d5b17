//! A lease at work: batch after batch up to the horizon, then waiting for the horizon to move.
//! Started and stopped by the coordinator.

use std::sync::Arc;
use std::time::Duration;

use event_log::read::{StreamEvent, StreamHead};
use service::backoff::Backoff;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::batch::{self, BatchEnd, BatchError};
use super::checkpoint::{self, Lease, Position};
use super::fault::{self, Verdict};
use super::parked;
use crate::projection::{Projection, ProjectionError, RunName};

/// How often an event is tried that cannot be applied, before its run is parked.
const REFUSALS: u32 = 3;

/// The heads of all streams, as the coordinator read them last.
pub(super) type Heads = Arc<Vec<StreamHead>>;

/// Why a worker ended.
#[derive(Debug)]
pub(super) enum WorkerEnd {
    /// It was told to; the lease is released.
    Stopped,
    /// The generation is closed and read to its end.
    Finished,
    /// The lease is another process's.
    Fenced,
    /// Nothing of this process can work.
    Failed(ProjectionError),
}

/// One worker.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) projection: Arc<dyn Projection>,
    /// What the metrics call its version.
    pub(super) label: String,
    /// Where the version's tables are.
    pub(super) schema: String,
    /// Whether the public views show it: it follows no other version.
    pub(super) is_live: bool,
    pub(super) lease: Lease,
    pub(super) heads: watch::Receiver<Heads>,
    pub(super) stop: CancellationToken,
}

/// What a worker remembers between batches.
struct Progress {
    /// Where the checkpoint stands; `None` before the first batch has looked.
    position: Option<Position>,
    /// Events in the next batch: halved by a failure, so that a batch that is too much for the
    /// database gets smaller and an event that cannot be applied ends up alone.
    limit: usize,
    backoff: Backoff,
    /// How often one event alone could not be applied.
    refused: u32,
    /// What the ledger check found last: applied less appended.
    ledger_difference: i64,
}

impl Worker {
    /// Works until told to stop, fenced or finished.
    pub(super) async fn run(mut self) -> (Lease, WorkerEnd) {
        let end = self.work().await;
        self.shared.readiness.unblock(&self.lease.key);
        if matches!(end, WorkerEnd::Stopped) {
            let released = checkpoint::release(&self.shared.pool, &[self.lease.claim]).await;
            if let Err(error) = released {
                tracing::info!(%error, projection = self.label, stream = self.lease.key.stream_id,
                    "a lease could not be released; it runs out by itself");
            }
        }
        (self.lease, end)
    }

    async fn work(&mut self) -> WorkerEnd {
        let mut progress = Progress {
            position: None,
            limit: self.shared.settings.batch_events,
            backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(5)),
            refused: 0,
            ledger_difference: 0,
        };
        loop {
            if let Some(end) = self.catch_up(&mut progress).await {
                return end;
            }
            tokio::select! {
                () = self.stop.cancelled() => return WorkerEnd::Stopped,
                changed = self.heads.changed() => if changed.is_err() { return WorkerEnd::Stopped },
            }
        }
    }

    /// Up to the horizon that is known now.
    async fn catch_up(&mut self, progress: &mut Progress) -> Option<WorkerEnd> {
        let head = self.head()?;
        // The database went back (failover, restore): its checkpoint says where to go on.
        progress.position = progress
            .position
            .filter(|at| at.next_offset <= head.next_offset);
        while progress
            .position
            .is_none_or(|at| at.next_offset < head.next_offset)
        {
            if self.stop.is_cancelled() {
                return Some(WorkerEnd::Stopped);
            }
            match self.batch(progress.limit).await {
                // The head is behind what was read of it, or the live version is: the next look at the
                // heads is soon enough.
                Ok(BatchEnd::At(position)) if progress.position == Some(position) => return None,
                Ok(BatchEnd::Held) => return None,
                Ok(BatchEnd::Met) => {}
                Ok(BatchEnd::At(position)) => self.succeeded(progress, position),
                Ok(BatchEnd::Fenced) => return Some(self.fenced(&head)),
                Err(error) => {
                    if let Some(end) = self.failed(progress, &head, error).await {
                        return Some(end);
                    }
                }
            }
        }
        let at = progress.position?;
        if at.next_offset == head.next_offset {
            self.check_ledger(progress, &head, at);
        }
        if head.closed_at.is_some() {
            self.finish(progress, &head).await
        } else {
            None
        }
    }

    fn head(&mut self) -> Option<StreamHead> {
        let heads = self.heads.borrow_and_update();
        let mine = |head: &&StreamHead| head.stream_id == self.lease.key.stream_id;
        heads.iter().find(mine).cloned()
    }

    async fn batch(&self, limit: usize) -> Result<BatchEnd, BatchError> {
        // The semaphore is never closed; without a permit the pool itself would be the bound.
        let _permit = self.shared.batch_permits.acquire().await.ok();
        batch::run(self, limit).await
    }

    fn succeeded(&self, progress: &mut Progress, position: Position) {
        progress.position = Some(position);
        progress.limit = (progress.limit * 2).min(self.shared.settings.batch_events);
        progress.backoff.reset();
        progress.refused = 0;
        self.shared.readiness.unblock(&self.lease.key);
    }

    fn fenced(&self, head: &StreamHead) -> WorkerEnd {
        tracing::info!(
            projection = self.label.as_str(),
            topic = head.topic,
            partition = head.partition,
            "this lease is another process's now, which goes on from the checkpoint; or the version is retired"
        );
        WorkerEnd::Fenced
    }

    /// Says what is wrong, and waits. Returns where waiting cannot help, or must not go on.
    async fn failed(
        &self,
        progress: &mut Progress,
        head: &StreamHead,
        error: BatchError,
    ) -> Option<WorkerEnd> {
        let verdict = fault::of_projection(&error.cause);
        let projection = self.label.as_str();
        self.shared
            .metrics
            .batch_failures
            .with_label_values(&[projection])
            .inc();
        if verdict == Verdict::Stop {
            return Some(WorkerEnd::Failed(error.cause));
        }
        progress.limit = (progress.limit / 2).max(1);
        let delay = progress.backoff.next_delay();
        let reason = self.reason(head, &error);
        if let (Verdict::Blocked, Some(event)) = (verdict, &error.alone) {
            progress.refused += 1;
            if progress.refused >= REFUSALS && self.park(event, &error.cause, &reason).await {
                progress.refused = 0;
                return None;
            }
        }
        match verdict {
            Verdict::Retry => tracing::warn!(?delay, "{reason}; trying again"),
            _ => tracing::error!(?delay, "{reason}; the stream waits here and tries again"),
        }
        self.shared.readiness.block(&self.lease.key, reason);
        tokio::select! {
            () = self.stop.cancelled() => Some(WorkerEnd::Stopped),
            () = sleep(delay) => None,
        }
    }

    /// Sets the event's run aside, so that the others go on; false = that was not possible now.
    async fn park(&self, event: &StreamEvent, cause: &ProjectionError, reason: &str) -> bool {
        let error = fault::chain(cause);
        match parked::park(&self.shared, &self.lease, event, &error).await {
            Ok(()) => {
                let run = RunName::of(&event.logged.event);
                tracing::error!(
                    "{reason}; {run} is parked, the others go on: `runlog runs parked` shows it, \
                     `runlog runs release` has it tried again"
                );
                true
            }
            Err(error) => {
                tracing::warn!(%error, "a run that cannot be applied cannot be parked either");
                false
            }
        }
    }

    fn reason(&self, head: &StreamHead, error: &BatchError) -> String {
        let StreamHead {
            topic,
            partition,
            generation,
            ..
        } = head;
        let offsets = match error.offsets {
            Some((first, last)) if first == last => format!(", offset {first}"),
            Some((first, last)) => format!(", offsets {first} to {last}"),
            None => String::new(),
        };
        let alone = error.alone.as_ref();
        let run = alone
            .map(|event| format!(", {}", RunName::of(&event.logged.event)))
            .unwrap_or_default();
        let projection = self.label.as_str();
        let cause = fault::chain(&error.cause);
        format!(
            "{projection} stands at {topic}/{partition} generation {generation}{offsets}{run}: {cause}"
        )
    }

    /// At the head, the events read are as many as the ledger says were appended.
    fn check_ledger(&self, progress: &mut Progress, head: &StreamHead, at: Position) {
        let difference = at.applied - head.appended;
        if difference != 0 {
            let projection = self.label.as_str();
            self.shared
                .metrics
                .ledger_mismatches
                .with_label_values(&[projection])
                .inc();
            if difference != progress.ledger_difference {
                tracing::error!(
                    projection,
                    topic = head.topic,
                    partition = head.partition,
                    generation = head.generation,
                    applied = at.applied,
                    appended = head.appended,
                    "at the head of this stream the read model has read another number of events than the \
                     log appended; run `runlog verify`, and rebuild the projection where it disagrees"
                );
            }
        }
        progress.ledger_difference = difference;
    }

    async fn finish(&self, progress: &mut Progress, head: &StreamHead) -> Option<WorkerEnd> {
        match checkpoint::finish(&self.shared.pool, &self.lease, head.next_offset).await {
            Ok(()) => Some(WorkerEnd::Finished),
            Err(cause) => {
                let doing = "cannot mark the generation as finished";
                let cause = ProjectionError::Database { doing, cause };
                let error = BatchError {
                    cause,
                    offsets: None,
                    alone: None,
                };
                self.failed(progress, head, error).await
            }
        }
    }
}
