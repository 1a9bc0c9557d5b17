//! Reaching Kafka: what a cluster holds ([`probe`]), topics ([`topics`]) and publishing
//! ([`publisher`]). Everything here blocks, with bounded timeouts: call it on a blocking thread.

pub(crate) mod probe;
pub(crate) mod publisher;
pub(crate) mod topics;

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use service::config::KafkaConfig;
use service::exit::Unreachable;
use service::kafka::ClientLog;

/// How long a broker gets for one answer.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(10);

/// The error for a cluster that does not answer (exit code 3): where that was configured, why as
/// far as the client knows, and what to do.
pub(crate) fn unreachable(
    config: &KafkaConfig,
    log: &ClientLog,
    error: KafkaError,
) -> anyhow::Error {
    let reason = log.last_failure(config);
    Unreachable {
        message: format!(
            "cannot reach Kafka at {} (kafka.bootstrap_servers, set by {}): {}",
            config.bootstrap_servers,
            config.bootstrap_servers_source,
            reason
                .as_deref()
                .unwrap_or("check that it runs, and that addresses and kafka.security are right")
        ),
        cause: Some(error.into()),
    }
    .into()
}

/// The code of an error, also where rdkafka hides it in an admin operation.
pub(crate) fn code(error: &KafkaError) -> Option<RDKafkaErrorCode> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        other => other.rdkafka_error_code(),
    }
}
