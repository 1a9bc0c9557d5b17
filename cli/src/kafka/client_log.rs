//! Listens to what librdkafka says about its connections, so that a message can name the reason
//! ("Connection refused", "SASL authentication failed") instead of a timeout.

use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;

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

    fn keep(&self, text: &str) {
        // "[thrd:broker]: broker: Connect to ... failed: ...": the thread says nothing to people.
        let text = text.split_once("]: ").map_or(text, |(_, rest)| rest);
        *self
            .last_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(text.to_owned());
    }
}

impl ClientContext for ClientLog {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "FAIL" {
            self.keep(message);
        }
        tracing::debug!(target: "librdkafka", ?level, "{facility}: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }
}

impl ConsumerContext for ClientLog {}
