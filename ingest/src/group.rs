//! The consumer group's callbacks: partitions are claimed before they are read, and let go of only
//! after the batch under way. They run on the poll thread, inside its `poll`.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Statistics, TopicPartitionList};
use service::kafka::{Refusal, log_line, oauth_token};
use tokio::runtime::Handle;

use crate::assignment::{fetched_of, forget_pauses, names_of, show_to_kafka};
use crate::claims::{self, Claimed};
use crate::partitions::{Held, Partitions, Reading, TopicPartition};
use crate::progress::InKafka;
use crate::topics::Topics;
use crate::worker::Notice;
use crate::{Shared, condition};

/// How long the group's coordinator may be away while a broker is connected, in milliseconds.
const COORDINATOR_AWAY: i64 = 15_000;

/// The consumer's context: what the callbacks need.
pub(crate) struct Group {
    pub(crate) shared: Arc<Shared>,
    pub(crate) runtime: Handle,
    pub(crate) notices: Sender<Notice>,
    pub(crate) news: Sender<News>,
    /// Locked only between two calls of `poll` and inside callbacks, all on one thread.
    partitions: Mutex<Partitions>,
    /// What Kafka says of the topics; used as the partitions are.
    topics: Mutex<Topics>,
    /// What the client library said last about an error that `poll` returns without its words.
    last_words: Mutex<String>,
    /// Why a broker and this client do not come together, since it was last connected.
    refusal: Mutex<Option<Refusal>>,
    /// Since when the client library is connected to no broker.
    unconnected: Mutex<Option<Instant>>,
    /// What has to end the process, found inside a callback.
    fatal: Mutex<Option<anyhow::Error>>,
    /// The client is being closed: what it is told meanwhile concerns nobody.
    is_retired: AtomicBool,
}

/// What the database answered, for the poll thread.
pub(crate) enum News {
    /// What came of a claim.
    Claimed(TopicPartition, Claimed),
    /// Whether a halt stands in its stream row: not where the claim was lost before.
    HaltStored { stream_id: i64, stored: bool },
    /// The stream rows of those halted partitions that wait no longer.
    NoLongerHalted(Vec<i64>),
    /// The partitions that no process ever claimed; `None` = it could not be asked.
    NeverClaimed(Option<Vec<TopicPartition>>),
}

impl Group {
    pub(crate) fn new(
        shared: Arc<Shared>,
        runtime: Handle,
        notices: Sender<Notice>,
        news: Sender<News>,
    ) -> Self {
        Self {
            shared,
            runtime,
            notices,
            news,
            partitions: Mutex::default(),
            topics: Mutex::default(),
            last_words: Mutex::default(),
            refusal: Mutex::default(),
            unconnected: Mutex::default(),
            fatal: Mutex::default(),
            is_retired: AtomicBool::new(false),
        }
    }

    pub(crate) fn partitions(&self) -> MutexGuard<'_, Partitions> {
        self.partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn topics(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The words of the error that `poll` has just returned.
    pub(crate) fn last_words(&self) -> String {
        let last_words = &self.last_words;
        last_words
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// From now on the client changes nothing that it shares with the next one.
    pub(crate) fn retire(&self) {
        self.is_retired.store(true, Ordering::SeqCst);
    }

    fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::SeqCst)
    }

