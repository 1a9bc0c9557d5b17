//! Topics: that one is there before something is published, creating one, and its settings.
//! Called by `publish`, `simulate` and `doctor`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;
use service::config::KafkaConfig;
use service::kafka::{ClientLog, client_config, give_token};
use tokio::runtime::Handle;

use super::probe::Probe;
use super::{TIMEOUT, code, unreachable};
use crate::output::note;

/// How long a new topic gets until each partition has a leader.
const LEADERS_WITHIN: Duration = Duration::from_secs(30);

/// Makes sure that a topic can be published to.
///
/// # Errors
/// Unreachable, or that the topic is not there and how to get it.
pub(crate) fn require(config: &KafkaConfig, topic: &str) -> anyhow::Result<i32> {
    Probe::new(config)?.partitions(topic)?.ok_or_else(|| {
        anyhow!(
            "Kafka at {} has no topic {topic}: create it, or name another with --topic \
             (`runlog simulate --create-topic 6` creates one for a trial)",
            config.bootstrap_servers
        )
    })
}

/// Creates a topic with the broker's own replication factor, unless it is there, and waits until it
/// can be written. To be called on a blocking thread of a tokio runtime.
///
/// # Errors
/// Unreachable, or the broker's refusal.
pub(crate) fn create(config: &KafkaConfig, topic: &str, partitions: i32) -> anyhow::Result<()> {
    let probe = Probe::new(config)?;
    if let Some(found) = probe.partitions(topic)? {
        if found != partitions {
            note(format!(
                "The topic {topic} is there already, with {found} partitions."
            ));
        }
        return Ok(());
    }
    let (admin, log) = admin(config)?;
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    let options = AdminOptions::new().operation_timeout(Some(TIMEOUT));
    let created = Handle::current()
        .block_on(admin.create_topics([&new], &options))
        .map_err(|error| unreachable(config, &log, error))?;
    match created.into_iter().next() {
        Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {}
        Some(Err((_, code))) => bail!("Kafka refuses to create the topic {topic}: {code}"),
        None => bail!("Kafka gave no answer to creating the topic {topic}"),
    }
    let deadline = Instant::now() + LEADERS_WITHIN;
    while !probe.is_writable(topic, partitions)? {
        if Instant::now() > deadline {
            bail!(
                "the new topic {topic} has no leaders after {LEADERS_WITHIN:?}; look at the brokers"
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    note(format!(
        "Created the topic {topic} with {partitions} partitions."
    ));
    Ok(())
}

/// The settings of a topic by name.
///
/// # Errors
/// Unreachable, or not allowed.
pub(crate) fn settings(
    config: &KafkaConfig,
    topic: &str,
) -> anyhow::Result<BTreeMap<String, String>> {
    let (admin, log) = admin(config)?;
    let options = AdminOptions::new().request_timeout(Some(TIMEOUT));
    let topic_name = ResourceSpecifier::Topic(topic);
    let described = Handle::current()
        .block_on(admin.describe_configs([&topic_name], &options))
        .map_err(|error| match code(&error) {
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                anyhow!(error).context(format!("the settings of {topic} may not be read"))
            }
            _ => unreachable(config, &log, error),
        })?;
    let resource = described.into_iter().next();
    let resource = resource.ok_or_else(|| anyhow!("Kafka gave no settings of {topic}"))?;
    let resource =
        resource.map_err(|code| anyhow!("Kafka does not show the settings of {topic}: {code}"))?;
    let entries = resource.entries.into_iter();
    Ok(entries
        .filter_map(|entry| Some((entry.name, entry.value?)))
        .collect())
}

fn admin(config: &KafkaConfig) -> anyhow::Result<(AdminClient<ClientLog>, ClientLog)> {
    let log = ClientLog::default();
    let admin: AdminClient<ClientLog> = client_config(config)?
        .create_with_context(log.clone())
        .context("cannot make a Kafka client")?;
    give_token(admin.inner(), config).map_err(|error| anyhow!("{error}"))?;
    Ok((admin, log))
}
