//! Whether Kafka can be reached, by this client or by any. Called by the poll thread: at the start,
//! and while something speaks against it.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::metadata::Metadata;
use service::database::START_WAIT;
use service::exit::Unreachable;
use service::kafka::{self, ClientLog, INSTANCE_ID, Refusal};
use tokio_util::sync::CancellationToken;

use super::Poller;
use super::membership::ClientEnd;
use crate::group::Group;
use crate::settings::Settings;
use crate::{Shared, condition};

/// How long the brokers may take to answer here, where the poll thread waits for them.
const ANSWER: Duration = Duration::from_secs(2);
/// How long the client's queue is listened to. Log lines wait there too; a poll of no length would stop
/// at the first.
const LISTEN: Duration = Duration::from_millis(20);
/// A client without a connection for so long is asked whether it can still make one.
const UNCONNECTED: Duration = Duration::from_secs(10);
/// How often a client that cannot reach Kafka and has no connection is compared with a new one.
const COMPARED: Duration = Duration::from_secs(10);

/// Waits a while for Kafka to answer; false = shut down before that. Whether it knows the topics is
/// another matter, which may still mend itself. A refusal in TLS or at the login is waited out only by a
/// client that takes the place of one that worked.
pub(super) fn at_the_start(
    consumer: &BaseConsumer<Group>,
    shared: &Shared,
    (settings, renewal): (&Settings, u64),
    is_first: bool,
    stop: &CancellationToken,
) -> anyhow::Result<bool> {
    let deadline = Instant::now() + START_WAIT;
    let group = consumer.context();
    while !stop.is_cancelled() {
        // A client before this one may have polled already.
        shared.pulse.poll_thread.beat();
        if settings.renewals() != renewal {
            return Err(ClientEnd::renewed());
        }
        // Nothing is subscribed to yet: only errors, log lines and the wish for a token come in.
        while consumer.poll(LISTEN).is_some() {}
        let Err(error) = consumer.fetch_metadata(None, ANSWER) else {
            return Ok(true);
        };
        while consumer.poll(LISTEN).is_some() {}
        let config = &shared.config.kafka;
        let reason = group.explained(format!(
            "cannot reach Kafka at kafka.bootstrap_servers = {} (set by {}): {error}",
            config.bootstrap_servers, config.bootstrap_servers_source
        ));
        let is_refused = group.refusal().is_some_and(Refusal::is_final);
        if Instant::now() >= deadline || (is_first && is_refused) {
            let advice = "check that a broker runs there and that kafka.security fits it";
            let advice = group
                .refusal()
                .map_or(format!("; {advice}"), |_| String::new());
            return Err(Unreachable::new(format!("{reason}{advice}")).into());
        }
        tracing::warn!("{reason}; still trying");
        shared.health.set_unready(condition::KAFKA, reason);
        // An answer that fails at once must not be asked for again and again.
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(false)
}

/// Why Kafka cannot be reached now; `None` = it can. What it says of the topics is another matter.
fn obstacle(answer: KafkaResult<Metadata>, shared: &Shared) -> Option<String> {
    let servers = &shared.config.kafka.bootstrap_servers;
    match answer {
        Ok(metadata) if metadata.brokers().is_empty() => Some(format!(
            "Kafka at {servers} is starting: it names no broker yet"
        )),
        Ok(_) => None,
        Err(error) => Some(format!(
            "cannot reach Kafka at kafka.bootstrap_servers = {servers}: {error}"
        )),
    }
}

/// One topic, to ask about: a cluster may have many.
fn a_topic(shared: &Shared) -> Option<&str> {
    let topic = shared.config.ingest.topics.first();
    topic.map(|topic| topic.name.as_str())
}

/// Why a client that is made now cannot reach Kafka; `None` = it can. Blocks.
pub(crate) fn obstacle_of_a_new_client(config: &ClientConfig, shared: &Shared) -> Option<String> {
    let mut config = config.clone();
    // It only asks: no member of the group, and no statistics.
    config.set("statistics.interval.ms", "0");
    config.remove(INSTANCE_ID);
    let log = ClientLog::default();
    let client: BaseConsumer<ClientLog> = match config.create_with_context(log.clone()) {
        Ok(client) => client,
        Err(error) => return Some(format!("cannot make a Kafka client: {error}")),
    };
    let answer = kafka::metadata(&client, a_topic(shared), ANSWER);
    let obstacle = obstacle(answer, shared)?;
    Some(match log.last_failure(&shared.config.kafka) {
        Some(reason) => format!("{obstacle}; {reason}"),
        None => obstacle,
    })
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
        let answer = self.consumer.fetch_metadata(a_topic(self.shared), ANSWER);
        let Some(reason) = obstacle(answer, self.shared) else {
            self.shared.health.set_ready(condition::KAFKA);
            return Ok(());
        };
        let reason = self.group().explained(reason);
        // An answer that is late behind other data on a slow connection strands nobody.
        if is_unconnected && now >= self.next_comparison {
            self.next_comparison = Instant::now() + COMPARED;
            if obstacle_of_a_new_client(self.config, self.shared).is_none() {
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
