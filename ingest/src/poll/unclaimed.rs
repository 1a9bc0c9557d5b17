//! Partitions that the group has given to nobody. Called by the poll thread.
//!
//! The leader of a classic group shares the partitions, and shares them anew when the topics get more. A
//! static member that was restarted by its name gets back what it had, without a word that it is still
//! the leader (KIP-814 mends that with a request that librdkafka does not speak), and what was added
//! while it was away goes to nobody. A member that subscribes again joins again: the broker takes that of
//! its leader for a wish to share anew, and gives others what they had.

use std::sync::Arc;
use std::time::{Duration, Instant};

use event_log::stream;
use rdkafka::ClientConfig;
use rdkafka::consumer::Consumer;
use service::kafka::{INSTANCE_ID, is_new_group_protocol};

use super::{Poller, topic_names};
use crate::Shared;
use crate::group::News;
use crate::partitions::TopicPartition;

/// How often it is looked for them.
const LOOK: Duration = Duration::from_secs(10);
/// In so many looks one after the other a partition is seen before anything is done. A leader that knows
/// its duty needs less: it asks for the topics every 30 s (`topic.metadata.refresh.interval.ms`).
const LOOKS: u32 = 4;

/// What the last looks have seen.
pub(super) struct Unclaimed {
    /// Whether there can be any.
    is_possible: bool,
    next_look: Instant,
    /// In how many looks there were some.
    looks: u32,
}

impl Unclaimed {
    pub(super) fn new(config: &ClientConfig, shared: &Shared) -> Self {
        let is_classic = !is_new_group_protocol(&shared.config.kafka.properties);
        Self {
            is_possible: is_classic && config.get(INSTANCE_ID).is_some(),
            next_look: Instant::now() + LOOK,
            looks: 0,
        }
    }
}

impl Poller<'_> {
    /// Asks the database now and then which of the topics' partitions no process ever claimed.
    pub(super) fn look_for_unclaimed(&mut self, now: Instant) {
        if !self.unclaimed.is_possible || now < self.unclaimed.next_look {
            return;
        }
        self.unclaimed.next_look = now + LOOK;
        let topics = self.group().topics();
        let all = topics.partitions().flat_map(|(topic, partitions)| {
            let name = |partition| TopicPartition {
                topic: topic.to_owned(),
                partition,
            };
            (0..partitions).map(name)
        });
        let all: Vec<TopicPartition> = all.collect();
        let (shared, news) = (Arc::clone(self.shared), self.group().news.clone());
        self.group().runtime.spawn(async move {
            let pairs = all.iter().map(|name| (name.topic.as_str(), name.partition));
            match stream::never_opened(&shared.pool, pairs).await {
                Ok(unopened) => {
                    let unclaimed = unopened.into_iter().map(|at| all[at].clone()).collect();
                    // The receiver is gone only at shutdown.
                    drop(news.send(News::NeverClaimed(unclaimed)));
                }
                // Asked again in a moment.
                Err(error) => tracing::debug!(%error, "cannot look for unclaimed partitions"),
            }
        });
    }

    /// Has the group share the partitions again where some belong to nobody for too long.
    pub(super) fn share_again(&mut self, unclaimed: Vec<TopicPartition>) {
        if unclaimed.is_empty() {
            self.unclaimed.looks = 0;
            return;
        }
        self.unclaimed.looks += 1;
        if self.unclaimed.looks < LOOKS {
            return;
        }
        self.unclaimed.looks = 0;
        let names: Vec<String> = unclaimed.iter().map(ToString::to_string).collect();
        let partitions = names.join(", ");
        tracing::warn!(
            partitions,
            "no member of the group has them; joining it again so that it shares anew"
        );
        if let Err(error) = self.consumer.subscribe(&topic_names(self.shared)) {
            tracing::warn!(%error, "the Kafka client does not subscribe again");
        }
    }
}
