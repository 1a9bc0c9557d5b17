//! The Kafka consumer's settings: what the guarantees need, what the configuration adds.

use rdkafka::ClientConfig;
use service::config::{Config, ConfigError};
use service::kafka;

/// Defaults that `kafka.properties` may change.
const DEFAULTS: [(&str, &str); 7] = [
    ("client.id", "runlog-ingest"),
    // Bounds what the client library prefetches, over all partitions.
    ("queued.max.messages.kbytes", "16384"),
    // Bounds a response of a broker, which is in memory as a whole; the library's own is 50 MiB.
    ("fetch.max.bytes", "8388608"),
    // The library waits a whole second by default when its queue was full.
    ("fetch.queue.backoff.ms", "20"),
    ("topic.metadata.refresh.interval.ms", "30000"),
    ("statistics.interval.ms", "1000"),
    ("reconnect.backoff.max.ms", "2000"),
];

/// How the classic group protocol assigns partitions; with the new one (KIP-848) the broker decides.
const STRATEGY: &str = "partition.assignment.strategy";

/// The default of [`STRATEGY`]. Static members (KIP-345) need an eager one: a cooperative rebalance takes
/// two rounds, and one that dies between them comes back with its share of the first, without a second.
/// What was to move has no reader then.
fn strategy(config: &Config) -> Option<(&'static str, &'static str)> {
    let properties = &config.kafka.properties;
    let eager = properties.contains_key(kafka::INSTANCE_ID);
    let default = if eager {
        "roundrobin"
    } else {
        "cooperative-sticky"
    };
    (!kafka::is_new_group_protocol(properties)).then_some((STRATEGY, default))
}

/// The consumer's configuration.
///
/// # Errors
/// Where the bootstrap servers are missing.
pub(crate) fn consumer_config(config: &Config) -> Result<ClientConfig, ConfigError> {
    let mut client = kafka::client_config(&config.kafka)?;
    for (key, value) in DEFAULTS.into_iter().chain(strategy(config)) {
        if !config.kafka.properties.contains_key(key) {
            client.set(key, value);
        }
    }
    for (key, value) in kafka::CONSUMER_FIXED {
        client.set(key, value);
    }
    client.set("group.id", &config.ingest.group_id);
    Ok(client)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn config(property: Option<(&str, &str)>) -> Config {
        let mut config = Config::default();
        config.kafka.bootstrap_servers = "127.0.0.1:9092".to_owned();
        if let Some((key, value)) = property {
            let properties = &mut config.kafka.properties;
            properties.insert(key.to_owned(), value.to_owned());
        }
        config
    }

    #[test]
    fn defaults_give_way_to_the_configuration() {
        let client = consumer_config(&config(Some(("client.id", "x")))).unwrap();
        assert_eq!(client.get("client.id"), Some("x"));
        let client = consumer_config(&config(None)).unwrap();
        assert_eq!(client.get("auto.offset.reset"), Some("error"));
        assert_eq!(
            client.get("partition.assignment.strategy"),
            Some("cooperative-sticky")
        );
    }

    #[test]
    fn static_members_share_partitions_eagerly() {
        let client = consumer_config(&config(Some((kafka::INSTANCE_ID, "one")))).unwrap();
        assert_eq!(client.get(STRATEGY), Some("roundrobin"));
        let chosen = consumer_config(&config(Some((STRATEGY, "range")))).unwrap();
        assert_eq!(chosen.get(STRATEGY), Some("range"));
    }

    #[test]
    fn the_client_library_takes_the_defaults_of_each_group_protocol() {
        for (protocol, strategy) in [("classic", Some("cooperative-sticky")), ("consumer", None)] {
            let client = consumer_config(&config(Some(("group.protocol", protocol)))).unwrap();
            assert_eq!(client.get("partition.assignment.strategy"), strategy);
            let made: Result<rdkafka::consumer::BaseConsumer, _> = client.create();
            assert!(made.is_ok(), "{protocol}: {:?}", made.err());
        }
    }
}
