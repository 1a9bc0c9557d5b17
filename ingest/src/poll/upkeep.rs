//! What the poll thread does between polls: notices of workers, claims, pauses, offsets for the lag
//! tools, Kafka's health.

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_log::{Claim, stream};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::Consumer;
use uuid::Uuid;

use super::Poller;
use super::membership::ClientEnd;
use crate::assignment::{forget_pauses, show_to_kafka};
use crate::claims::{self, Claimed};
use crate::condition;
use crate::group::News;
use crate::partitions::{Held, TopicPartition, Waiting};
use crate::topics::Obstacle;
use crate::worker::{Ended, Notice};

/// How often stored offsets are written to Kafka for the lag tools.
const SHOW_TO_KAFKA: Duration = Duration::from_secs(1);
/// How often it is asked whether Kafka can be reached, where something speaks against it.
const ASK_KAFKA: Duration = Duration::from_secs(2);
/// How often the stream rows of halted partitions are looked at.
const LOOK_AT_HALTS: Duration = Duration::from_secs(2);

impl Poller<'_> {
    pub(super) fn housekeeping(&mut self, now: Instant) -> anyhow::Result<()> {
        while let Ok(notice) = self.notices.try_recv() {
            self.ended(notice);
        }
        while let Ok(news) = self.news.try_recv() {
            self.take_news(news);
        }
        if let Some(error) = self.group().take_fatal() {
            return Err(error);
        }
        let (settings, renewal) = self.settings;
        if settings.renewals() != renewal {
            return Err(ClientEnd::renewed());
        }
        self.resume();
        self.claim_again(now);
        self.note_health();
        let ids = self.consumer.context();
        if self.asker.serve(&mut ids.topics(), Duration::ZERO) {
            self.compare_topics();
            self.note_obstacles();
        }
        self.look_for_unclaimed(now);
        if now >= self.next_halts {
            self.next_halts = now + LOOK_AT_HALTS;
            self.look_at_halts();
        }
        if now >= self.next_show {
            self.next_show = now + SHOW_TO_KAFKA;
            self.show_to_kafka();
        }
        if now >= self.next_ask {
            self.ask_kafka(now)?;
            self.next_ask = Instant::now() + ASK_KAFKA;
        }
        Ok(())
    }

    /// A worker ended by itself: its partition is not fetched any more until it is claimed again.
    pub(super) fn ended(&mut self, notice: Notice) {
        let Notice {
            partition: name,
            worker,
            ended,
        } = notice;
        let (claim, waiting) = match self
            .group()
            .partitions()
            .reading(&name.topic, name.partition)
        {
            Some(reading) if reading.worker.id == worker => {
                (reading.worker.claim().clone(), reading.waiting())
            }
            // It was let go of in the meantime.
            _ => return,
        };
        let removed = self.group().partitions().remove(&name);
        if let Some(Held::Reading(reading)) = removed {
            reading.worker.stop();
            forget_pauses(self.consumer, &[(name.clone(), reading)]);
        }
        if let Err(error) = self.group().unassign(self.consumer, &name) {
            tracing::error!(%error, partition = %name, "the Kafka client refuses to let the partition go");
        }
        let held = match ended {
            Ended::Reclaim(reason) => {
                tracing::warn!(partition = %name, reason, "claiming the partition again");
                Held::Waiting(waiting.again(None))
            }
            Ended::Halt(label, reason) => self.group().halt(&name, claim, label, reason),
            Ended::Fatal(error) => {
                self.group().set_fatal(error);
                return;
            }
        };
        self.group().partitions().insert(&name, held);
    }

    fn take_news(&mut self, news: News) {
        match news {
            News::Claimed(partition, claimed) => self.claim_answered(&partition, claimed),
            News::HaltStored { stream_id, stored } => {
                let Some(name) = self.group().partitions().halted_with(stream_id) else {
                    return;
                };
                if stored {
                    self.group().partitions().halt_stored(&name);
                } else {
                    self.look_again(&name);
                }
            }
            News::NeverClaimed(partitions) => self.share_again(partitions),
            News::NoLongerHalted(streams) => {
                for stream_id in streams {
                    let name = self.group().partitions().halted_with(stream_id);
                    if let Some(name) = name {
                        self.look_again(&name);
                    }
                }
            }
        }
    }

    /// A halted partition waits no longer: it is claimed again.
    fn look_again(&self, name: &TopicPartition) {
        tracing::info!(partition = %name, "no longer halted");
        self.group().forget_metrics(name);
        self.group()
            .partitions()
            .insert(name, Held::Waiting(Waiting::now()));
    }

    /// Asks whether an operator has decided about the halted partitions, if there are some.
    fn look_at_halts(&self) {
        let streams = self.group().partitions().halted_streams();
        if streams.is_empty() {
            return;
        }
        let (shared, news) = (Arc::clone(self.shared), self.group().news.clone());
        self.group().runtime.spawn(async move {
            match stream::no_longer_halted(&shared.pool, &streams).await {
                // The receiver is gone only at shutdown.
                Ok(streams) => drop(news.send(News::NoLongerHalted(streams))),
                // Asked again in a moment.
                Err(error) => tracing::debug!(%error, "cannot look at the halted partitions"),
            }
        });
    }

    /// Stores the topic's id, for the claims to come.
    pub(super) fn note_topic(&self, claim: Claim, topic_id: Uuid) {
        let shared = Arc::clone(self.shared);
        self.group().runtime.spawn(async move {
            if let Err(error) = stream::note_topic_id(&shared.pool, &claim, topic_id).await {
                tracing::debug!(%error, topic = claim.topic, "cannot store the topic's id");
            }
        });
    }

    /// Lets Kafka deliver again where the worker holds no more than half of its share.
    fn resume(&self) {
        let mut list = TopicPartitionList::new();
        for (topic, partition, reading) in self.group().partitions().readings() {
            if reading.paused && !reading.ending && reading.worker.has_room() {
                reading.paused = false;
                tracing::debug!(topic, partition, next = reading.expected, "resumed");
                list.add_partition(topic, partition);
            }
        }
        if list.count() > 0
            && let Err(error) = self.consumer.resume(&list)
        {
            tracing::warn!(%error, "cannot resume partitions");
        }
    }

    /// Starts the claims that are due. They run beside this thread, which goes on polling.
    fn claim_again(&self, now: Instant) {
        if self.consumer.assignment_lost() {
            // The group has given the partitions to others; the callback will say so.
            return;
        }
        for (topic, partition, held) in self.group().partitions().iter_mut() {
            if let Held::Waiting(waiting) = held
                && !waiting.claiming
                && now >= waiting.retry_at
            {
                waiting.claiming = true;
                self.spawn_claim(
                    TopicPartition {
                        topic: topic.to_owned(),
                        partition,
                    },
                    None,
                );
            }
        }
    }

    fn spawn_claim(&self, name: TopicPartition, start: Option<i64>) {
        let (shared, news) = (Arc::clone(self.shared), self.group().news.clone());
        self.group().runtime.spawn(async move {
            let claim = claims::claim(&shared, &name, start).await;
            // The receiver is gone only at shutdown.
            let _ = news.send(News::Claimed(name, claim));
        });
    }

    fn claim_answered(&self, name: &TopicPartition, claimed: Claimed) {
        if !matches!(
            self.group()
                .partitions()
                .get_mut(&name.topic, name.partition),
            Some(Held::Waiting(_))
        ) {
            // It was let go of in the meantime; its owner claims it with a token of its own.
            return;
        }
        let claimed = match claimed {
            Claimed::NeverRead => match claims::first_offsets(self.consumer, &[name]).pop() {
                Some(Ok(start)) => return self.spawn_claim(name.clone(), Some(start)),
                Some(Err(reason)) => Claimed::Later(reason),
                None => Claimed::NeverRead,
            },
            other => other,
        };
        if let Claimed::Later(reason) = claimed {
            return self.claim_later(name, &reason);
        }
        let mut list = TopicPartitionList::new();
        self.group().take(name, claimed, &mut list);
        if list.count() > 0
            && let Err(error) = self.group().assign(self.consumer, &list)
        {
            tracing::error!(%error, partition = %name, "the Kafka client refuses the partition; trying again");
            let mut partitions = self.group().partitions();
            if let Some(Held::Reading(reading)) = partitions.remove(name) {
                reading.worker.stop();
            }
            partitions.insert(name, Held::Waiting(Waiting::now().again(None)));
        }
    }

    fn claim_later(&self, name: &TopicPartition, reason: &str) {
        tracing::warn!(partition = %name, reason, "cannot claim it now; trying again");
        if let Some(Held::Waiting(waiting)) = self
            .group()
            .partitions()
            .get_mut(&name.topic, name.partition)
        {
            waiting.claiming = false;
            waiting.trouble = Some(format!("cannot claim {name}: {reason}"));
            waiting.retry_at = Instant::now() + waiting.backoff.next_delay();
        }
    }

    fn show_to_kafka(&self) {
        // What is sent while the connection is gone arrives when this is another member of the group, and
        // makes the broker take a static one for two.
        if self.group().unconnected().is_some() || !self.shared.health.is_met(condition::KAFKA) {
            return;
        }
        let mut stored = Vec::new();
        for (topic, partition, reading) in self.group().partitions().readings() {
            let offset = reading.worker.stored();
            if offset != reading.shown_to_kafka {
                reading.shown_to_kafka = offset;
                stored.push((
                    TopicPartition {
                        topic: topic.to_owned(),
                        partition,
                    },
                    offset,
                ));
            }
        }
        show_to_kafka(self.consumer, &stored);
    }

    /// Says whether the topics can be read.
    pub(super) fn note_obstacles(&self) {
        let topics = self.group().topics();
        let words = |(topic, obstacle): (&str, Obstacle)| match obstacle {
            Obstacle::Missing => {
                format!(
                    "the topic {topic:?} of ingest.topics does not exist: create it, or correct the name"
                )
            }
            Obstacle::Refused => {
                format!("Kafka refuses the topic {topic:?} of ingest.topics: allow READ of it")
            }
        };
        let reasons: Vec<String> = topics.obstacles().map(words).collect();
        let health = &self.shared.health;
        if reasons.is_empty() {
            health.set_ready(condition::TOPICS);
            return;
        }
        let reason = reasons.join("; ");
        if health.is_met(condition::TOPICS) {
            tracing::warn!("{reason}");
        }
        health.set_unready(condition::TOPICS, reason);
    }

    /// Says whether the partitions that are held here do well. Those that were let go of count no
    /// more, whatever state they were in.
    fn note_health(&self) {
        let health = &self.shared.health;
        let mut partitions = self.group().partitions();
        match partitions.trouble() {
            Some(reason) => health.set_unready(condition::DATABASE, reason),
            None => health.set_ready(condition::DATABASE),
        }
        match partitions.halted() {
            Some(reason) => health.set_unready(condition::STREAMS, reason),
            None => health.set_ready(condition::STREAMS),
        }
    }
}
