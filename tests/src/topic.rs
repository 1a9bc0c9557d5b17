//! A topic of one test's own: making it, writing to it, and asking the broker about it.
//!
//! Called by [`crate::Pipeline`] and the suites.

use crate::environment::{Environment, unique_name};
use crate::generator::Record;
use crate::oracle::Produced;
use anyhow::{Context, Result, anyhow, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::time::Duration;

/// The largest message that the topic takes, in bytes: more than the product does, so that its own
/// limit is the one that is tested.
const MAX_MESSAGE_BYTES: &str = "16777216";
/// How long the broker may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

/// A topic.
#[derive(Clone)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    bootstrap: String,
    producer: FutureProducer,
}

impl Topic {
    /// Makes a topic with a name of its own.
    ///
    /// # Errors
    /// Where the broker does not answer or refuses.
    pub async fn fresh(environment: &Environment, partitions: i32) -> Result<Self> {
        let name = unique_name("run-events-test");
        let bootstrap = environment.kafka.clone();
        let admin: AdminClient<DefaultClientContext> = client(&bootstrap).create()?;
        let topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1))
            .set("max.message.bytes", MAX_MESSAGE_BYTES);
        let results = admin
            .create_topics(
                [&topic],
                &AdminOptions::new()
                    .operation_timeout(Some(ANSWER))
                    .request_timeout(Some(ANSWER)),
            )
            .await
            .with_context(|| "Kafka of RUNLOG_TEST_KAFKA does not answer; run `make test`")?;
        for result in results {
            result
                .map_err(|(topic, code)| anyhow!("topic {topic} could not be created: {code}"))?;
        }
        let producer = client(&bootstrap)
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("message.max.bytes", MAX_MESSAGE_BYTES)
            .create()?;
        Ok(Self {
            name,
            partitions,
            bootstrap,
            producer,
        })
    }

    /// Sends records in their order and waits for all delivery reports.
    ///
    /// # Errors
    /// Where a record is not acknowledged.
    pub async fn send(&self, records: &[Record]) -> Result<Vec<Produced>> {
        let mut waiting = Vec::with_capacity(records.len());
        for record in records {
            waiting.push((record, self.enqueue(record).await?));
        }
        let mut produced = Vec::with_capacity(records.len());
        for (record, delivery) in waiting {
            let place = delivery
                .await?
                .map_err(|(error, _)| anyhow!("a record was not acknowledged: {error}"))?;
            produced.push(Produced {
                partition: place.partition,
                offset: place.offset,
                key: record.key.clone(),
                value: record.value.clone(),
                content_type: record.content_type.clone(),
            });
        }
        Ok(produced)
    }

    async fn enqueue(&self, record: &Record) -> Result<DeliveryFuture> {
        let mut message: FutureRecord<'_, [u8], [u8]> =
            FutureRecord::to(&self.name).partition(record.partition);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        if let Some(value) = record.content_type.as_deref() {
            message.headers = Some(OwnedHeaders::new().insert(Header {
                key: "content-type",
                value: Some(value),
            }));
        }
        loop {
            match self.producer.send_result(message) {
                Ok(delivery) => return Ok(delivery),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused)) => {
                    // The queue empties by itself; there is no event to wait for.
                    message = refused;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err((error, _)) => bail!("a record could not be sent: {error}"),
            }
        }
    }

    /// The high watermark of each partition: the offset that the next record will get.
    ///
    /// # Errors
    /// Where the broker does not answer.
    pub async fn heads(&self) -> Result<BTreeMap<i32, i64>> {
        let topic = self.clone();
        tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = client(&topic.bootstrap).create()?;
            (0..topic.partitions)
                .map(|partition| {
                    Ok((
                        partition,
                        consumer.fetch_watermarks(&topic.name, partition, ANSWER)?.1,
                    ))
                })
                .collect()
        })
        .await?
    }

    /// The offsets that a consumer group has committed to Kafka; partitions without one are left
    /// out.
    ///
    /// # Errors
    /// Where the broker does not answer.
    pub async fn group_offsets(&self, group: &str) -> Result<BTreeMap<i32, i64>> {
        let (topic, group) = (self.clone(), group.to_owned());
        tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer =
                client(&topic.bootstrap).set("group.id", &group).create()?;
            let mut partitions = TopicPartitionList::new();
            partitions.add_partition_range(&topic.name, 0, topic.partitions - 1);
            let committed = consumer.committed_offsets(partitions, ANSWER)?;
            let known =
                committed
                    .elements()
                    .into_iter()
                    .filter_map(|element| match element.offset() {
                        Offset::Offset(offset) => Some((element.partition(), offset)),
                        _ => None,
                    });
            Ok(known.collect())
        })
        .await?
    }
}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config
}
