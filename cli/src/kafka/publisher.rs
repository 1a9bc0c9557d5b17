//! Sends records and waits until the brokers have them: idempotent, acknowledged by all replicas,
//! partitioned by key as Kafka's own clients do. Called by `publish` and `simulate`, on a blocking
//! thread.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use service::config::{Config, KafkaConfig};
use service::exit::Unreachable;
use service::kafka::{ClientLog, client_config, oauth_token};

/// Records that wait in memory for the brokers at most.
const QUEUE_RECORDS: &str = "50000";
/// Bytes that wait in memory for the brokers at most, in KiB.
const QUEUE_KIB: &str = "65536";
/// Delivery reports are taken in each time this many records were handed over.
const REPORTS_EVERY: u64 = 64;
/// What a record's headers and framing may take beside its value, in bytes.
const OVERHEAD: usize = 64 * 1024;

/// The value's format, as the `content-type` header says it.
pub(crate) const JSON: &str = "application/json";
const CONTENT_TYPE: &str = "content-type";
/// What the headers add to a record's size, in bytes.
pub(crate) const HEADER_BYTES: usize = CONTENT_TYPE.len() + JSON.len();

/// One record to send.
pub(crate) struct Record<'a> {
    /// The key; without one the partition is random.
    pub(crate) key: Option<&'a str>,
    /// The value.
    pub(crate) value: &'a [u8],
}

/// A producer for one topic. All its work happens on the thread that calls it.
pub(crate) struct Publisher {
    config: KafkaConfig,
    producer: BaseProducer<Deliveries>,
    topic: String,
    sent: u64,
}

/// Why one record could not be handed over.
#[derive(Debug, thiserror::Error)]
#[error("the record is larger than the producer may send")]
pub(crate) struct RecordTooLarge;

impl Publisher {
    /// A producer with the configured brokers. Nothing is sent yet.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub(crate) fn new(config: &Config, topic: &str) -> anyhow::Result<Self> {
        let mut client = client_config(&config.kafka)?;
        if client.get("message.max.bytes").is_none() {
            // librdkafka's own bound lies below the contract's 1 MiB.
            let bytes = (config.limits.max_record_bytes + OVERHEAD).max(1_000_000);
            client.set("message.max.bytes", bytes.to_string());
        }
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "5")
            .set("queue.buffering.max.messages", QUEUE_RECORDS)
            .set("queue.buffering.max.kbytes", QUEUE_KIB);
        let producer = client
            .create_with_context(Deliveries::default())
            .context("cannot make a Kafka producer")?;
        Ok(Self {
            config: config.kafka.clone(),
            producer,
            topic: topic.to_owned(),
            sent: 0,
        })
    }

    /// Hands a record over, and waits while the queue is full.
    ///
    /// # Errors
    /// [`RecordTooLarge`]; or that an earlier record could not be delivered.
    pub(crate) fn send(&mut self, record: &Record<'_>) -> anyhow::Result<()> {
        self.sent += 1;
        if self.sent.is_multiple_of(REPORTS_EVERY) {
            self.take_reports(Duration::ZERO)?;
        }
        let header = Header {
            key: CONTENT_TYPE,
            value: Some(JSON),
        };
        let mut base = BaseRecord::<str, [u8]>::to(&self.topic)
            .payload(record.value)
            .headers(OwnedHeaders::new_with_capacity(1).insert(header));
        if let Some(key) = record.key {
            base = base.key(key);
        }
        loop {
            match self.producer.send(base) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    base = back;
                    self.take_reports(Duration::from_millis(10))?;
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                    return Err(RecordTooLarge.into());
                }
                Err((error, _)) => {
                    return Err(anyhow!(error).context(format!("cannot publish to {}", self.topic)));
                }
            }
        }
    }

    /// Takes delivery reports in for this long. It is also how the sender waits for its turn.
    ///
    /// # Errors
    /// That a record could not be delivered.
    pub(crate) fn take_reports(&self, during: Duration) -> anyhow::Result<()> {
        self.producer.poll(during);
        let deliveries = self.producer.context();
        deliveries.first_failure(&self.config, &self.topic)
    }

    /// Waits until every record is delivered, and gives their number.
    ///
    /// # Errors
    /// That a record could not be delivered.
    pub(crate) fn finish(self) -> anyhow::Result<u64> {
        while self.producer.in_flight_count() > 0 {
            self.take_reports(Duration::from_millis(20))?;
        }
        self.take_reports(Duration::ZERO)?;
        let deliveries = self.producer.context();
        let delivered = deliveries.delivered.load(Ordering::Relaxed);
        Ok(delivered)
    }
}

/// What the brokers said about the records.
#[derive(Debug, Clone, Default)]
struct Deliveries {
    delivered: Arc<AtomicU64>,
    failure: Arc<Mutex<Option<KafkaError>>>,
    log: ClientLog,
}

impl Deliveries {
    fn first_failure(&self, config: &KafkaConfig, topic: &str) -> anyhow::Result<()> {
        let failure = self
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let Some(error) = failure else { return Ok(()) };
        let delivered = self.delivered.load(Ordering::Relaxed);
        let message = format!(
            "a record could not be delivered to {topic} ({delivered} were): publish again what is \
             missing, since records that arrived twice are recognised by their idempotencyKey"
        );
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageTimedOut) {
            let reason = self
                .log
                .last_failure(config)
                .map(|text| format!("; {text}"));
            let message = format!("{message}{}", reason.unwrap_or_default());
            bail!(Unreachable {
                message,
                cause: Some(error.into()),
            });
        }
        Err(anyhow!(error).context(message))
    }
}

impl ClientContext for Deliveries {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn error(&self, error: KafkaError, reason: &str) {
        self.log.error(error, reason);
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        self.log.log(level, facility, line);
    }

    fn generate_oauth_token(&self, path: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        oauth_token(path)
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _: ()) {
        match result {
            Ok(_) => {
                self.delivered.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => {
                let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                failure.get_or_insert_with(|| error.clone());
            }
        }
    }
}
