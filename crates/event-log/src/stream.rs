//! Claims: who may append to a partition, and from which offset.

use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row as _};
use uuid::Uuid;

/// A claim on one partition, as it was when it was made.
#[derive(Debug, Clone)]
pub struct Claim {
    /// The stream row: one topic, partition and generation.
    pub stream_id: i64,
    /// The Kafka topic.
    pub topic: String,
    /// The Kafka partition.
    pub partition: i32,
    /// The generation that is open.
    pub generation: i32,
    /// The token: whoever claims next makes it worthless.
    pub token: Uuid,
    /// The offset to read next.
    pub next_offset: i64,
    /// Why the partition waits for an operator, if it does.
    pub halted: Option<Halt>,
    /// The topic's own id in Kafka, as far as it was known when records were read.
    pub topic_id: Option<Uuid>,
    /// The last record that this generation has read, if it has read any.
    pub last_record: Option<LastRecord>,
}

/// What the log knows of the last record that it read of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRecord {
    /// Its offset.
    pub offset: i64,
    /// Its [`crate::record_digest`].
    pub digest: [u8; 32],
}

/// Why a partition waits for an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Halt {
    /// In one word, e.g. `expired`; [`Halt::STORED`] for one of a version that stored none.
    pub code: String,
    /// For people.
    pub reason: String,
}

impl Halt {
    /// The code of a halt that was stored without one.
    pub const STORED: &str = "stored";

    /// From the columns of the stream row; `None` = it does not wait. The reason decides, since
    /// older versions store nothing else.
    pub(crate) fn from_row(code: Option<String>, reason: Option<String>) -> Option<Self> {
        let code = code.unwrap_or_else(|| Self::STORED.to_owned());
        reason.map(|reason| Self { code, reason })
    }
}

/// Why a claim failed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The partition's offsets belong to another consumer group.
    #[error(
        "{topic}/{partition} is read by the consumer group {stored:?} on this database, and this process is in \
         {mine:?}: set ingest.group_id to {stored:?}, or use another database"
    )]
    OtherGroup {
        /// The Kafka topic.
        topic: String,
        /// The Kafka partition.
        partition: i32,
        /// The group in the stream row.
        stored: String,
        /// The group of the caller.
        mine: String,
    },
    /// The database's error; see [`crate::classify`].
    #[error("cannot claim the partition")]
    Database(#[from] sqlx::Error),
}

/// Who claims: the consumer group, and a name for people (host and process).
#[derive(Debug, Clone)]
pub struct Claimant {
    /// The Kafka consumer group.
    pub group_id: String,
    /// Shown as `event_log.streams.owner`.
    pub owner: String,
}

/// Claims a partition with a fresh token. `None` where the log has never read it: then
/// [`open`] it at the offset where its reading should start, and claim again.
///
/// Waits for the row while an earlier owner's batch is being committed, 3 s at most.
///
/// # Errors
/// [`ClaimError::OtherGroup`], or the database's.
pub async fn claim(
    pool: &PgPool,
    who: &Claimant,
    topic: &str,
    partition: i32,
) -> Result<Option<Claim>, ClaimError> {
    let token = Uuid::new_v4();
    let row = sqlx::query(include_str!("sql/claim.sql"))
        .bind(topic)
        .bind(partition)
        .bind(&who.group_id)
        .bind(token)
        .bind(&who.owner)
        .fetch_optional(pool)
        .await?;
    if let Some(row) = row {
        let halted = Halt::from_row(row.try_get("halted_code")?, row.try_get("halted_reason")?);
        return Ok(Some(Claim {
            stream_id: row.try_get("stream_id")?,
            topic: topic.to_owned(),
            partition,
            generation: row.try_get("generation")?,
            token,
            next_offset: row.try_get("next_offset")?,
            halted,
            topic_id: row.try_get("topic_id")?,
            last_record: last_record(&row)?,
        }));
    }
    match stored_group(pool, topic, partition).await? {
        Some(stored) if stored != who.group_id => Err(ClaimError::OtherGroup {
            topic: topic.to_owned(),
            partition,
            stored,
            mine: who.group_id.clone(),
        }),
        _ => Ok(None),
    }
}

fn last_record(row: &PgRow) -> Result<Option<LastRecord>, sqlx::Error> {
    let offset: Option<i64> = row.try_get("last_record_offset")?;
    let digest: Option<Vec<u8>> = row.try_get("last_record_digest")?;
    // Both columns are written together, and a CHECK holds the digest's length.
    let digest = digest.and_then(|bytes| bytes.try_into().ok());
    Ok(offset
        .zip(digest)
        .map(|(offset, digest)| LastRecord { offset, digest }))
}

