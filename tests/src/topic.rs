//! A topic of one test's own: making it, writing to it, and asking the broker about it.
//!
//! Called by [`crate::Pipeline`] and the suites.

use crate::environment::{Environment, unique_name};
use crate::generator::Record;
use crate::oracle::Produced;
use crate::wait::wait_until;
use anyhow::{Context, Result, anyhow, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

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
        let topic = new_topic(&name, partitions);
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
        let producer = producer(&bootstrap)?;
        Ok(Self {
            name,
            partitions,
            bootstrap,
            producer,
        })
    }

    /// The same topic with a producer of its own.
    ///
    /// # Errors
    /// Where the client cannot be made.
    pub fn with_own_producer(&self) -> Result<Self> {
        Ok(Self {
            producer: producer(&self.bootstrap)?,
            ..self.clone()
        })
    }

    /// Adds partitions until there are so many.
    ///
    /// # Errors
    /// Where the broker does not answer or refuses.
    pub async fn grow_to(&self, total: i32) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = client(&self.bootstrap).create()?;
        let total = usize::try_from(total)?;
        let options = AdminOptions::new().operation_timeout(Some(ANSWER));
        for result in admin
            .create_partitions(&[NewPartitions::new(&self.name, total)], &options)
            .await?
        {
            result.map_err(|(topic, code)| anyhow!("topic {topic} did not grow: {code}"))?;
        }
        Ok(())
    }

    /// Deletes the topic.
    ///
    /// # Errors
    /// Where the broker does not answer or refuses.
    pub async fn remove(&self) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = client(&self.bootstrap).create()?;
        for result in admin
            .delete_topics(&[&self.name], &AdminOptions::new())
            .await?
        {
            result.map_err(|(topic, code)| anyhow!("topic {topic} was not deleted: {code}"))?;
        }
        Ok(())
    }

    /// Deletes the topic and makes an empty one of the same name, with a producer of its own.
    ///
    /// # Errors
    /// Where the broker does not answer or refuses.
    pub async fn made_again(&self) -> Result<Self> {
        self.remove().await?;
        self.made_after_removal().await
    }

    /// Makes an empty topic in the place of this one, which was deleted, with a producer of its own.
    ///
    /// # Errors
    /// Where the broker does not answer or refuses.
    pub async fn made_after_removal(&self) -> Result<Self> {
        let admin: AdminClient<DefaultClientContext> = client(&self.bootstrap).create()?;
        let topic = new_topic(&self.name, self.partitions);
        wait_until("the old topic to be gone", ANSWER, async || {
            for result in admin.create_topics([&topic], &AdminOptions::new()).await? {
                result.map_err(|(topic, code)| anyhow!("topic {topic}: {code}"))?;
            }
            Ok(())
        })
        .await?;
        self.with_own_producer()
    }

    /// Moves the start of a partition's log to this offset, as retention does.
    ///
    /// # Errors
    /// Where the broker does not answer or refuses.
    pub async fn delete_below(&self, partition: i32, offset: i64) -> Result<()> {
        let admin: AdminClient<DefaultClientContext> = client(&self.bootstrap).create()?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.name, partition, Offset::Offset(offset))?;
        admin.delete_records(&list, &AdminOptions::new()).await?;
        Ok(())
    }

    /// Every record of the topic's first partitions, as a consumer reads them, in no order between
    /// partitions.
    ///
    /// # Errors
    /// Where the broker does not answer, or a partition does not come to its end.
    pub async fn records(&self, partitions: i32) -> Result<Vec<Produced>> {
        let topic = self.clone();
        tokio::task::spawn_blocking(move || topic.records_blocking(partitions)).await?
    }

    fn records_blocking(&self, partitions: i32) -> Result<Vec<Produced>> {
        let consumer: BaseConsumer = client(&self.bootstrap)
            .set("group.id", unique_name("reader"))
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .create()?;
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(&self.name, partition, Offset::Beginning)?;
        }
        consumer.assign(&list)?;
        let (mut produced, mut ended) = (Vec::new(), 0);
        while ended < partitions {
            match consumer
                .poll(ANSWER)
                .context("Kafka sends no more records")?
            {
                Ok(message) => produced.push(Produced {
                    partition: message.partition(),
                    offset: message.offset(),
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    content_type: content_type(&message)?,
                }),
                Err(KafkaError::PartitionEOF(_)) => ended += 1,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(produced)
    }

    /// Waits until this topic's producer knows so many partitions.
    ///
    /// # Errors
    /// Where it does not learn of them in time.
    pub async fn learn_partitions(&self, total: i32) -> Result<()> {
        let (topic, total) = (self.clone(), usize::try_from(total)?);
        tokio::task::spawn_blocking(move || {
            let deadline = Instant::now() + ANSWER;
            loop {
                // Short, and again: a connection that a broker's end broke answers nothing.
                let client = topic.producer.client();
                let metadata = client.fetch_metadata(Some(&topic.name), Duration::from_secs(2));
                let known =
                    metadata.map(|m| m.topics().first().map_or(0, |t| t.partitions().len()));
                match known {
                    Ok(known) if known >= total => return Ok(()),
                    known if Instant::now() > deadline => {
                        bail!("of {total} partitions the producer knows {known:?}")
                    }
                    _ => std::thread::sleep(Duration::from_millis(100)),
                }
            }
        })
        .await?
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

fn content_type(message: &BorrowedMessage<'_>) -> Result<Option<String>> {
    let Some(headers) = message.headers() else {
        return Ok(None);
    };
    let mine = headers.iter().find(|header| header.key == "content-type");
    let value = mine.and_then(|header| header.value);
    Ok(value
        .map(|bytes| String::from_utf8(bytes.to_vec()))
        .transpose()?)
}

fn new_topic(name: &str, partitions: i32) -> NewTopic<'_> {
    NewTopic::new(name, partitions, TopicReplication::Fixed(1))
        .set("max.message.bytes", MAX_MESSAGE_BYTES)
}

fn producer(bootstrap: &str) -> Result<FutureProducer> {
    Ok(client(bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        // A partition that had no leader when it was learned is asked about again soon.
        .set("topic.metadata.refresh.interval.ms", "2000")
        .set("message.max.bytes", MAX_MESSAGE_BYTES)
        .create()?)
}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    // Brokers of tests come back soon.
    config.set("reconnect.backoff.max.ms", "1000");
    config
}
