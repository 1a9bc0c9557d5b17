//! The checkpoints and their leases: the only SQL on `read_model.projection_checkpoint` and
//! `read_model.projection_worker`. Called by the coordinator, the workers and the batches.
//!
//! A lease is a claim token on the row of one (projection, version, stream). Times are the database's, so
//! the clocks of the processes do not matter.

use std::time::Duration;

use chrono::{DateTime, Utc};
use event_log::read::{StreamHead, retired_events};
use sqlx::postgres::types::PgInterval;
use sqlx::{FromRow, PgConnection, PgPool};
use uuid::Uuid;

use super::versions::Version;

/// Which checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CheckpointKey {
    /// The projection's name.
    pub projection: String,
    /// The projection's version.
    pub version: i32,
    /// The stream's number in the log.
    pub stream_id: i64,
}

/// A lease: the right to move one checkpoint, until another process has taken it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Which checkpoint.
    pub key: CheckpointKey,
    /// The token; another one in the row makes this lease worthless.
    pub claim: Uuid,
}

/// How far a projection has read a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromRow)]
pub struct Position {
    /// The offset to read next.
    pub next_offset: i64,
    /// Events read so far, and those that were retired before the version was there.
    pub applied: i64,
}

/// One checkpoint as it stood when it was read.
#[derive(Debug, Clone, FromRow)]
pub struct Standing {
    /// The projection's name.
    pub projection: String,
    /// The projection's version.
    pub version: i32,
    /// The stream's number in the log.
    pub stream_id: i64,
    /// The stream's topic.
    pub topic: String,
    /// The stream's partition.
    pub partition: i32,
    /// The stream's generation.
    pub generation: i32,
    /// How far it has come.
    #[sqlx(flatten)]
    pub position: Position,
    /// The token of the lease, if any.
    pub claim: Option<Uuid>,
    /// Whether a closed generation was read to its end.
    pub finished: bool,
    /// Whether anybody may take the lease.
    pub free: bool,
    /// The database's time.
    pub read_at: DateTime<Utc>,
}

impl Standing {
    /// Which checkpoint.
    pub fn key(&self) -> CheckpointKey {
        CheckpointKey {
            projection: self.projection.clone(),
            version: self.version,
            stream_id: self.stream_id,
        }
    }
}

/// The checkpoints of these projections.
pub(super) async fn standings(
    connection: &mut PgConnection,
    projections: &[String],
) -> Result<Vec<Standing>, sqlx::Error> {
    sqlx::query_as(include_str!("sql/standing.sql"))
        .bind(projections)
        .fetch_all(connection)
        .await
}

