//! Listens to what librdkafka says about its connections, so that a message can name the reason
//! ("Connection refused", "SASL authentication failed") beside a timeout.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// The last thing that went wrong on a client's connections. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClientLog {
    last_failure: Arc<Mutex<Option<String>>>,
}

impl ClientLog {
    /// The last failure, in librdkafka's words.
    pub(crate) fn last_failure(&self) -> Option<String> {
        self.last_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl ClientContext for ClientLog {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "{reason}");
        // That all brokers are down is the sum of reasons that were told before.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            return;
        }
        *self
            .last_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
    }
}

impl ConsumerContext for ClientLog {}
