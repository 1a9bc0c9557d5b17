//! What every Kafka client of Runlog starts from: the brokers, TLS and login ([`security`]) and the
//! passed-through properties; and what its complaints mean ([`refusal`]).
//! Called by ingest and by the CLI, which add what is theirs (group, commit policy, acks), and
//! by the configuration loader, to check properties while it still knows who set them.

mod client_log;
mod refusal;
mod security;
mod token;

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use crate::config::{ConfigError, KafkaConfig, MASK, is_secret_name};

pub use client_log::{ClientLog, log_line, metadata};
pub use refusal::Refusal;
pub use security::{files, has_files};
pub use token::{give_token, oauth_token};

/// Settings of ingest's consumer that exactly-once rests on, with their values. The configuration
/// refuses `kafka.properties` that name one of them.
pub const CONSUMER_FIXED: [(&str, &str); 6] = [
    // Offsets live in PostgreSQL. Kafka's copy is written afterwards, for lag tools.
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    // An offset that the log no longer has is an operator's decision, never a silent reset.
    ("auto.offset.reset", "error"),
    ("isolation.level", "read_committed"),
    // At the end of a partition, trailing control records are seen as a position.
    ("enable.partition.eof", "true"),
    ("check.crcs", "true"),
];

/// Settings of the classic group protocol. With the new one they are the broker's.
pub(crate) const CLASSIC_ONLY: [&str; 4] = [
    "partition.assignment.strategy",
    "session.timeout.ms",
    "heartbeat.interval.ms",
    "group.protocol.type",
];

/// The property that makes a process a static member of its group (KIP-345).
pub const INSTANCE_ID: &str = "group.instance.id";

/// Whether these properties make static members that share partitions cooperatively. A member that dies
/// in the middle of such a rebalance leaves partitions without a reader, until the next one.
pub(crate) fn is_static_and_cooperative(properties: &BTreeMap<String, String>) -> bool {
    let strategy = properties.get("partition.assignment.strategy");
    properties.contains_key(INSTANCE_ID)
        && strategy.is_some_and(|strategy| strategy.contains("cooperative"))
}

/// Whether these properties choose the new consumer group protocol (KIP-848).
pub fn is_new_group_protocol(properties: &BTreeMap<String, String>) -> bool {
    let protocol = properties.get("group.protocol");
    protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case("consumer"))
}

/// The base of a client configuration, with the files of `kafka.security` as they are now. Set what must
/// not be overridden after this call.
///
/// # Errors
/// [`ConfigError::Missing`] where `kafka.bootstrap_servers` is not set; or that a file of
/// `kafka.security` cannot be read.
pub fn client_config(config: &KafkaConfig) -> Result<ClientConfig, ConfigError> {
    let mut client = with_properties(&config.properties);
    security::apply(&config.security, &mut client)?;
    client.set("bootstrap.servers", config.require_bootstrap_servers()?);
    Ok(client)
}

fn with_properties(properties: &BTreeMap<String, String>) -> ClientConfig {
    let mut client = ClientConfig::new();
    if !matches!(client.log_level, RDKafkaLogLevel::Debug) {
        // Some refusals are told of by a line of this level only; what is shown is the log's own filter.
        client.set_log_level(RDKafkaLogLevel::Info);
    }
    for (name, value) in properties {
        client.set(name, value);
    }
    client
}

/// Asks librdkafka itself whether it takes these properties; the error is the name of the one
/// it refuses and why, without the value of a secret.
pub(crate) fn check_properties(
    properties: &BTreeMap<String, String>,
) -> Result<(), (String, String)> {
    with_properties(properties)
        .create_native_config()
        .map(drop)
        .map_err(refused)
}

fn refused(error: KafkaError) -> (String, String) {
    match error {
        KafkaError::ClientConfig(_, reason, name, value) => {
            // librdkafka quotes some values in its reason.
            let reason = if is_secret_name(&name) {
                reason.replace(&value, MASK)
            } else {
                reason
            };
            (name, format!("is refused by librdkafka: {reason}"))
        }
        other => (String::new(), format!("cannot be used: {other}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rdkafka::error::KafkaError;
    use rdkafka::types::RDKafkaConfRes;

    use super::{check_properties, client_config, refused};
    use crate::config::{ConfigError, KafkaConfig};

    fn config(properties: &[(&str, &str)]) -> KafkaConfig {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        KafkaConfig {
            bootstrap_servers: "broker:9092".to_owned(),
            properties: properties.iter().map(pair).collect(),
            ..KafkaConfig::default()
        }
    }

    #[test]
    fn brokers_and_properties_reach_the_client() {
        let client = client_config(&config(&[("socket.timeout.ms", "6000")])).unwrap();
        assert_eq!(client.get("bootstrap.servers"), Some("broker:9092"));
        assert_eq!(client.get("socket.timeout.ms"), Some("6000"));
    }

    #[test]
    fn without_brokers_the_error_says_how_to_set_them() {
        let error = client_config(&KafkaConfig::default()).unwrap_err();
        assert!(matches!(
            error,
            ConfigError::Missing {
                key: "kafka.bootstrap_servers",
                ..
            }
        ));
        assert!(
            error
                .to_string()
                .contains("RUNLOG_KAFKA__BOOTSTRAP_SERVERS"),
            "{error}"
        );
    }

    #[test]
    fn a_refused_property_is_named_and_a_secret_value_is_not() {
        let check = |name, value| check_properties(&config(&[(name, value)]).properties);
        let (name, detail) = check("sockte.timeout.ms", "6000").unwrap_err();
        assert_eq!(name, "sockte.timeout.ms");
        assert!(
            detail.contains("No such configuration property"),
            "{detail}"
        );
        let (name, detail) = check("socket.timeout.ms", "soon").unwrap_err();
        assert_eq!(name, "socket.timeout.ms");
        assert!(detail.contains("refused by librdkafka"), "{detail}");
        let quoting = KafkaError::ClientConfig(
            RDKafkaConfRes::RD_KAFKA_CONF_INVALID,
            "Invalid value \"hunter2\" for \"sasl.password\"".to_owned(),
            "sasl.password".to_owned(),
            "hunter2".to_owned(),
        );
        let (name, detail) = refused(quoting);
        assert_eq!(name, "sasl.password");
        assert!(detail.contains("Invalid value \"***\""), "{detail}");
    }
}
