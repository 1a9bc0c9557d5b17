//! One batch of one stream: one transaction. Called by the worker that holds the lease.

use std::panic::AssertUnwindSafe;
use std::time::Instant;

use chrono::{DateTime, Utc};
use event_log::Transaction;
use event_log::read::{self, PageSize, StreamEvent, stream_events};
use futures_util::FutureExt as _;
use sqlx::PgConnection;

use super::checkpoint::{self, Position};
use super::worker::Worker;
use super::{Shared, parked, versions};
use crate::projection::{Effects, Projection, ProjectionError};

/// What the events of one batch may weigh in memory, about. Bounds the memory of a process that is far behind.
const MAX_BYTES: usize = 8 << 20;

/// Every statement of a batch finds its rows by key, and a batch is small beside its tables. The
/// planner cannot know that while a table is new or grows faster than its statistics: it then reads
/// whole tables, and a prepared statement keeps doing so.
///
/// The tables are found by the search path, so that the statements are the same for each version.
///
/// The lock is the shared half of [`versions::hold_still`].
const PREPARE: &str = concat!(
    "SELECT pg_try_advisory_xact_lock_shared(",
    versions::key!(),
    "),
            set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
            set_config('enable_mergejoin', 'off', true), set_config('search_path', $1, true)"
);

/// How a batch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BatchEnd {
    /// The checkpoint stands here now.
    At(Position),
    /// The lease is another process's; nothing was written.
    Fenced,
    /// The version is held still; nothing was written.
    Held,
    /// Another worker was first at a new run; nothing was written, and the next try sees the run.
    Met,
}

/// Why a batch failed, and where. Nothing was written, unless the answer to its commit was lost.
#[derive(Debug)]
pub(super) struct BatchError {
    pub(super) cause: ProjectionError,
    /// First and last offset of the events, once they were read.
    pub(super) offsets: Option<(i64, i64)>,
    /// The event, where the batch was a single one.
    pub(super) alone: Option<Box<StreamEvent>>,
}

/// Applies up to `limit` events below the horizon and moves the checkpoint, in one transaction.
pub(super) async fn run(worker: &Worker, limit: usize) -> Result<BatchEnd, BatchError> {
    let started = Instant::now();
    let mut events = Vec::new();
    let applied = apply(worker, limit, &mut events).await;
    let done = applied.map_err(|cause| BatchError::new(cause, &events))?;
    if let Some(Applied { effects, at }) = done.applied {
        measure(&worker.shared, &worker.label, started, &events, effects, at);
    }
    Ok(done.end)
}

struct Done {
    end: BatchEnd,
    /// `None` = nothing was written.
    applied: Option<Applied>,
}

struct Applied {
    effects: Effects,
    /// The database's time at the end.
    at: DateTime<Utc>,
}

