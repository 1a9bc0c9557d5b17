//! The poll thread: owns the Kafka consumer, hands records to the workers, keeps the partitions in
//! order. Nothing here waits for the database, apart from the group's callbacks, which are bounded.

mod lost;
mod membership;
pub(crate) mod reach;
mod unclaimed;
mod upkeep;

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::{ClientConfig, TopicPartitionList};
use service::kafka::INSTANCE_ID;
use tokio_util::sync::CancellationToken;

use crate::assignment::show_to_kafka;
use crate::claims::BROKER_TIMEOUT;
use crate::gather::Delivery;
use crate::group::{Group, News};
use crate::partitions::{Held, TopicPartition};
use crate::raw_record::RawRecord;
use crate::resume::{self, Compared, Finding};
use crate::settings::Settings;
use crate::topics::Asker;
use crate::worker::Notice;
use crate::{Shared, condition};
use membership::ClientEnd;
pub(crate) use membership::run;
use unclaimed::Unclaimed;

/// How long one poll waits for a record; a record that is there returns at once.
const POLL: Duration = Duration::from_millis(50);
/// How often notices are read and paused partitions looked at.
const HOUSEKEEPING: Duration = Duration::from_millis(20);

struct Poller<'c> {
    consumer: &'c BaseConsumer<Group>,
    shared: &'c Arc<Shared>,
    config: &'c ClientConfig,
    /// What clients are made from now, and the renewal that this one is of.
    settings: (&'c Settings, u64),
    notices: Receiver<Notice>,
    news: Receiver<News>,
    asker: Asker<'c>,
    next_housekeeping: Instant,
    next_show: Instant,
    next_ask: Instant,
    next_comparison: Instant,
    next_halts: Instant,
    unclaimed: Unclaimed,
    /// Errors of the client library that are still to come for partitions that were found already,
    /// and until when they are expected.
    foretold: (usize, Instant),
}

