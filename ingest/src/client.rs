//! The Kafka consumer's settings: what the guarantees need, what the configuration adds.

use rdkafka::ClientConfig;
use service::config::{Config, ConfigError};
use service::kafka;

/// Defaults that `kafka.properties` may change.
const DEFAULTS: [(&str, &str); 8] = [
    ("client.id", "runlog-ingest"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    // Bounds what the client library prefetches, over all partitions.
    ("queued.max.messages.kbytes", "32768"),
    // Bounds a response of a broker, which is in memory as a whole; the library's own is 50 MiB.
    ("fetch.max.bytes", "16777216"),
    // The library waits a whole second by default when its queue was full.
    ("fetch.queue.backoff.ms", "20"),
    ("topic.metadata.refresh.interval.ms", "30000"),
    ("statistics.interval.ms", "1000"),
    ("reconnect.backoff.max.ms", "2000"),
];

/// The consumer's configuration.
///
/// # Errors
/// Where the bootstrap servers are missing.
pub(crate) fn consumer_config(config: &Config) -> Result<ClientConfig, ConfigError> {
    let mut client = kafka::client_config(&config.kafka)?;
    for (key, value) in DEFAULTS {
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

    fn config(property: Option<&str>) -> Config {
        let mut config = Config::default();
        config.kafka.bootstrap_servers = "127.0.0.1:9092".to_owned();
        if let Some(key) = property {
            config
                .kafka
                .properties
                .insert(key.to_owned(), "x".to_owned());
        }
        config
    }

    #[test]
    fn defaults_give_way_to_the_configuration() {
        let client = consumer_config(&config(Some("client.id"))).unwrap();
        assert_eq!(client.get("client.id"), Some("x"));
        let client = consumer_config(&config(None)).unwrap();
        assert_eq!(client.get("auto.offset.reset"), Some("error"));
        assert_eq!(
            client.get("partition.assignment.strategy"),
            Some("cooperative-sticky")
        );
    }
}
