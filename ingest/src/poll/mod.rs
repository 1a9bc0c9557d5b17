//! The poll thread: owns the Kafka consumer, hands records to the workers, keeps the partitions in
//! order. Nothing here waits for the database, apart from the group's callbacks, which are bounded.

mod lost;
mod upkeep;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{ClientConfig, TopicPartitionList};
use service::database::START_WAIT;
use service::exit::Unreachable;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::claims::Claimed;
use crate::gather::Delivery;
use crate::group::{Group, show_to_kafka};
use crate::partitions::{Held, TopicPartition};
use crate::raw_record::RawRecord;
use crate::worker::Notice;
use crate::{Shared, condition};

/// How long one poll waits for a record; a record that is there returns at once.
const POLL: Duration = Duration::from_millis(50);
/// How often notices are read and paused partitions looked at.
const HOUSEKEEPING: Duration = Duration::from_millis(20);

/// Runs the consumer until `stop`, then lets the batches under way finish and leaves the group.
pub(crate) fn run(
    config: &ClientConfig,
    shared: &Arc<Shared>,
    runtime: Handle,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let (notify, notices) = channel();
    let (claimed, claims) = channel();
    let group = Group::new(Arc::clone(shared), runtime, notify);
    let consumer: BaseConsumer<Group> = config
        .create_with_context(group)
        .context("cannot make a Kafka consumer")?;
    if !reach_kafka(&consumer, shared, stop)? {
        return Ok(());
    }
    consumer
        .subscribe(&topic_names(shared))
        .context("cannot subscribe to ingest.topics")?;
    shared.health.set_ready(condition::STREAMS);
    let now = Instant::now();
    let mut poller = Poller {
        consumer: &consumer,
        shared,
        notices,
        claimed,
        claims,
        next_housekeeping: now,
        next_show: now,
        next_ask: now,
    };
    let result = poller.run(stop);
    poller.drain();
    // Closes the consumer: leaves the group, so that its other members take over at once.
    drop(consumer);
    result
}

/// Waits a while for Kafka to answer; false = shut down before that. Whether it knows the topics is
/// another matter, which may still mend itself.
fn reach_kafka(
    consumer: &BaseConsumer<Group>,
    shared: &Shared,
    stop: &CancellationToken,
) -> anyhow::Result<bool> {
    let deadline = Instant::now() + START_WAIT;
    while !stop.is_cancelled() {
        let Err(error) = consumer.fetch_metadata(None, Duration::from_secs(2)) else {
            return Ok(true);
        };
        let kafka = &shared.config.kafka;
        let reason = format!(
            "cannot reach Kafka at kafka.bootstrap_servers = {} (set by {}): {error}",
            kafka.bootstrap_servers, kafka.bootstrap_servers_source
        );
        if Instant::now() >= deadline {
            let advice = "check that a broker runs there and that kafka.properties fit it";
            return Err(Unreachable::new(format!("{reason}; {advice}")).into());
        }
        tracing::warn!("{reason}; still trying");
        shared.health.set_unready(condition::KAFKA, reason);
        // An answer that fails at once must not be asked for again and again.
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(false)
}

struct Poller<'c> {
    consumer: &'c BaseConsumer<Group>,
    shared: &'c Arc<Shared>,
    notices: Receiver<Notice>,
    claimed: Sender<(TopicPartition, Claimed)>,
    claims: Receiver<(TopicPartition, Claimed)>,
    next_housekeeping: Instant,
    next_show: Instant,
    next_ask: Instant,
}