/// Makes the checkpoint of a stream, at its start and without a lease, unless it is there. What was retired of
/// the stream counts as read: no run that the version has not read is retired once the version is there.
pub(super) async fn create(
    connection: &mut PgConnection,
    version: &Version,
    head: &StreamHead,
) -> Result<(), sqlx::Error> {
    let retired = retired_events(connection, head.stream_id).await?;
    sqlx::query(
        "INSERT INTO read_model.projection_checkpoint
           (projection, version, stream_id, topic, partition, generation, next_offset, applied)
         SELECT projection, version, $3, $4, $5, $6, $7, $8 FROM read_model.projection_version
         WHERE projection = $1 AND version = $2
         ON CONFLICT DO NOTHING",
    )
    .bind(&version.projection)
    .bind(version.version)
    .bind(head.stream_id)
    .bind(&head.topic)
    .bind(head.partition)
    .bind(head.generation)
    .bind(head.start_offset)
    .bind(retired)
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes those of the wanted leases that are free.
pub(super) async fn take(
    connection: &mut PgConnection,
    wanted: &[CheckpointKey],
    owner: &str,
    lease: Duration,
) -> Result<Vec<Lease>, sqlx::Error> {
    let projections: Vec<&str> = wanted.iter().map(|key| key.projection.as_str()).collect();
    let versions: Vec<i32> = wanted.iter().map(|key| key.version).collect();
    let streams: Vec<i64> = wanted.iter().map(|key| key.stream_id).collect();
    let taken: Vec<(String, i32, i64, Uuid)> = sqlx::query_as(include_str!("sql/take_leases.sql"))
        .bind(projections)
        .bind(versions)
        .bind(streams)
        .bind(owner)
        .bind(interval(lease))
        .fetch_all(connection)
        .await?;
    Ok(taken
        .into_iter()
        .map(|(projection, version, stream_id, claim)| Lease {
            key: CheckpointKey {
                projection,
                version,
                stream_id,
            },
            claim,
        })
        .collect())
}

/// Renews the leases with these tokens.
pub(super) async fn renew(
    connection: &mut PgConnection,
    claims: &[Uuid],
    lease: Duration,
) -> Result<(), sqlx::Error> {
    sqlx::query(include_str!("sql/renew_leases.sql"))
        .bind(claims)
        .bind(interval(lease))
        .execute(connection)
        .await?;
    Ok(())
}

/// Gives the leases with these tokens up.
pub(super) async fn release(pool: &PgPool, claims: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query(include_str!("sql/release_leases.sql"))
        .bind(claims)
        .execute(pool)
        .await?;
    Ok(())
}

/// Locks the checkpoint until the transaction ends and says where
/// it stands, and whether the version has parked any run. `None` = the lease is another's now, or the version is
/// retired.
pub(super) async fn lock(
    transaction: &mut PgConnection,
    lease: &Lease,
) -> Result<Option<(Position, bool)>, sqlx::Error> {
    let row: Option<(i64, i64, bool)> = sqlx::query_as(
        "SELECT c.next_offset, c.applied,
                EXISTS (SELECT FROM read_model.parked_run p
                        WHERE p.projection = c.projection AND p.version = c.version)
         FROM read_model.projection_checkpoint c
         WHERE c.projection = $1 AND c.version = $2 AND c.stream_id = $3 AND c.claim = $4
           AND c.finished_at IS NULL
           AND NOT EXISTS (SELECT FROM read_model.projection_version v
                           WHERE v.projection = c.projection AND v.version = c.version AND v.state = 'retired')
         FOR UPDATE OF c",
    )
    .bind(&lease.key.projection)
    .bind(lease.key.version)
    .bind(lease.key.stream_id)
    .bind(lease.claim)
    .fetch_optional(transaction)
    .await?;
    let position = |(next_offset, applied, has_parked)| {
        let position = Position {
            next_offset,
            applied,
        };
        (position, has_parked)
    };
    Ok(row.map(position))
}

/// The last statement of a batch: moves the checkpoint and renews the lease. Returns the database's
/// time; `None` = the lease is another's now, and the transaction must be rolled back.
pub(super) async fn advance(
    transaction: &mut PgConnection,
    lease: &Lease,
    from: Position,
    to: Position,
    duration: Duration,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar(
        "UPDATE read_model.projection_checkpoint
         SET next_offset = $6, applied = $7, updated_at = clock_timestamp(),
             lease_expires_at = clock_timestamp() + $8
         WHERE projection = $1 AND version = $2 AND stream_id = $3 AND claim = $4 AND next_offset = $5
         RETURNING updated_at",
    )
    .bind(&lease.key.projection)
    .bind(lease.key.version)
    .bind(lease.key.stream_id)
    .bind(lease.claim)
    .bind(from.next_offset)
    .bind(to.next_offset)
    .bind(to.applied)
    .bind(interval(duration))
    .fetch_optional(transaction)
    .await
}

/// Marks a closed generation that was read to `next_offset`, its end, and gives the lease up.
/// Does nothing where the lease is another's now.
pub(super) async fn finish(
    pool: &PgPool,
    lease: &Lease,
    next_offset: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE read_model.projection_checkpoint
         SET finished_at = clock_timestamp(), updated_at = clock_timestamp(),
             claim = NULL, owner = NULL, lease_expires_at = NULL
         WHERE projection = $1 AND version = $2 AND stream_id = $3 AND claim = $4 AND next_offset = $5",
    )
    .bind(&lease.key.projection)
    .bind(lease.key.version)
    .bind(lease.key.stream_id)
    .bind(lease.claim)
    .bind(next_offset)
    .execute(pool)
    .await?;
    Ok(())
}

/// This process, as others see it when they share the work.
#[derive(Debug, Clone)]
pub(super) struct WorkerIdentity {
    pub(super) worker_id: Uuid,
    pub(super) owner: String,
    pub(super) projections: Vec<String>,
}

/// Says that this process is alive, for as long as a lease lasts, and clears away those that have
/// not said so for ten times as long.
pub(super) async fn heartbeat(
    connection: &mut PgConnection,
    me: &WorkerIdentity,
    lease: Duration,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "WITH gone AS (
           DELETE FROM read_model.projection_worker
           WHERE worker_id <> $1 AND expires_at < clock_timestamp() - 10 * $4
         )
         INSERT INTO read_model.projection_worker (worker_id, owner, projections, expires_at)
         VALUES ($1, $2, $3, clock_timestamp() + $4)
         ON CONFLICT (worker_id) DO UPDATE SET expires_at = excluded.expires_at",
    )
    .bind(me.worker_id)
    .bind(&me.owner)
    .bind(&me.projections)
    .bind(interval(lease))
    .execute(connection)
    .await?;
    Ok(())
}

/// The processes that are alive, by id, and the projections that each runs.
pub(super) async fn workers(
    connection: &mut PgConnection,
) -> Result<Vec<(Uuid, Vec<String>)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT worker_id, projections FROM read_model.projection_worker
         WHERE expires_at > clock_timestamp()
         ORDER BY worker_id",
    )
    .fetch_all(connection)
    .await
}

/// This process goes: others need not wait for its share.
pub(super) async fn leave(pool: &PgPool, worker_id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM read_model.projection_worker WHERE worker_id = $1")
        .bind(worker_id)
        .execute(pool)
        .await?;
    Ok(())
}

fn interval(duration: Duration) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX),
    }
}
