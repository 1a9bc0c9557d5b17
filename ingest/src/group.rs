//! The consumer group's callbacks: partitions are claimed before they are read, and let go of only
//! after the batch under way. They run on the poll thread, inside its `poll`.

use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use event_log::Halt;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};
use tokio::runtime::Handle;

use crate::claims::{self, Claimed};
use crate::partitions::{Held, Partitions, Reading, TopicPartition, Waiting};
use crate::worker::{Notice, Worker};
use crate::{Shared, condition};

/// The consumer's context: what the callbacks need.
pub(crate) struct Group {
    pub(crate) shared: Arc<Shared>,
    pub(crate) runtime: Handle,
    pub(crate) notices: Sender<Notice>,
    /// Locked only between two calls of `poll` and inside callbacks, all on one thread.
    partitions: Mutex<Partitions>,
    /// What the client library said last about an error that `poll` returns without its words.
    last_words: Mutex<String>,
    /// What has to end the process, found inside a callback.
    fatal: Mutex<Option<anyhow::Error>>,
}

impl Group {
    pub(crate) fn new(shared: Arc<Shared>, runtime: Handle, notices: Sender<Notice>) -> Self {
        Self {
            shared,
            runtime,
            notices,
            partitions: Mutex::default(),
            last_words: Mutex::default(),
            fatal: Mutex::default(),
        }
    }

    pub(crate) fn partitions(&self) -> MutexGuard<'_, Partitions> {
        self.partitions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The words of the error that `poll` has just returned.
    pub(crate) fn last_words(&self) -> String {
        let last_words = &self.last_words;
        last_words
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
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

    fn assigned(&self, consumer: &BaseConsumer<Self>, names: &[TopicPartition]) {
        let claimed = self.claim_all(names.iter().map(|name| (name, None)).collect());
        // A partition that the log has never read begins where Kafka's copy of it begins. Brokers that
        // do not answer for one partition are not asked for the others: the callback has to return.
        let (never_read, mut claimed): (Vec<_>, Vec<_>) = claimed
            .into_iter()
            .partition(|(_, claim)| matches!(claim, Claimed::NeverRead));
        let mut again = Vec::new();
        let mut silent: Option<String> = None;
        for (name, _) in never_read {
            match silent
                .clone()
                .map_or_else(|| claims::first_offset(consumer, name), Err)
            {
                Ok(start) => again.push((name, Some(start))),
                Err(reason) => {
                    silent = Some(reason.clone());
                    claimed.push((name, Claimed::Later(reason)));
                }
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
                (
                    name,
                    claims::claim(&shared.pool, &shared.claimant, name, start).await,
                )
            };
            // Each is bounded in time, and so are all of them together.
            futures_util::future::join_all(wanted.into_iter().map(claim)).await
        })
    }

    /// Files a claim's result; what is ours is added to `list`, with its offset.
    pub(crate) fn take(
        &self,
        name: &TopicPartition,
        claimed: Claimed,
        list: &mut TopicPartitionList,
    ) {
        let held = match claimed {
            Claimed::Ours(claim) => {
                tracing::info!(
                    partition = %name, generation = claim.generation, offset = claim.next_offset, "claimed"
                );
                let expected = claim.next_offset;
                let offset = list.add_partition_offset(
                    &name.topic,
                    name.partition,
                    Offset::Offset(expected),
                );
                if let Err(error) = offset {
                    self.set_fatal(
                        anyhow::Error::new(error)
                            .context(format!("{name} has the offset {expected}")),
                    );
                }
                let worker = Worker::start(
                    &self.runtime,
                    Arc::clone(&self.shared),
                    claim,
                    self.notices.clone(),
                );
                Held::Reading(Reading {
                    worker,
                    expected,
                    paused: false,
                    halting: false,
                    shown_to_kafka: -1,
                })
            }
            Claimed::Halted(Halt { code, reason }) => {
                tracing::error!(partition = %name, code, reason, "halted: it waits for an operator");
                self.show_halted(name, &code, &reason);
                Held::Halted(code)
            }
            Claimed::NeverRead => Held::Waiting(Waiting::soon()),
            Claimed::Later(reason) => {
                tracing::warn!(partition = %name, reason, "cannot claim it now; trying again");
                let trouble = Some(format!("cannot claim {name}: {reason}"));
                Held::Waiting(Waiting {
                    trouble,
                    ..Waiting::soon()
                })
            }
            Claimed::Never(error) => {
                self.set_fatal(anyhow::Error::new(error));
                Held::Waiting(Waiting::soon())
            }
        };
        self.partitions().insert(name, held);
    }

    /// Shows a partition as halted, in /readyz and the metrics.
    pub(crate) fn show_halted(&self, name: &TopicPartition, label: &str, reason: &str) {
        self.shared
            .health
            .set_unready(condition::STREAMS, format!("{name} is halted: {reason}"));
        let partition = name.partition.to_string();
        self.shared
            .metrics
            .halted
            .with_label_values(&[name.topic.as_str(), &partition, label])
            .set(1);
    }