async fn stored_group(
    pool: &PgPool,
    topic: &str,
    partition: i32,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT group_id FROM event_log.stream WHERE topic = $1 AND partition = $2 AND closed_at IS NULL",
    )
    .bind(topic)
    .bind(partition)
    .fetch_optional(pool)
    .await
}

/// Makes the stream row of a partition that was never read, to start at `start_offset`. Does
/// nothing where a row exists already.
///
/// # Errors
/// The database's.
pub async fn open(
    pool: &PgPool,
    who: &Claimant,
    topic: &str,
    partition: i32,
    start_offset: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO event_log.stream (topic, partition, group_id, start_offset, next_offset)
         VALUES ($1, $2, $3, $4, $4)
         ON CONFLICT DO NOTHING",
    )
    .bind(topic)
    .bind(partition)
    .bind(&who.group_id)
    .bind(start_offset)
    .execute(pool)
    .await?;
    Ok(())
}

/// Marks a claimed partition as waiting for an operator: `code` says why in one word (at most 64
/// bytes), `reason` for people. Does nothing where the claim is no longer the newest one; returns
/// whether it was. A partition that is halted again keeps the time since when.
///
/// # Errors
/// The database's.
pub async fn halt(
    pool: &PgPool,
    claim: &Claim,
    code: &str,
    reason: &str,
) -> Result<bool, sqlx::Error> {
    let updated = sqlx::query(
        "UPDATE event_log.stream
         SET halted_code = $3, halted_reason = $4, halted_at = coalesce(halted_at, clock_timestamp()),
             updated_at = clock_timestamp()
         WHERE stream_id = $1 AND claim = $2 AND closed_at IS NULL",
    )
    .bind(claim.stream_id)
    .bind(claim.token)
    .bind(code)
    .bind(reason)
    .execute(pool)
    .await?;
    Ok(updated.rows_affected() == 1)
}

/// Stores the topic's own id in Kafka where none is stored yet. Does nothing where the claim is no
/// longer the newest one.
///
/// # Errors
/// The database's.
pub async fn note_topic_id(
    pool: &PgPool,
    claim: &Claim,
    topic_id: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE event_log.stream SET topic_id = $3
         WHERE stream_id = $1 AND claim = $2 AND closed_at IS NULL AND topic_id IS NULL",
    )
    .bind(claim.stream_id)
    .bind(claim.token)
    .bind(topic_id)
    .execute(pool)
    .await?;
    Ok(())
}

/// Of these partitions, by their place in the list, those that the log has never read: no process has
/// claimed them yet. Takes no lock.
///
/// # Errors
/// The database's.
pub async fn never_opened<'p>(
    pool: &PgPool,
    partitions: impl Iterator<Item = (&'p str, i32)>,
) -> Result<Vec<usize>, sqlx::Error> {
    let (topics, partitions): (Vec<&str>, Vec<i32>) = partitions.unzip();
    let places: Vec<i64> = sqlx::query_scalar(
        "SELECT asked.place - 1 FROM unnest($1::text[], $2::int[]) WITH ORDINALITY AS asked (topic, partition, place)
         WHERE NOT EXISTS (SELECT FROM event_log.stream s
                           WHERE s.topic = asked.topic AND s.partition = asked.partition AND s.closed_at IS NULL)
         ORDER BY asked.place",
    )
    .bind(topics)
    .bind(partitions)
    .fetch_all(pool)
    .await?;
    Ok(places
        .into_iter()
        .filter_map(|place| usize::try_from(place).ok())
        .collect())
}

/// Of these halted streams, those that wait no longer: an operator has cleared the halt, or has
/// closed the generation to open the next one, or the database went back to before there was one.
/// Takes no lock.
///
/// # Errors
/// The database's.
pub async fn no_longer_halted(pool: &PgPool, stream_ids: &[i64]) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT asked.stream_id FROM unnest($1::bigint[]) AS asked (stream_id)
         WHERE NOT EXISTS (SELECT FROM event_log.stream s
                           WHERE s.stream_id = asked.stream_id AND s.closed_at IS NULL
                             AND s.halted_reason IS NOT NULL)",
    )
    .bind(stream_ids)
    .fetch_all(pool)
    .await
}