impl Poller<'_> {
    fn run(&mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        while !stop.is_cancelled() {
            self.shared.pulse.poll_thread.beat();
            match self.consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => self.deliver(&message),
                Some(Err(KafkaError::PartitionEOF(partition))) => self.deliver_tail(partition),
                Some(Err(error)) => self.consumption_error(error)?,
            }
            let now = Instant::now();
            if now >= self.next_housekeeping {
                self.next_housekeeping = now + HOUSEKEEPING;
                self.housekeeping(now)?;
            }
        }
        Ok(())
    }

    fn group(&self) -> &Group {
        self.consumer.context()
    }

    fn deliver(&self, message: &BorrowedMessage<'_>) {
        let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
        let mut partitions = self.group().partitions();
        let Some(reading) = partitions.reading(topic, partition) else {
            // It was let go of, or waits to be claimed again, and will be read from its stored offset.
            tracing::debug!(
                topic,
                partition,
                offset,
                "a record of a partition that is not read here"
            );
            return;
        };
        if offset < reading.expected || reading.halting {
            tracing::debug!(
                topic,
                partition,
                offset,
                "a record that was delivered before, or that follows what cannot be read"
            );
            return;
        }
        let skipped = offset - reading.expected;
        reading.expected = offset + 1;
        let record = RawRecord::copied(message);
        failpoints::hit("ingest.polled");
        reading.worker.deliver(Delivery::Record { skipped, record });
        if !reading.paused && reading.worker.is_full() {
            reading.paused = true;
            tracing::debug!(topic, partition, offset, "paused: the worker has enough");
            let list = list_of(topic, partition);
            if let Err(error) = self.consumer.pause(&list) {
                tracing::warn!(%error, topic, partition, "cannot pause the partition");
            }
        }
    }

    /// The end of a partition was reached. The error names no topic, so each with that partition is
    /// looked at. A position above the last record's means control records at the end: they are
    /// skipped now, since retention could pass them before the next record comes.
    fn deliver_tail(&self, partition: i32) {
        let positions = match self.consumer.position() {
            Ok(positions) => positions,
            Err(error) => {
                tracing::debug!(%error, "cannot read the positions");
                return;
            }
        };
        let mut partitions = self.group().partitions();
        for element in positions
            .elements()
            .iter()
            .filter(|e| e.partition() == partition)
        {
            let Some(position) = element.offset().to_raw().filter(|offset| *offset >= 0) else {
                continue;
            };
            let Some(reading) = partitions.reading(element.topic(), partition) else {
                continue;
            };
            let skipped = position - reading.expected;
            if skipped > 0 && !reading.halting {
                reading.expected = position;
                reading.worker.deliver(Delivery::Tail { skipped });
            }
        }
    }

    fn consumption_error(&mut self, error: KafkaError) -> anyhow::Result<()> {
        use RDKafkaErrorCode::{
            AutoOffsetReset, BadCompression, BadMessage, GroupAuthorizationFailed,
            MessageSizeTooLarge, NotImplemented, OffsetOutOfRange, TopicAuthorizationFailed,
            UnknownTopic, UnknownTopicOrPartition,
        };
        match error {
            KafkaError::MessageConsumptionFatal(_) => {
                return Err(anyhow::Error::new(error).context("the Kafka client cannot go on"));
            }
            KafkaError::MessageConsumption(AutoOffsetReset | OffsetOutOfRange) => {
                self.find_out_of_range()
            }
            KafkaError::MessageConsumption(
                BadMessage | BadCompression | NotImplemented | MessageSizeTooLarge,
            ) => self.find_unreadable(),
            KafkaError::MessageConsumption(UnknownTopicOrPartition | UnknownTopic) => {
                let topics = topic_names(self.shared).join(", ");
                self.not_ready(format!(
                    "Kafka does not know one of ingest.topics ({topics}): create it, or correct the name"
                ));
            }
            KafkaError::MessageConsumption(TopicAuthorizationFailed | GroupAuthorizationFailed) => {
                let group = &self.shared.config.ingest.group_id;
                self.not_ready(format!(
                    "Kafka refuses access ({error}): allow READ of ingest.topics and of the group {group:?}"
                ));
            }
            // The callback has logged it.
            _ => {}
        }
        Ok(())
    }

    fn not_ready(&self, reason: String) {
        tracing::warn!("{reason}");
        self.shared.health.set_unready(condition::KAFKA, reason);
    }

    /// Ends all workers after their batches under way and shows Kafka where they stopped.
    fn drain(&mut self) {
        let names = self.group().partitions().names();
        let mut readings = Vec::new();
        for name in names {
            if let Some(Held::Reading(reading)) = self.group().partitions().remove(&name) {
                readings.push((name, reading));
            }
        }
        let stored = self.group().stop_all(readings);
        show_to_kafka(self.consumer, &stored);
    }
}

fn topic_names(shared: &Shared) -> Vec<&str> {
    let topics = &shared.config.ingest.topics;
    topics.iter().map(|topic| topic.name.as_str()).collect()
}

fn list_of(topic: &str, partition: i32) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    list
}
