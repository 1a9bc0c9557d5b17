//! Claims a partition in PostgreSQL and finds the offset to start it at. Called inside the group's
//! assignment callback, bounded in time, and again by [`crate::poll`] for what could not be claimed
//! there.

use std::time::Duration;

use event_log::stream::{self, Claimant};
use event_log::{Claim, ClaimError, FaultClass, Halt, classify};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use sqlx::PgPool;

use crate::partitions::TopicPartition;

/// How long a claim may take: it waits for the batch that an earlier owner is committing.
pub(crate) const CLAIM_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the brokers may take to answer a question about a partition.
pub(crate) const BROKER_TIMEOUT: Duration = Duration::from_secs(5);

/// What came of trying to claim a partition.
#[derive(Debug)]
pub(crate) enum Claimed {
    /// It is ours, to be read from `next_offset`.
    Ours(Claim),
    /// It is ours, and waits for an operator.
    Halted(Halt),
    /// The log has never read it: say where it begins, then claim again.
    NeverRead,
    /// Not now: the database, or an earlier owner, is busy or away.
    Later(String),
    /// Not ever, as things are configured.
    Never(ClaimError),
}

/// Claims one partition. `start` is where its reading begins if the log has never read it.
pub(crate) async fn claim(
    pool: &PgPool,
    who: &Claimant,
    partition: &TopicPartition,
    start: Option<i64>,
) -> Claimed {
    let attempt = async {
        if let Some(start) = start {
            stream::open(pool, who, &partition.topic, partition.partition, start).await?;
        }
        stream::claim(pool, who, &partition.topic, partition.partition).await
    };
    match tokio::time::timeout(CLAIM_TIMEOUT, attempt).await {
        Err(_) => Claimed::Later("the database did not answer in time".to_owned()),
        Ok(Ok(None)) => Claimed::NeverRead,
        Ok(Ok(Some(claim))) => match claim.halted.clone() {
            Some(halt) => Claimed::Halted(halt),
            None => Claimed::Ours(claim),
        },
        Ok(Err(ClaimError::Database(error))) => match classify(&error) {
            FaultClass::Fatal => Claimed::Never(ClaimError::Database(error)),
            _ => Claimed::Later(error.to_string()),
        },
        Ok(Err(error)) => Claimed::Never(error),
    }
}

/// The first offset that a partition still has: where its first reading begins.
pub(crate) fn first_offset<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    partition: &TopicPartition,
) -> Result<i64, String> {
    consumer
        .fetch_watermarks(&partition.topic, partition.partition, BROKER_TIMEOUT)
        .map(|(low, _)| low)
        .map_err(|error| format!("cannot ask Kafka where {partition} begins: {error}"))
}
