//! Listens to what librdkafka says about its connections, so that a message can name the reason
//! ("Connection refused", "the broker refuses the login") beside a timeout. For clients that only ask;
//! called by the CLI, and by ingest where it tries whether a new client could reach Kafka.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;

use super::refusal::Refusal;
use crate::config::KafkaConfig;

/// How long the first try of [`metadata`] may take; each next one twice as long.
const FIRST_TRY: Duration = Duration::from_millis(500);
/// How long the client's queue is listened to. Log lines wait there too; a poll of no length would stop
/// at the first.
const LISTEN: Duration = Duration::from_millis(20);

/// What went wrong on a client's connections. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct ClientLog {
    last_failure: Arc<Mutex<Option<String>>>,
}

impl ClientLog {
    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.last_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The last failure in librdkafka's words, and what they mean where that is known.
    pub fn last_failure(&self, config: &KafkaConfig) -> Option<String> {
        let words = self.lock().clone()?;
        Some(match Refusal::of(&words) {
            Some(refusal) => format!("{}; Kafka's client says: {words}", refusal.advice(config)),
            None => words,
        })
    }

    fn note(&self, words: &str) {
        let mut last = self.lock();
        // A host may have two addresses, and nobody listen at the other one.
        if is_final(Some(words)) || !is_final(last.as_deref()) {
            *last = Some(words.to_owned());
        }
    }

    /// Whether it will stay as it is until somebody changes a setting.
    fn is_refused(&self) -> bool {
        is_final(self.lock().as_deref())
    }
}

fn is_final(words: Option<&str>) -> bool {
    words.and_then(Refusal::of).is_some_and(Refusal::is_final)
}

/// Logs a line of librdkafka's, and gives it back where it tells of a refusal: a connection that the
/// broker ends is told of in this way only.
pub fn log_line<'l>(level: RDKafkaLogLevel, facility: &str, line: &'l str) -> Option<&'l str> {
    use RDKafkaLogLevel as Level;
    match level {
        Level::Emerg | Level::Alert | Level::Critical | Level::Error => {
            tracing::error!(target: "librdkafka", "{facility}: {line}");
        }
        Level::Warning => tracing::warn!(target: "librdkafka", "{facility}: {line}"),
        Level::Notice | Level::Info => tracing::info!(target: "librdkafka", "{facility}: {line}"),
        Level::Debug => tracing::debug!(target: "librdkafka", "{facility}: {line}"),
    }
    (facility == "FAIL" && Refusal::of(line).is_some()).then_some(line)
}

impl ClientContext for ClientLog {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "{reason}");
        // That all brokers are down is the sum of reasons that were told before.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            self.note(reason);
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        if let Some(refused) = log_line(level, facility, line) {
            self.note(refused);
        }
    }

    fn generate_oauth_token(&self, path: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        super::oauth_token(path)
    }
}

impl ConsumerContext for ClientLog {}

/// Asks for a topic's metadata, or for all, and listens to the client meanwhile: a refusal that will
/// stay one is not waited out. Blocks.
///
/// # Errors
/// The last answer's; the log of the client's context says more.
pub fn metadata(
    consumer: &BaseConsumer<ClientLog>,
    topic: Option<&str>,
    within: Duration,
) -> KafkaResult<Metadata> {
    let deadline = Instant::now() + within;
    let mut wait = FIRST_TRY;
    listen(consumer);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // What is left after it would be too short for another try.
        let this = if left < 3 * wait { left } else { wait };
        let answer = consumer.fetch_metadata(topic, this);
        listen(consumer);
        if answer.is_ok() || consumer.context().is_refused() || Instant::now() >= deadline {
            return answer;
        }
        wait *= 2;
    }
}

/// Takes in what waits in the client's queue; nothing else does, since no partition is assigned.
fn listen(consumer: &BaseConsumer<ClientLog>) {
    while consumer.poll(LISTEN).is_some() {}
}
