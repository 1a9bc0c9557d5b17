//! Sends records at times that are fixed before. Called by `latency`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use rdkafka::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use crate::generator::Record;
use crate::load::producer_config;
use crate::stack::Stack;

/// The first record's time lies so far ahead: the producer has to find its brokers.
const AHEAD: Duration = Duration::from_millis(500);
/// How long the broker may take to take in the last records.
const WITHIN: Duration = Duration::from_secs(60);

/// A record that the broker has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acked {
    /// Its place among those sent.
    pub(super) place: usize,
    /// Its partition.
    pub(super) partition: i32,
    /// Its offset.
    pub(super) offset: i64,
    /// When the delivery report came.
    pub(super) at: Instant,
}

/// From the first record's time to another one's.
pub(super) fn after(place: usize, rate: u32) -> Duration {
    Duration::from_secs_f64(place as f64 / f64::from(rate))
}

/// Sends the records at a rate. Gives the first one's time, and the acknowledgements.
///
/// # Errors
/// Where a record is not taken.
pub(super) async fn send(
    stack: &Stack,
    topic: &'static str,
    records: Vec<Record>,
    rate: u32,
) -> anyhow::Result<(Instant, Vec<Acked>)> {
    let mut client = producer_config(stack);
    client.set("linger.ms", "1");
    let acks = Acks::default();
    let producer: ThreadedProducer<Acks> = client.create_with_context(acks.clone())?;
    tokio::task::spawn_blocking(move || {
        let begun = Instant::now() + AHEAD;
        for (place, record) in records.iter().enumerate() {
            std::thread::sleep(
                (begun + after(place, rate)).saturating_duration_since(Instant::now()),
            );
            let base = BaseRecord::with_opaque_to(topic, place)
                .key(&record.key)
                .payload(&record.value);
            producer
                .send(base)
                .map_err(|(error, _)| anyhow!(error))
                .context("cannot publish")?;
        }
        producer.flush(WITHIN).context("cannot publish")?;
        let acked = acks.take()?;
        ensure!(
            acked.len() == records.len(),
            "Kafka acknowledged {} records of {}",
            acked.len(),
            records.len()
        );
        Ok((begun, acked))
    })
    .await?
}

/// The delivery reports, and the first failure.
#[derive(Debug, Clone, Default)]
struct Acks(Arc<Mutex<(Vec<Acked>, Option<KafkaError>)>>);

impl Acks {
    fn take(&self) -> anyhow::Result<Vec<Acked>> {
        let mut reports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match reports.1.take() {
            Some(error) => Err(error).context("Kafka did not take a record"),
            None => Ok(std::mem::take(&mut reports.0)),
        }
    }
}

impl ClientContext for Acks {}

impl ProducerContext for Acks {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, place: usize) {
        let at = Instant::now();
        let mut reports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(message) => reports.0.push(Acked {
                place,
                partition: message.partition(),
                offset: message.offset(),
                at,
            }),
            Err((error, _)) => {
                reports.1.get_or_insert_with(|| error.clone());
            }
        }
    }
}
