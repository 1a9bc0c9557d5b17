//! Claims a partition in PostgreSQL and finds the offset to start it at. Called inside the group's
//! assignment callback, bounded in time, and again by [`crate::poll`] for what could not be claimed
//! there.

use std::fmt;
use std::time::Duration;

use event_log::stream;
use event_log::{Claim, ClaimError, FaultClass, classify};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use service::backoff::Backoff;
use sqlx::PgPool;

use crate::Shared;
use crate::partitions::TopicPartition;

/// How long a claim may take: it waits for the batch that an earlier owner is committing.
pub(crate) const CLAIM_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the brokers may take to answer a question about a partition.
pub(crate) const BROKER_TIMEOUT: Duration = Duration::from_secs(5);

/// What came of trying to claim a partition.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// It is ours, to be read from `next_offset`, or waits for an operator.
    Ours(Claim),
    /// The log has never read it: say where it begins, then claim again.
    NeverRead,
    /// Not now: the database, or an earlier owner, is busy or away.
    Later(String),
    /// Not ever, as things are configured.
    Never(ClaimError),
}

/// Claims one partition. `start` is where its reading begins if the log has never read it.
pub(crate) async fn claim(
    shared: &Shared,
    partition: &TopicPartition,
    start: Option<i64>,
) -> Claimed {
    let (pool, who) = (&shared.pool, &shared.claimant);
    let attempt = async {
        // A claim may wait long for a row that is locked. The semaphore is never closed.
        let _permit = shared.claims.acquire().await;
        if let Some(start) = start {
            stream::open(pool, who, &partition.topic, partition.partition, start).await?;
        }
        stream::claim(pool, who, &partition.topic, partition.partition).await
    };
    match tokio::time::timeout(CLAIM_TIMEOUT, attempt).await {
        Err(_) => Claimed::Later("the database did not answer in time".to_owned()),
        Ok(Ok(None)) => Claimed::NeverRead,
        Ok(Ok(Some(claim))) => Claimed::Ours(claim),
        Ok(Err(ClaimError::Database(error))) => match classify(&error) {
            FaultClass::Fatal => Claimed::Never(ClaimError::Database(error)),
            _ => Claimed::Later(error.to_string()),
        },
        Ok(Err(error)) => Claimed::Never(error),
    }
}

/// The first offset that each partition still has: where its first reading begins.
pub(crate) fn first_offsets<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: &[&TopicPartition],
) -> Vec<Result<i64, String>> {
    let answer = log_ends(consumer, partitions.iter().copied(), Offset::Beginning);
    let first = |partition: &&TopicPartition| {
        let why = |error: &dyn fmt::Display| {
            format!("cannot ask Kafka where {partition} begins: {error}")
        };
        let list = answer.as_ref().map_err(|error| why(error))?;
        log_end(list, partition).ok_or_else(|| why(&"it does not say"))
    };
    partitions.iter().map(first).collect()
}

/// Where the partitions' logs begin or end in Kafka. All are asked for at once: an answer may wait half
/// a second behind one to a fetch, and the poll thread waits for it.
pub(crate) fn log_ends<'n, C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partitions: impl Iterator<Item = &'n TopicPartition>,
    which: Offset,
) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for TopicPartition { topic, partition } in partitions {
        list.add_partition_offset(topic, *partition, which)?;
    }
    if list.count() == 0 {
        return Ok(list);
    }
    consumer.offsets_for_times(list, BROKER_TIMEOUT)
}

/// What Kafka said of one of them, if it said anything.
pub(crate) fn log_end(ends: &TopicPartitionList, partition: &TopicPartition) -> Option<i64> {
    let element = ends.find_partition(&partition.topic, partition.partition)?;
    element.error().ok()?;
    element.offset().to_raw().filter(|offset| *offset >= 0)
}

/// Stores a halt, however long the database is away. `false` = the claim is no longer the newest one:
/// whoever has that finds the reason again.
pub(crate) async fn store_halt(pool: &PgPool, claim: &Claim, code: &str, reason: &str) -> bool {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        match stream::halt(pool, claim, code, reason).await {
            Ok(stored) => return stored,
            Err(error) => {
                tracing::warn!(
                    %error, topic = claim.topic, partition = claim.partition, "cannot store the halt; trying again"
                );
            }
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}