/// Where this returns early, the transaction is rolled back.
async fn apply(
    worker: &Worker,
    limit: usize,
    events: &mut Vec<StreamEvent>,
) -> Result<Done, ProjectionError> {
    let Worker {
        shared,
        projection,
        lease,
        schema,
        is_live,
        ..
    } = worker;
    let doing = ProjectionError::while_doing;
    let mut transaction = Transaction::begin(&shared.pool)
        .await
        .map_err(doing("cannot begin a transaction"))?;
    if !prepare(transaction.connection(), schema).await? {
        return roll_back(transaction, BatchEnd::Held).await;
    }
    // The row, not this process's memory, says where to go on: a commit whose answer was lost has
    // moved it, and a failover can have moved it back.
    let locked = checkpoint::lock(transaction.connection(), lease).await;
    let Some((from, has_parked)) = locked.map_err(doing("cannot lock the checkpoint"))? else {
        return roll_back(transaction, BatchEnd::Fenced).await;
    };
    // Read here, not handed in: a database that went back (failover, restore) would have the
    // checkpoint move over offsets whose events are yet to be appended again.
    let stream = lease.key.stream_id;
    let horizon = read::horizon(transaction.connection(), stream).await;
    let mut horizon = horizon
        .map_err(doing("cannot read the stream's horizon"))?
        .unwrap_or(from.next_offset);
    if !is_live {
        let limit = versions::limit(transaction.connection(), &lease.key).await;
        let limit = limit.map_err(doing("cannot read where the live version stands"))?;
        horizon = limit.map_or(horizon, |limit| horizon.min(limit));
    }
    if from.next_offset >= horizon {
        return roll_back(transaction, BatchEnd::At(from)).await;
    }
    let size = PageSize {
        events: i64::try_from(limit).unwrap_or(i64::MAX),
        bytes: MAX_BYTES,
    };
    let connection = transaction.connection();
    let payloads = projection.payloads();
    let read = stream_events(
        connection,
        stream,
        from.next_offset,
        horizon,
        size,
        payloads,
    )
    .await;
    *events = read.map_err(doing("cannot read the stream's events"))?;
    failpoints::hit("project.read");
    let end = Position {
        // Without an event, the offsets up to the horizon hold none.
        next_offset: events
            .last()
            .map_or(horizon, |event| event.source_offset + 1),
        applied: from.applied + events.len() as i64,
    };
    if has_parked {
        let parked = parked::among(connection, lease, events).await;
        let parked = parked.map_err(doing("cannot look for parked runs"))?;
        events.retain(|event| !parked.contains(&event.run_no));
    }
    let effects = match apply_safely(&**projection, connection, events).await {
        Err(ProjectionError::Met) => return roll_back(transaction, BatchEnd::Met).await,
        applied => applied?,
    };
    failpoints::hit("project.applied");
    let lasts = shared.settings.lease;
    let moved = checkpoint::advance(connection, lease, from, end, lasts).await;
    let Some(at) = moved.map_err(doing("cannot move the checkpoint"))? else {
        return roll_back(transaction, BatchEnd::Fenced).await;
    };
    transaction.commit().await.map_err(doing("cannot commit"))?;
    Ok(Done {
        end: BatchEnd::At(end),
        applied: Some(Applied { effects, at }),
    })
}

/// Makes a transaction ready for a projection whose tables are in this schema. `false` = they are held
/// still, and must not be written.
pub(super) async fn prepare(
    connection: &mut PgConnection,
    schema: &str,
) -> Result<bool, ProjectionError> {
    sqlx::query_scalar(PREPARE)
        .bind(schema)
        .fetch_one(connection)
        .await
        .map_err(ProjectionError::while_doing(
            "cannot prepare the transaction",
        ))
}

/// Has the projection apply these events; its panic is an error like others. The transaction is to be
/// given up then: nobody knows what state its connection is in.
pub(super) async fn apply_safely(
    projection: &dyn Projection,
    connection: &mut PgConnection,
    events: &[StreamEvent],
) -> Result<Effects, ProjectionError> {
    let applied = AssertUnwindSafe(projection.apply(connection, events)).catch_unwind();
    applied.await.unwrap_or(Err(ProjectionError::Panicked))
}

async fn roll_back(transaction: Transaction, end: BatchEnd) -> Result<Done, ProjectionError> {
    let done = transaction.rollback().await;
    done.map_err(ProjectionError::while_doing("cannot roll back"))?;
    Ok(Done { end, applied: None })
}

fn measure(
    shared: &Shared,
    projection: &str,
    started: Instant,
    events: &[StreamEvent],
    effects: Effects,
    at: DateTime<Utc>,
) {
    let metrics = &shared.metrics;
    let label = &[projection];
    metrics
        .batch_seconds
        .with_label_values(label)
        .observe(started.elapsed().as_secs_f64());
    metrics
        .events
        .with_label_values(label)
        .inc_by(events.len() as u64);
    metrics.inconsistencies.inc_by(effects.inconsistencies);
    let end_to_end = metrics.end_to_end.with_label_values(label);
    let at = run_events::Micros::from(at);
    for event in events {
        end_to_end.observe(at.micros_since(event.logged.persisted_at) as f64 / 1e6);
    }
}

impl BatchError {
    fn new(cause: ProjectionError, events: &[StreamEvent]) -> Self {
        let offsets = events.first().zip(events.last());
        Self {
            cause,
            offsets: offsets.map(|(first, last)| (first.source_offset, last.source_offset)),
            alone: match events {
                [event] => Some(Box::new(event.clone())),
                _ => None,
            },
        }
    }
}
