//! What becomes of a partition once it is claimed: it is read, claimed again later, or waits for an
//! operator. Called by the group's callbacks ([`crate::group`]) and by [`crate::poll`].

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_log::{Claim, Halt};
use rdkafka::{Offset, TopicPartitionList};
use service::backoff::Backoff;

use crate::claims::{self, Claimed};
use crate::group::{Group, News};
use crate::partitions::{Halted, Held, KnownLog, Reading, TopicPartition, Waiting};
use crate::resume::{self, Finding, Verdict};
use crate::worker::Worker;

impl Group {
    /// Files a claim's result; what is ours is added to `list`, with its offset.
    pub(crate) fn take(
        &self,
        name: &TopicPartition,
        claimed: Claimed,
        list: &mut TopicPartitionList,
    ) {
        let before = match self.partitions().remove(name) {
            Some(Held::Waiting(waiting)) => waiting,
            _ => Waiting::now(),
        };
        let held = match claimed {
            Claimed::Ours(claim) => self.take_claim(name, claim, before, list),
            Claimed::NeverRead => Held::Waiting(before.again(None)),
            Claimed::Later(reason) => {
                tracing::warn!(partition = %name, reason, "cannot claim it now; trying again");
                Held::Waiting(before.again(Some(format!("cannot claim {name}: {reason}"))))
            }
            Claimed::Never(error) => {
                self.set_fatal(anyhow::Error::new(error));
                Held::Waiting(before.again(None))
            }
        };
        self.partitions().insert(name, held);
    }

    fn take_claim(
        &self,
        name: &TopicPartition,
        claim: Claim,
        mut waiting: Waiting,
        list: &mut TopicPartitionList,
    ) -> Held {
        if let Some(Halt { code, reason }) = claim.halted {
            return Held::Halted(self.halted(name, claim.stream_id, true, code, reason));
        }
        if self.topics().seems_another(&name.topic, claim.topic_id) {
            let since = *waiting.log.id_doubted.get_or_insert_with(Instant::now);
            let identity = self.topics().identity(&name.topic, claim.topic_id, since);
            let place = resume::Place {
                next: claim.next_offset,
                last: claim.last_record.map(|last| last.offset),
                looked: false,
            };
            match resume::verdict(Finding::OtherTopic, identity, place) {
                Verdict::GoOn => {}
                Verdict::Look => {
                    let trouble = format!("{name}: asking Kafka whether its topic is another now");
                    return Held::Waiting(waiting.again(Some(trouble)));
                }
                Verdict::Halt(halt) => return self.halt(name, claim, halt.label, halt.reason),
            }
        }
        self.read(name, claim, waiting, list)
    }

    /// Starts reading a partition; it is added to `list`, with the offset to fetch from.
    fn read(
        &self,
        name: &TopicPartition,
        claim: Claim,
        waiting: Waiting,
        list: &mut TopicPartitionList,
    ) -> Held {
        tracing::info!(
            partition = %name, generation = claim.generation, offset = claim.next_offset, "claimed"
        );
        let worker = Worker::start(
            &self.runtime,
            Arc::clone(&self.shared),
            claim,
            self.notices.clone(),
        );
        let reading = Reading::new(worker, waiting.log, waiting.backoff);
        let from = Offset::Offset(reading.fetch_from());
        if let Err(error) = list.add_partition_offset(&name.topic, name.partition, from) {
            let context = format!("{name} cannot be read from {from:?}");
            self.set_fatal(anyhow::Error::new(error).context(context));
        }
        Held::Reading(reading)
    }

    /// Halts a claimed partition: says so, and has it stored.
    pub(crate) fn halt(
        &self,
        name: &TopicPartition,
        claim: Claim,
        label: &str,
        reason: String,
    ) -> Held {
        let stream_id = claim.stream_id;
        let halted = self.halted(name, stream_id, false, label.to_owned(), reason.clone());
        let (shared, news) = (Arc::clone(&self.shared), self.news.clone());
        let label = label.to_owned();
        self.runtime.spawn(async move {
            let stored = claims::store_halt(&shared.pool, &claim, &label, &reason).await;
            // The receiver is gone only at shutdown.
            let _ = news.send(News::HaltStored { stream_id, stored });
        });
        Held::Halted(halted)
    }

    /// Shows a partition as halted, in the log and the metrics; /readyz follows.
    fn halted(
        &self,
        name: &TopicPartition,
        stream_id: i64,
        stored: bool,
        code: String,
        reason: String,
    ) -> Halted {
        tracing::error!(partition = %name, code, reason, "halted: it waits for an operator");
        let partition = name.partition.to_string();
        self.shared
            .metrics
            .halted
            .with_label_values(&[name.topic.as_str(), &partition, code.as_str()])
            .set(1);
        Halted {
            stream_id,
            stored,
            code,
            reason,
        }
    }

    /// Takes back what is measured of a partition that is let go of, or halted no more.
    pub(crate) fn forget_metrics(&self, name: &TopicPartition) {
        let partition = name.partition.to_string();
        // Absent where nothing was ever measured.
        let _ = self
            .shared
            .metrics
            .lag
            .remove_label_values(&[name.topic.as_str(), &partition]);
        if let Some(Held::Halted(halted)) = self.partitions().get_mut(&name.topic, name.partition) {
            let _ = self.shared.metrics.halted.remove_label_values(&[
                name.topic.as_str(),
                &partition,
                halted.code.as_str(),
            ]);
        }
    }
}

impl Waiting {
    /// To be claimed at once.
    pub(crate) fn now() -> Self {
        Self {
            retry_at: Instant::now(),
            backoff: Backoff::new(Duration::from_millis(500), Duration::from_secs(10)),
            claiming: false,
            trouble: None,
            log: KnownLog::default(),
        }
    }

    /// To be claimed again after the next delay, because of this trouble.
    pub(crate) fn again(mut self, trouble: Option<String>) -> Self {
        self.retry_at = Instant::now() + self.backoff.next_delay();
        self.claiming = false;
        self.trouble = trouble;
        self
    }
}
