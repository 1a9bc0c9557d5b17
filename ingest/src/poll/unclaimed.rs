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
/// The most that it comes to where it does not help: an hour.
const MOST_LOOKS: u32 = 360;

/// What the last looks have seen.
pub(super) struct Unclaimed {
    /// Whether there can be any.
    is_possible: bool,
    next_look: Instant,
    /// Whether an answer is still to come.
    is_asking: bool,
    /// In how many looks there were some.
    looks: u32,
    /// In how many there have to be. Doubles with every try, since a partition may have no leader, or the
    /// database no room for its row: sharing again and again helps neither.
    patience: u32,
}

impl Unclaimed {
    pub(super) fn new(config: &ClientConfig, shared: &Shared) -> Self {
        let is_classic = !is_new_group_protocol(&shared.config.kafka.properties);
        Self {
            is_possible: is_classic && config.get(INSTANCE_ID).is_some(),
            next_look: Instant::now() + LOOK,
            is_asking: false,
            looks: 0,
            patience: LOOKS,
        }
    }
}

impl Poller<'_> {
    /// Asks the database now and then which of the topics' partitions no process ever claimed.
    pub(super) fn look_for_unclaimed(&mut self, now: Instant) {
        let state = &mut self.unclaimed;
        if !state.is_possible || state.is_asking || now < state.next_look {
            return;
        }
        state.next_look = now + LOOK;
        state.is_asking = true;
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
            let unopened = stream::never_opened(&shared.pool, pairs).await;
            let unclaimed = unopened
                .inspect_err(
                    |error| tracing::debug!(%error, "cannot look for unclaimed partitions"),
                )
                .map(|places| places.into_iter().map(|at| all[at].clone()).collect());
            // The receiver is gone only at shutdown.
            let _ = news.send(News::NeverClaimed(unclaimed.ok()));
        });
    }

    /// Has the group share the partitions again where some belong to nobody for too long.
    pub(super) fn share_again(&mut self, unclaimed: Option<Vec<TopicPartition>>) {
        self.unclaimed.is_asking = false;
        let Some(mut unclaimed) = unclaimed else {
            return;
        };
        // Those that are held here wait for their claim.
        let held = self.group().partitions().names();
        unclaimed.retain(|name| !held.contains(name));
        let state = &mut self.unclaimed;
        if unclaimed.is_empty() {
            (state.looks, state.patience) = (0, LOOKS);
            return;
        }
        state.looks += 1;
        if state.looks < state.patience {
            return;
        }
        (state.looks, state.patience) = (0, state.patience.saturating_mul(2).min(MOST_LOOKS));
        let names: Vec<String> = unclaimed.iter().map(ToString::to_string).collect();
        let partitions = names.join(", ");
        tracing::warn!(
            partitions,
            "nobody has claimed them; joining the group again so that it shares anew"
        );
        if let Err(error) = self.consumer.subscribe(&topic_names(self.shared)) {
            tracing::warn!(%error, "the Kafka client does not subscribe again");
        }
    }
}