    /// Since when the client library is connected to no broker, if that is so.
    pub(crate) fn unconnected(&self) -> Option<Instant> {
        let unconnected = &self.unconnected;
        *unconnected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What keeps this client from its brokers in TLS or at the login, if it is that.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts what is known of a refusal behind a reason, in words that name the setting.
    pub(crate) fn explained(&self, reason: String) -> String {
        match self.refusal() {
            Some(refusal) => {
                let advice = refusal.advice(&self.shared.config.kafka);
                format!("{reason}; {advice}")
            }
            None => reason,
        }
    }

    fn note_refusal(&self, refusal: Option<Refusal>) {
        let mut known = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        // A host may have two addresses, and nobody listen at the other one.
        if refusal.is_none() || !known.is_some_and(Refusal::is_final) {
            *known = refusal;
        }
    }

    fn note_connected(&self, is_connected: bool) {
        if is_connected {
            self.note_refusal(None);
        }
        let unconnected = self.unconnected.lock();
        let mut unconnected = unconnected.unwrap_or_else(PoisonError::into_inner);
        *unconnected = match *unconnected {
            _ if is_connected => None,
            None => Some(Instant::now()),
            since => since,
        };
    }

    /// What has to end the process, if anything.
    pub(crate) fn take_fatal(&self) -> Option<anyhow::Error> {
        self.fatal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    pub(crate) fn set_fatal(&self, error: anyhow::Error) {
        *self.fatal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// This client may not take part in the group. So it stays until it is a member.
    pub(crate) fn refused(&self) {
        let group = &self.shared.config.ingest.group_id;
        self.not_in_group(format!(
            "Kafka refuses the consumer group {group:?} (ingest.group_id): allow READ of that group"
        ));
    }

    fn not_in_group(&self, reason: String) {
        let health = &self.shared.health;
        if health.is_met(condition::GROUP) {
            tracing::warn!("{reason}");
        }
        health.set_unready(condition::GROUP, reason);
    }

    /// Whether this client is a member of the group, as far as the client library knows. It says only
    /// once that its coordinator refuses it.
    fn note_group(&self, statistics: &Statistics) {
        let Some(group) = &statistics.cgrp else {
            return;
        };
        if group.state == "up" {
            if group.join_state == "steady" {
                self.shared.health.set_ready(condition::GROUP);
            }
        } else if group.stateage >= COORDINATOR_AWAY && self.unconnected().is_none() {
            let name = &self.shared.config.ingest.group_id;
            self.not_in_group(format!(
                "the coordinator of the consumer group {name:?} does not answer, or refuses: is READ of that group \
                 allowed?"
            ));
        }
    }

    fn assigned(&self, consumer: &BaseConsumer<Self>, names: &[TopicPartition]) {
        let claimed = self.claim_all(names.iter().map(|name| (name, None)).collect());
        // A partition that the log has never read begins where Kafka's copy of it begins.
        let (never_read, mut claimed): (Vec<_>, Vec<_>) = claimed
            .into_iter()
            .partition(|(_, claim)| matches!(claim, Claimed::NeverRead));
        let never_read: Vec<_> = never_read.into_iter().map(|(name, _)| name).collect();
        let mut again = Vec::new();
        for (name, start) in never_read
            .iter()
            .zip(claims::first_offsets(consumer, &never_read))
        {
            match start {
                Ok(start) => again.push((*name, Some(start))),
                Err(reason) => claimed.push((*name, Claimed::Later(reason))),
            }
        }
        claimed.extend(self.claim_all(again));
        let mut list = TopicPartitionList::new();
        for (name, claim) in claimed {
            self.take(name, claim, &mut list);
        }
        failpoints::hit("ingest.claimed");
        if let Err(error) = self.assign(consumer, &list) {
            self.set_fatal(
                anyhow::Error::new(error).context("the Kafka client refuses the assignment"),
            );
        }
    }

    fn claim_all<'n>(
        &self,
        wanted: Vec<(&'n TopicPartition, Option<i64>)>,
    ) -> Vec<(&'n TopicPartition, Claimed)> {
        let shared = &self.shared;
        self.runtime.block_on(async {
            let claim = |(name, start): (&'n TopicPartition, Option<i64>)| async move {
                (name, claims::claim(shared, name, start).await)
            };
            // Each is bounded in time, and so are all of them together.
            futures_util::future::join_all(wanted.into_iter().map(claim)).await
        })
    }

    fn revoked(&self, consumer: &BaseConsumer<Self>, names: &[TopicPartition]) {
        let mut readings = Vec::new();
        for name in names {
            self.forget_metrics(name);
            if let Some(Held::Reading(reading)) = self.partitions().remove(name) {
                readings.push((name.clone(), reading));
            }
        }
        forget_pauses(consumer, &readings);
        let stored = self.stop_all(readings);
        if !consumer.assignment_lost() {
            show_to_kafka(consumer, &stored);
        }
        if let Err(error) = fetch_no_more(consumer, names) {
            tracing::error!(%error, "the Kafka client refuses to let the partitions go");
        }
        tracing::info!(partitions = names.len(), "let go of partitions");
    }

    /// Ends workers after their batches under way, within the drain's bound; returns the offsets
    /// that they leave stored.
    pub(crate) fn stop_all(
        &self,
        readings: Vec<(TopicPartition, Reading)>,
    ) -> Vec<(TopicPartition, i64)> {
        let deadline = tokio::time::Instant::now() + self.shared.config.ingest.drain_timeout;
        readings
            .iter()
            .for_each(|(_, reading)| reading.worker.stop());
        let mut stored = Vec::new();
        self.runtime.block_on(async {
            for (name, reading) in readings {
                stored.push((name, reading.worker.ended(deadline).await));
            }
        });
        stored
    }
}

/// The client library's answer to a rebalance, by the protocol's own means: these partitions are not
/// fetched any more.
fn fetch_no_more(consumer: &BaseConsumer<Group>, names: &[TopicPartition]) -> KafkaResult<()> {
    match consumer.rebalance_protocol() {
        RebalanceProtocol::Cooperative => {
            fetched_of(consumer, names).and_then(|list| consumer.incremental_unassign(&list))
        }
        _ => consumer.unassign(),
    }
}

/// Whether the client library is connected to the broker with this id.
fn is_up(statistics: &Statistics, broker: i32) -> bool {
    let mut brokers = statistics.brokers.values();
    brokers.any(|known| known.nodeid == broker && known.state == "UP")
}

/// Whether the client library is connected to any broker.
fn is_connected(statistics: &Statistics) -> bool {
    let mut brokers = statistics.brokers.values();
    brokers.any(|known| known.source != "logical" && known.state == "UP")
}

impl ClientContext for Group {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, path: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        oauth_token(path)
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        let refusal = log_line(level, facility, line).and_then(Refusal::of);
        if refusal.is_some() {
            self.note_refusal(refusal);
        }
    }

    fn stats(&self, statistics: Statistics) {
        if self.is_retired() {
            return;
        }
        self.note_connected(is_connected(&statistics));
        self.note_group(&statistics);
        let (mut partitions, topics) = (self.partitions(), self.topics());
        for (topic, partition, reading) in partitions.readings() {
            let known = statistics
                .topics
                .get(topic)
                .and_then(|t| t.partitions.get(&partition));
            let Some(known) = known else { continue };
            let end = if known.ls_offset >= 0 {
                known.ls_offset
            } else {
                known.hi_offset
            };
            reading.worker.note_kafka(InKafka {
                end,
                fetched: known.next_offset,
                is_fetchable: is_up(&statistics, known.leader) && topics.is_readable(topic),
            });
            if end >= 0 {
                let lag = (end - reading.worker.stored()).max(0);
                let partition = partition.to_string();
                self.shared
                    .metrics
                    .lag
                    .with_label_values(&[topic, &partition])
                    .set(lag);
            }
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if matches!(error, KafkaError::Global(RDKafkaErrorCode::PartitionEOF)) {
            // The end of a partition, which poll returns too.
            return;
        }
        if self.is_retired() {
            tracing::debug!(%error, reason, "a Kafka client that is being closed reports an error");
            return;
        }
        let refusal = Refusal::of(reason);
        if refusal.is_some() {
            self.note_refusal(refusal);
        }
        // While Kafka is away the same is said many times a second.
        if self.last_words() == reason {
            tracing::debug!(%error, reason, "the Kafka client reports the same error");
        } else {
            let advice = refusal.map(|refusal| refusal.advice(&self.shared.config.kafka));
            tracing::warn!(%error, reason, advice, "the Kafka client reports an error");
        }
        let last_words = &self.last_words;
        reason.clone_into(&mut last_words.lock().unwrap_or_else(PoisonError::into_inner));
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            let servers = &self.shared.config.kafka.bootstrap_servers;
            let reason = self.explained(format!(
                "no broker of kafka.bootstrap_servers = {servers} can be reached: {reason}"
            ));
            self.shared.health.set_unready(condition::KAFKA, reason);
        }
    }
}

impl ConsumerContext for Group {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let names = names_of(list);
        match error {
            _ if self.is_retired() => {
                // It holds nothing any more, and must claim nothing from the next client.
                if let Err(error) = fetch_no_more(consumer, &names) {
                    tracing::debug!(%error, "the Kafka client refuses to let the partitions go");
                }
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => self.assigned(consumer, &names),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => self.revoked(consumer, &names),
            other => {
                tracing::error!(error = ?other, "the rebalance failed; letting go of everything");
                let held = self.partitions().names();
                self.revoked(consumer, &held);
            }
        }
    }
}