impl<'c> Poller<'c> {
    fn new(
        consumer: &'c BaseConsumer<Group>,
        shared: &'c Arc<Shared>,
        config: &'c ClientConfig,
        settings: (&'c Settings, u64),
        notices: Receiver<Notice>,
        news: Receiver<News>,
    ) -> anyhow::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            consumer,
            shared,
            config,
            settings,
            notices,
            news,
            asker: Asker::new(consumer.client(), &topic_names(shared))?,
            next_housekeeping: now,
            next_show: now,
            next_ask: now,
            next_comparison: now,
            next_halts: now,
            unclaimed: Unclaimed::new(config, shared),
            foretold: (0, now),
        })
    }

    fn run(mut self, stop: &CancellationToken) -> anyhow::Result<()> {
        // The ids are there before the first claim if Kafka answers; else they are compared later.
        let ids = self.consumer.context();
        if self.asker.serve(&mut ids.topics(), BROKER_TIMEOUT) {
            self.note_obstacles();
        }
        self.consumer
            .subscribe(&topic_names(self.shared))
            .context("cannot subscribe to ingest.topics")?;
        self.shared.health.set_ready(condition::STREAMS);
        self.shared.health.set_ready(condition::GROUP);
        let result = self.poll(stop);
        self.drain();
        result
    }

    fn poll(&mut self, stop: &CancellationToken) -> anyhow::Result<()> {
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

    fn deliver(&mut self, message: &BorrowedMessage<'_>) {
        if let Some(finding) = self.hand_over(message) {
            let name = TopicPartition {
                topic: message.topic().to_owned(),
                partition: message.partition(),
            };
            self.suspect(&name, finding);
        }
    }

    /// Hands a record to its worker, or says why it cannot be one that follows.
    fn hand_over(&self, message: &BorrowedMessage<'_>) -> Option<Finding> {
        let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
        let mut partitions = self.group().partitions();
        // It may have been let go of, or wait to be claimed again; then it will be read from its
        // stored offset.
        let reading = partitions.reading(topic, partition)?;
        if reading.ending {
            // It follows what cannot be read.
            return None;
        }
        if let Some(last) = reading.unseen {
            let digest = || RawRecord::digest(message);
            match resume::compare(&last, reading.expected, offset, digest) {
                Compared::Matches | Compared::Gone => reading.seen(),
                Compared::Found(finding) => return Some(finding),
            }
        }
        if offset < reading.expected {
            // It was delivered before.
            return None;
        }
        let skipped = offset - reading.expected;
        reading.expected = offset + 1;
        reading.last = Some(offset);
        reading.log.doubted = None;
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
        None
    }

    /// The end of a partition was reached. The error names no topic, so each with that partition is
    /// looked at. A position above the last record's means control records at the end: they are
    /// skipped now, since retention could pass them before the next record comes.
    fn deliver_tail(&mut self, partition: i32) {
        let positions = match self.consumer.position() {
            Ok(positions) => positions,
            Err(error) => {
                tracing::debug!(%error, "cannot read the positions");
                return;
            }
        };
        let elements = positions.elements();
        let of_it = elements.iter().filter(|e| e.partition() == partition);
        for element in of_it {
            let position = element.offset().to_raw().filter(|offset| *offset >= 0);
            if self.hand_over_tail(element.topic(), partition, position) {
                let name = TopicPartition {
                    topic: element.topic().to_owned(),
                    partition,
                };
                self.find_short(&name);
            }
        }
    }

    /// Hands the end of a partition to its worker. Returns whether the log may end too early.
    fn hand_over_tail(&self, topic: &str, partition: i32, position: Option<i64>) -> bool {
        let mut partitions = self.group().partitions();
        let Some(reading) = partitions.reading(topic, partition) else {
            return false;
        };
        // Nothing was delivered yet: the position is where the fetching began.
        let Some(position) = position.or(reading.unseen.map(|last| last.offset)) else {
            return false;
        };
        let skipped = position - reading.expected;
        if reading.ending || skipped < 0 {
            return !reading.ending;
        }
        reading.seen();
        reading.log.doubted = None;
        if skipped > 0 {
            reading.expected = position;
            reading.worker.deliver(Delivery::Tail { skipped });
        }
        false
    }

    fn consumption_error(&mut self, error: KafkaError) -> anyhow::Result<()> {
        use RDKafkaErrorCode::{
            AutoOffsetReset, BadCompression, BadMessage, GroupAuthorizationFailed,
            MessageSizeTooLarge, NotImplemented, OffsetOutOfRange, TopicAuthorizationFailed,
            UnknownTopic, UnknownTopicId, UnknownTopicOrPartition,
        };
        match error {
            KafkaError::MessageConsumptionFatal(_) => return Err(self.fatal(error)),
            KafkaError::MessageConsumption(AutoOffsetReset | OffsetOutOfRange) => {
                self.find_out_of_range()
            }
            KafkaError::MessageConsumption(
                BadMessage | BadCompression | NotImplemented | MessageSizeTooLarge,
            ) => self.find_unreadable(),
            KafkaError::MessageConsumption(
                UnknownTopicOrPartition | UnknownTopic | UnknownTopicId | TopicAuthorizationFailed,
            ) => self.group().topics().want(),
            KafkaError::MessageConsumption(GroupAuthorizationFailed) => self.group().refused(),
            // The callback has logged it.
            _ => {}
        }
        Ok(())
    }

    /// The error after which the client library does nothing more, with what to do about it.
    fn fatal(&self, error: KafkaError) -> anyhow::Error {
        use RDKafkaErrorCode::{FencedInstanceId, GroupAuthorizationFailed, UnreleasedInstanceId};
        match self.consumer.client().fatal_error() {
            // What the classic protocol asks for again and again, KIP-848 takes for final.
            Some((GroupAuthorizationFailed, words)) => {
                self.group().refused();
                ClientEnd::Refused(words).into()
            }
            Some((code @ (FencedInstanceId | UnreleasedInstanceId), words)) => {
                let properties = &self.shared.config.kafka.properties;
                let id = properties.get(INSTANCE_ID).map_or("", String::as_str);
                let group = &self.shared.config.ingest.group_id;
                let words = format!(
                    "another process is in the group {group:?} with the group.instance.id {id:?}: give each process \
                     its own in kafka.properties, or none ({words})"
                );
                let end = if code == FencedInstanceId {
                    ClientEnd::Fenced(words)
                } else {
                    ClientEnd::Taken(words)
                };
                end.into()
            }
            Some((_, words)) => {
                anyhow::Error::new(error).context(format!("the Kafka client cannot go on: {words}"))
            }
            None => anyhow::Error::new(error).context("the Kafka client cannot go on"),
        }
    }

    /// Ends all workers after their batches under way and shows Kafka where they stopped.
    fn drain(&mut self) {
        let names = self.group().partitions().names();
        let mut readings = Vec::new();
        for name in names {
            // A client that takes this one's place may be given others.
            self.group().forget_metrics(&name);
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
