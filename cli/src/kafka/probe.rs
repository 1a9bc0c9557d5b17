//! Looks at a cluster without touching it: topics, partitions, watermarks, group members.
//! Called by `status`, `stream`, `doctor`, and by `publish` and `simulate` before they send.

use std::time::Duration;

use anyhow::{Context, anyhow};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Offset, TopicPartitionList};
use service::config::KafkaConfig;
use service::kafka::{ClientLog, client_config, metadata};

use super::{TIMEOUT, unreachable};

/// How many partitions are asked at once: watermarks cost two round trips each.
const ASKED_AT_ONCE: usize = 8;

/// A client that only asks. It belongs to no group, and asking for a topic does not create it.
pub(crate) struct Probe {
    config: KafkaConfig,
    consumer: BaseConsumer<ClientLog>,
    log: ClientLog,
}

/// The offsets of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Watermarks {
    /// The oldest offset that is still there.
    pub(crate) low: i64,
    /// The next offset that a reader of committed records would be given.
    pub(crate) high: i64,
}

impl Probe {
    /// A client for the configured brokers. Nothing is sent yet.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub(crate) fn new(config: &KafkaConfig) -> anyhow::Result<Self> {
        let log = ClientLog::default();
        let consumer = client_config(config)?
            .create_with_context(log.clone())
            .context("cannot make a Kafka client")?;
        Ok(Self {
            config: config.clone(),
            consumer,
            log,
        })
    }

    /// The number of partitions of a topic; `None` where the cluster has no such topic.
    ///
    /// # Errors
    /// Unreachable, or the broker's answer.
    pub(crate) fn partitions(&self, topic: &str) -> anyhow::Result<Option<i32>> {
        let metadata = metadata(&self.consumer, Some(topic), TIMEOUT)
            .map_err(|error| self.unreachable(error))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        let Some(found) = found else { return Ok(None) };
        match found.error() {
            None => Ok(Some(i32::try_from(found.partitions().len())?)),
            Some(
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
                | RDKafkaRespErr::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC,
            ) => Ok(None),
            Some(error) => {
                let code = RDKafkaErrorCode::from(error);
                Err(anyhow!("Kafka does not show the topic {topic}: {code}"))
            }
        }
    }

    /// Whether every partition of a topic has a leader, so that it can be written.
    ///
    /// # Errors
    /// Unreachable.
    pub(crate) fn is_writable(&self, topic: &str, partitions: i32) -> anyhow::Result<bool> {
        let metadata = metadata(&self.consumer, Some(topic), TIMEOUT)
            .map_err(|error| self.unreachable(error))?;
        Ok(metadata
            .topics()
            .iter()
            .filter(|found| found.name() == topic)
            .any(|found| {
                let led = found
                    .partitions()
                    .iter()
                    .filter(|p| p.leader() >= 0)
                    .count();
                i32::try_from(led).is_ok_and(|led| led >= partitions)
            }))
    }

    /// The watermarks of partitions `0..partitions`, in that order.
    ///
    /// # Errors
    /// Unreachable, or the broker's answer.
    pub(crate) fn watermarks(
        &self,
        topic: &str,
        partitions: i32,
    ) -> anyhow::Result<Vec<Watermarks>> {
        let all: Vec<i32> = (0..partitions).collect();
        let mut found = Vec::with_capacity(all.len());
        for some in all.chunks(ASKED_AT_ONCE) {
            let answers: Vec<_> = std::thread::scope(|scope| {
                let asked: Vec<_> = some
                    .iter()
                    .map(|&partition| scope.spawn(move || self.watermarks_of(topic, partition)))
                    .collect();
                let joined = asked.into_iter().map(|thread| thread.join());
                joined.collect()
            });
            for answer in answers {
                found.push(answer.map_err(|_| anyhow!("a thread that asked Kafka died"))??);
            }
        }
        Ok(found)
    }

    /// The watermarks of one partition.
    ///
    /// # Errors
    /// Unreachable, or the broker's answer.
    pub(crate) fn watermarks_of(&self, topic: &str, partition: i32) -> anyhow::Result<Watermarks> {
        match self.consumer.fetch_watermarks(topic, partition, TIMEOUT) {
            Ok((low, high)) => Ok(Watermarks { low, high }),
            Err(error) if is_about_the_topic(&error) => Err(error)
                .with_context(|| format!("cannot read the offsets of {topic}/{partition}")),
            Err(error) => Err(self.unreachable(error)),
        }
    }

    /// The offset of the first record whose time is `at` (milliseconds since 1970 UTC) or later; `None`
    /// where there is none.
    ///
    /// # Errors
    /// Unreachable, or the broker's answer.
    pub(crate) fn offset_from(
        &self,
        topic: &str,
        partition: i32,
        at: i64,
    ) -> anyhow::Result<Option<i64>> {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset(topic, partition, Offset::Offset(at))?;
        let answer = self
            .consumer
            .offsets_for_times(asked, TIMEOUT)
            .map_err(|error| self.unreachable(error))?;
        let found = answer.find_partition(topic, partition);
        let found = found.ok_or_else(|| anyhow!("Kafka did not answer for {topic}/{partition}"))?;
        found
            .error()
            .with_context(|| format!("cannot look up a time in {topic}/{partition}"))?;
        Ok(match found.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        })
    }

    fn unreachable(&self, error: KafkaError) -> anyhow::Error {
        // The reasons wait in the client's queue, with its log lines and nothing else, since no
        // partition is assigned. A poll of no length would stop at the first log line.
        while self.consumer.poll(Duration::from_millis(20)).is_some() {}
        unreachable(&self.config, &self.log, error)
    }

    /// The state of a consumer group and how many members it has; `None` where it does not exist.
    ///
    /// # Errors
    /// Unreachable, or not allowed.
    pub(crate) fn group(&self, group_id: &str) -> anyhow::Result<Option<(String, usize)>> {
        let list = self
            .consumer
            .fetch_group_list(Some(group_id), TIMEOUT)
            .with_context(|| format!("cannot look at the consumer group {group_id}"))?;
        let found = list.groups().iter().find(|group| group.name() == group_id);
        Ok(found.map(|group| (group.state().to_owned(), group.members().len())))
    }
}

fn is_about_the_topic(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::UnknownTopicOrPartition
                | Code::UnknownTopic
                | Code::UnknownPartition
                | Code::TopicAuthorizationFailed
        )
    )
}
