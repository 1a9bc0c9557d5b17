//! The Kafka consumer's settings: what the guarantees need, what the configuration adds.

use rdkafka::ClientConfig;
use service::config::{Config, ConfigError};
use service::kafka;

/// Defaults that `kafka.properties` may change.
const DEFAULTS: [(&str, &str); 6] = [
    ("client.id", "runlog-ingest"),
    // Bounds what the client library prefetches, over all partitions.
    ("queued.max.messages.kbytes", "32768"),
    // The library waits a whole second by default when its queue was full.
    ("fetch.queue.backoff.ms", "20"),
    ("topic.metadata.refresh.interval.ms", "30000"),
    ("statistics.interval.ms", "1000"),
    ("reconnect.backoff.max.ms", "2000"),
];

/// A default of the classic group protocol; with the new one (KIP-848) the broker decides.
const CLASSIC_DEFAULT: (&str, &str) = ("partition.assignment.strategy", "cooperative-sticky");

/// The consumer's configuration.
///
/// # Errors
/// Where the bootstrap servers are missing.
pub(crate) fn consumer_config(config: &Config) -> Result<ClientConfig, ConfigError> {
    let mut client = kafka::client_config(&config.kafka)?;
    let classic =
        (!kafka::is_new_group_protocol(&config.kafka.properties)).then_some(CLASSIC_DEFAULT);
    for (key, value) in DEFAULTS.into_iter().chain(classic) {
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
    fn the_client_library_takes_the_defaults_of_each_group_protocol() {
        for (protocol, strategy) in [("classic", Some("cooperative-sticky")), ("consumer", None)] {
            let client = consumer_config(&config(Some(("group.protocol", protocol)))).unwrap();
            assert_eq!(client.get("partition.assignment.strategy"), strategy);
            let made: Result<rdkafka::consumer::BaseConsumer, _> = client.create();
            assert!(made.is_ok(), "{protocol}: {:?}", made.err());
        }
    }
}