    /// Adds `list` to what is fetched, by the protocol's own means.
    pub(crate) fn assign(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &TopicPartitionList,
    ) -> KafkaResult<()> {
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_assign(list),
            // The eager protocol knows only whole assignments: everything that is read, where it is.
            _ => consumer.assign(&self.whole_assignment()?),
        }
    }

    /// Takes one partition out of what is fetched. It must no longer be among the partitions.
    pub(crate) fn unassign(
        &self,
        consumer: &BaseConsumer<Self>,
        name: &TopicPartition,
    ) -> KafkaResult<()> {
        match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => {
                let mut list = TopicPartitionList::new();
                list.add_partition(&name.topic, name.partition);
                consumer.incremental_unassign(&list)
            }
            _ => consumer.assign(&self.whole_assignment()?),
        }
    }

    fn whole_assignment(&self) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for (topic, partition, reading) in self.partitions().readings() {
            list.add_partition_offset(topic, partition, Offset::Offset(reading.expected))?;
        }
        Ok(list)
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
        let result = match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => {
                fetched_of(consumer, names).and_then(|list| consumer.incremental_unassign(&list))
            }
            _ => consumer.unassign(),
        };
        if let Err(error) = result {
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

    fn forget_metrics(&self, name: &TopicPartition) {
        let partition = name.partition.to_string();
        // Absent where nothing was ever measured.
        let _ = self
            .shared
            .metrics
            .lag
            .remove_label_values(&[name.topic.as_str(), &partition]);
        if let Some(Held::Halted(label)) = self.partitions().get_mut(&name.topic, name.partition) {
            let _ = self.shared.metrics.halted.remove_label_values(&[
                name.topic.as_str(),
                &partition,
                label.as_str(),
            ]);
        }
    }
}

impl Waiting {
    /// To be claimed again soon.
    pub(crate) fn soon() -> Self {
        use std::time::Duration;
        let mut backoff =
            service::backoff::Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
        Self {
            retry_at: Instant::now() + backoff.next_delay(),
            backoff,
            claiming: false,
            trouble: None,
        }
    }
}

/// Writes stored offsets to Kafka, for tools that show lag. Nothing is ever read back from there.
pub(crate) fn show_to_kafka(consumer: &BaseConsumer<Group>, stored: &[(TopicPartition, i64)]) {
    let mut list = TopicPartitionList::new();
    for (name, offset) in stored {
        if let Err(error) =
            list.add_partition_offset(&name.topic, name.partition, Offset::Offset(*offset))
        {
            tracing::debug!(%error, partition = %name, "not an offset for Kafka");
        }
    }
    failpoints::hit("ingest.before_show");
    if list.count() > 0
        && let Err(error) = consumer.commit(&list, CommitMode::Async)
    {
        tracing::debug!(%error, "cannot show the offsets to Kafka");
    }
}

/// Takes back the pauses of partitions that are let go of: the client library keeps a pause beyond the
/// assignment, and a partition that comes back would never be fetched again.
pub(crate) fn forget_pauses(consumer: &BaseConsumer<Group>, let_go: &[(TopicPartition, Reading)]) {
    let mut list = TopicPartitionList::new();
    for (name, _) in let_go.iter().filter(|(_, reading)| reading.paused) {
        list.add_partition(&name.topic, name.partition);
    }
    if list.count() > 0
        && let Err(error) = consumer.resume(&list)
    {
        tracing::warn!(%error, "cannot resume partitions that are let go of");
    }
}

/// Those of the partitions that the client library fetches: not the ones that wait or are halted.
fn fetched_of(
    consumer: &BaseConsumer<Group>,
    names: &[TopicPartition],
) -> KafkaResult<TopicPartitionList> {
    let fetched = names_of(&consumer.assignment()?);
    let mut list = TopicPartitionList::new();
    for name in names.iter().filter(|name| fetched.contains(name)) {
        list.add_partition(&name.topic, name.partition);
    }
    Ok(list)
}

fn names_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    let name =
        |element: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| TopicPartition {
            topic: element.topic().to_owned(),
            partition: element.partition(),
        };
    list.elements().into_iter().map(name).collect()
}

impl ClientContext for Group {
    fn stats(&self, statistics: Statistics) {
        let mut partitions = self.partitions();
        for (topic, partition, reading) in partitions.readings() {
            let known = statistics
                .topics
                .get(topic)
                .and_then(|t| t.partitions.get(&partition));
            let Some(end) = known.map(|p| {
                if p.ls_offset >= 0 {
                    p.ls_offset
                } else {
                    p.hi_offset
                }
            }) else {
                continue;
            };
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
        tracing::warn!(%error, reason, "the Kafka client reports an error");
        let last_words = &self.last_words;
        reason.clone_into(&mut last_words.lock().unwrap_or_else(PoisonError::into_inner));
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            let servers = &self.shared.config.kafka.bootstrap_servers;
            let reason = format!(
                "no broker of kafka.bootstrap_servers = {servers} can be reached: {reason}"
            );
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
