//! Whether Kafka can be reached, by this client or by any. Called by the poll thread: at the start,
//! and while something speaks against it.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use service::database::START_WAIT;
use service::exit::Unreachable;
use service::kafka::INSTANCE_ID;
use tokio_util::sync::CancellationToken;

use super::Poller;
use super::membership::ClientEnd;
use crate::group::Group;
use crate::{Shared, condition};

/// How long the brokers may take to answer here, where the poll thread waits for them.
const ANSWER: Duration = Duration::from_secs(2);
/// A client without a connection for so long is asked whether it can still make one.
const UNCONNECTED: Duration = Duration::from_secs(10);
/// How often a client that cannot reach Kafka and has no connection is compared with a new one.
const COMPARED: Duration = Duration::from_secs(10);

/// Waits a while for Kafka to answer; false = shut down before that. Whether it knows the topics is
/// another matter, which may still mend itself.
pub(super) fn at_the_start(
    consumer: &BaseConsumer<Group>,
    shared: &Shared,
    stop: &CancellationToken,
) -> anyhow::Result<bool> {
    let deadline = Instant::now() + START_WAIT;
    while !stop.is_cancelled() {
        // A client before this one may have polled already.
        shared.pulse.poll_thread.beat();
        let Err(error) = consumer.fetch_metadata(None, ANSWER) else {
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

/// Why this client cannot reach Kafka now; `None` = it can. What Kafka says of the topics is another
/// matter.
fn obstacle<C: ConsumerContext>(consumer: &BaseConsumer<C>, shared: &Shared) -> Option<String> {
    let servers = &shared.config.kafka.bootstrap_servers;
    // Of one topic, since a cluster may have many.
    let topic = shared.config.ingest.topics.first();
    match consumer.fetch_metadata(topic.map(|topic| topic.name.as_str()), ANSWER) {
        Ok(metadata) if metadata.brokers().is_empty() => Some(format!(
            "Kafka at {servers} is starting: it names no broker yet"
        )),
        Ok(_) => None,
        Err(error) => Some(format!(
            "cannot reach Kafka at kafka.bootstrap_servers = {servers}: {error}"
        )),
    }
}

/// Whether a client that is made now can reach Kafka.
fn is_in_reach_of_a_new_client(config: &ClientConfig, shared: &Shared) -> bool {
    let mut config = config.clone();
    // It only asks: no member of the group, and no statistics.
    config.set("statistics.interval.ms", "0");
    config.remove(INSTANCE_ID);
    let client: Result<BaseConsumer, _> = config.create();
    client.is_ok_and(|client| obstacle(&client, shared).is_none())
}

impl Poller<'_> {
    /// Asks Kafka where something speaks against it, now and then until it answers.
    ///
    /// # Errors
    /// [`ClientEnd::Stranded`] where it answers another client, and this one not.
    pub(super) fn ask_kafka(&mut self, now: Instant) -> anyhow::Result<()> {
        let unconnected = self.group().unconnected();
        let is_unconnected = unconnected.is_some_and(|since| since.elapsed() >= UNCONNECTED);
        if self.shared.health.is_met(condition::KAFKA) && !is_unconnected {
            return Ok(());
        }
        let Some(reason) = obstacle(self.consumer, self.shared) else {
            self.shared.health.set_ready(condition::KAFKA);
            return Ok(());
        };
        // An answer that is late behind other data on a slow connection strands nobody.
        if is_unconnected && now >= self.next_comparison {
            self.next_comparison = Instant::now() + COMPARED;
            if is_in_reach_of_a_new_client(self.config, self.shared) {
                return Err(ClientEnd::Stranded(format!(
                    "{reason}, but a new client can: the Kafka client has lost its brokers for good"
                ))
                .into());
            }
        }
        tracing::warn!("{reason}");
        self.shared.health.set_unready(condition::KAFKA, reason);
        Ok(())
    }
}
