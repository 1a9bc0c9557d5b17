//! Section `kafka`: where the brokers are, how they are reached safely, and what is passed through to
//! librdkafka.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::error::{ConfigError, Problem};
use super::kafka_security::KafkaSecurityConfig;
use super::secret::{MASK, is_secret_name};
use super::source::Source;
use crate::kafka::{
    CLASSIC_ONLY, CONSUMER_FIXED, check_properties, is_new_group_protocol,
    is_static_and_cooperative,
};

/// How a process reaches Kafka.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaConfig {
    /// Comma-separated `host:port` of brokers to ask first. Empty = not set, the default; ask
    /// for it with [`KafkaConfig::require_bootstrap_servers`].
    pub bootstrap_servers: String,
    /// TLS and login.
    pub security: KafkaSecurityConfig,
    /// Properties of librdkafka, by their own names (`"socket.timeout.ms" = 6000`). In an
    /// environment variable the dots are underscores: `RUNLOG_KAFKA__PROPERTIES__SOCKET_TIMEOUT_MS`.
    /// Values of names that say password, secret or key are masked wherever they are shown.
    #[serde(serialize_with = "masked", deserialize_with = "property_texts")]
    pub properties: BTreeMap<String, String>,
    /// Where `bootstrap_servers` came from, for messages. Not a key: the loader fills it in.
    #[serde(skip)]
    pub bootstrap_servers_source: Source,
}

impl KafkaConfig {
    /// The brokers to ask first.
    ///
    /// # Errors
    /// [`ConfigError::Missing`], which says how to set it.
    pub fn require_bootstrap_servers(&self) -> Result<&str, ConfigError> {
        if self.bootstrap_servers.is_empty() {
            return Err(ConfigError::Missing {
                key: "kafka.bootstrap_servers",
                hint: "set kafka.bootstrap_servers in the configuration file, or the environment \
                       variable RUNLOG_KAFKA__BOOTSTRAP_SERVERS, to host:port of one or more \
                       brokers, separated by commas",
            });
        }
        Ok(&self.bootstrap_servers)
    }

    pub(super) fn check(&self) -> Result<(), Problem> {
        const SERVERS: &str = "kafka.bootstrap_servers";
        let servers = Some(self.bootstrap_servers.as_str()).filter(|list| !list.is_empty());
        for server in servers.into_iter().flat_map(|list| list.split(',')) {
            // librdkafka also takes PROTOCOL://host:port.
            let address = server.trim().rsplit("//").next().unwrap_or_default();
            let port = address
                .rsplit_once(':')
                .map(|(host, port)| (host, port.parse::<u16>()));
            if !matches!(port, Some((host, Ok(1..))) if !host.is_empty()) {
                return Problem::err(
                    SERVERS,
                    format!("holds {server:?}; each broker must be host:port"),
                );
            }
        }
        if self.properties.contains_key("bootstrap.servers")
            || self.properties.contains_key("metadata.broker.list")
        {
            return Problem::err(
                "kafka.properties",
                "names the brokers; set kafka.bootstrap_servers for that",
            );
        }
        let fixed = CONSUMER_FIXED.iter().map(|(name, _)| *name);
        if let Some(name) = fixed
            .chain(["group.id"])
            .find(|name| self.properties.contains_key(*name))
        {
            return Problem::err(
                format!("kafka.properties.{name}"),
                "is not free: exactly-once rests on ingest's own value (the group is ingest.group_id); remove it",
            );
        }
        if is_static_and_cooperative(&self.properties) {
            return Problem::err(
                "kafka.properties.partition.assignment.strategy",
                "is cooperative and does not go with group.instance.id: a static member that dies in the middle of a \
                 rebalance would leave partitions without a reader; use roundrobin or range, or group.protocol = consumer",
            );
        }
        if is_new_group_protocol(&self.properties)
            && let Some(name) = CLASSIC_ONLY
                .iter()
                .find(|name| self.properties.contains_key(**name))
        {
            return Problem::err(
                format!("kafka.properties.{name}"),
                "does not go with group.protocol = consumer, where the broker decides it; remove one of them",
            );
        }
        self.security.check(&self.properties)?;
        check_properties(&self.properties)
            .or_else(|(name, detail)| Problem::err(format!("kafka.properties.{name}"), detail))
    }

    /// The properties as they may be shown.
    fn shown(&self) -> impl Iterator<Item = (&str, &str)> {
        self.properties.iter().map(|(name, value)| {
            (
                name.as_str(),
                if is_secret_name(name) {
                    MASK
                } else {
                    value.as_str()
                },
            )
        })
    }
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaConfig")
            .field("bootstrap_servers", &self.bootstrap_servers)
            .field("security", &self.security)
            .field("properties", &self.shown().collect::<BTreeMap<_, _>>())
            .finish_non_exhaustive()
    }
}

fn masked<S: Serializer>(properties: &BTreeMap<String, String>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(
        properties
            .iter()
            .map(|(name, value)| (name, if is_secret_name(name) { MASK } else { value })),
    )
}

/// librdkafka takes every value as text; in TOML a number or a boolean is the natural way to
/// write many of them, so those become text here.
fn property_texts<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    struct Properties;

    impl<'de> Visitor<'de> for Properties {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a table of librdkafka properties")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut properties = BTreeMap::new();
            while let Some(name) = map.next_key::<String>()? {
                let Text(value) = map.next_value()?;
                properties.insert(name, value);
            }
            Ok(properties)
        }
    }

    struct Text(String);

    impl<'de> Deserialize<'de> for Text {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            from.deserialize_any(TextVisitor).map(Text)
        }
    }

    struct TextVisitor;

    impl<'de> Visitor<'de> for TextVisitor {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("text, a number or a boolean")
        }

        fn visit_str<E: Error>(self, value: &str) -> Result<String, E> {
            Ok(value.to_owned())
        }

        fn visit_bool<E: Error>(self, value: bool) -> Result<String, E> {
            Ok(value.to_string())
        }

        fn visit_i64<E: Error>(self, value: i64) -> Result<String, E> {
            Ok(value.to_string())
        }

        fn visit_u64<E: Error>(self, value: u64) -> Result<String, E> {
            Ok(value.to_string())
        }

        fn visit_f64<E: Error>(self, value: f64) -> Result<String, E> {
            Ok(value.to_string())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<String, A::Error> {
            // Not reached from a file (the loader joins nested tables into dotted names), but
            // the value must be drained before the error, or the map reports that instead.
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Err(A::Error::invalid_type(serde::de::Unexpected::Map, &self))
        }
    }

    from.deserialize_map(Properties)
}
