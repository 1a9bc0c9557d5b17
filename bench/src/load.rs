//! Fills a topic, as fast as it goes. Called by the measurements of throughput; `generator` makes
//! the records.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};

use crate::generator::{EVENTS_A_RUN, Generator, Options};
use crate::progress::note;
use crate::stack::Stack;

/// Delivery reports are taken in each time this many records were handed over.
const REPORTS_EVERY: u64 = 64;
/// How long the broker may take to make a topic, or to take in the last records.
const WITHIN: Duration = Duration::from_secs(60);

/// A topic with its records.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Load {
    /// The topic.
    pub(crate) topic: String,
    /// Its partitions.
    pub(crate) partitions: i32,
    /// Different events: what the log gets.
    pub(crate) events: u64,
    /// Records, duplicates included.
    pub(crate) records: u64,
    /// The mean size of a record's value, in bytes.
    pub(crate) mean_bytes: f64,
    /// How they were made.
    pub(crate) options: Options,
}

/// Creates a topic.
///
/// # Errors
/// Where the broker refuses.
pub(crate) async fn create_topic(
    stack: &Stack,
    topic: &str,
    partitions: i32,
) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = stack.kafka_client().create()?;
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    let options = AdminOptions::new().operation_timeout(Some(WITHIN));
    let created = admin
        .create_topics([&new], &options)
        .await
        .with_context(|| format!("cannot reach Kafka at {}", stack.kafka))?;
    for result in created {
        result.map_err(|(topic, code)| anyhow!("Kafka refuses to create {topic}: {code}"))?;
    }
    Ok(())
}

/// A producer's settings: idempotent, acknowledged by all replicas, partitioned as Kafka's own clients do.
pub(crate) fn producer_config(stack: &Stack) -> ClientConfig {
    let mut client = stack.kafka_client();
    client
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("partitioner", "murmur2_random");
    client
}

/// Creates the topic and fills it.
///
/// # Errors
/// Where the broker does not take a record.
pub(crate) async fn load(
    stack: &Stack,
    topic: &str,
    partitions: i32,
    options: Options,
) -> anyhow::Result<Load> {
    create_topic(stack, topic, partitions).await?;
    let mut client = producer_config(stack);
    client.set("linger.ms", "5");
    let producer: BaseProducer<Failures> = client.create_with_context(Failures::default())?;
    let (topic, of) = (topic.to_owned(), options.clone());
    let begun = Instant::now();
    let (topic, records, bytes) =
        tokio::task::spawn_blocking(move || -> anyhow::Result<(String, u64, u64)> {
            let (records, bytes) = publish(&producer, &topic, Generator::new(of))?;
            Ok((topic, records, bytes))
        })
        .await??;
    let load = Load {
        topic,
        partitions,
        events: options.events / EVENTS_A_RUN * EVENTS_A_RUN,
        records,
        mean_bytes: bytes as f64 / records as f64,
        options,
    };
    note(&format!(
        "published {records} records of {:.0} bytes on average in {:.1} s",
        load.mean_bytes,
        begun.elapsed().as_secs_f64()
    ));
    Ok(load)
}

fn publish(
    producer: &BaseProducer<Failures>,
    topic: &str,
    generator: Generator,
) -> anyhow::Result<(u64, u64)> {
    let (mut records, mut bytes) = (0, 0);
    for record in generator {
        records += 1;
        bytes += record.value.len() as u64;
        let mut base = BaseRecord::to(topic)
            .key(&record.key)
            .payload(&record.value);
        loop {
            match producer.send(base) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    base = back;
                    producer.poll(Duration::from_millis(10));
                }
                Err((error, _)) => return Err(error).context("cannot publish"),
            }
        }
        if records % REPORTS_EVERY == 0 {
            producer.poll(Duration::ZERO);
            producer.context().check()?;
        }
    }
    producer.flush(WITHIN).context("cannot publish")?;
    producer.context().check()?;
    Ok((records, bytes))
}

/// The first record that the broker did not take.
#[derive(Debug, Clone, Default)]
struct Failures(Arc<Mutex<Option<KafkaError>>>);

impl Failures {
    fn check(&self) -> anyhow::Result<()> {
        let failure = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match failure.clone() {
            Some(error) => Err(error).context("Kafka did not take a record"),
            None => Ok(()),
        }
    }
}

impl ClientContext for Failures {}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let mut failure = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert_with(|| error.clone());
        }
    }
}
