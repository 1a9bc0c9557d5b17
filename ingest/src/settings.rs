//! What Kafka clients are made from: the configuration, and the files of `kafka.security` as they are.
//! When those change, and a client that is made from them reaches Kafka, the poll thread goes on with a
//! new client ([`crate::poll`]); until then with the old one, whose connections stay. Started by
//! [`crate::run`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use service::config::{Config, ConfigError};
use service::kafka;
use tokio_util::sync::CancellationToken;

use crate::Shared;
use crate::client::consumer_config;
use crate::poll::reach::obstacle_of_a_new_client;

/// How often the files are read again.
const READ_AGAIN: Duration = Duration::from_secs(2);

pub(crate) struct Settings {
    /// The newest settings that are known to reach Kafka, or those of the start, and how often they were
    /// renewed.
    current: Mutex<(ClientConfig, u64)>,
    /// What the files held at the start.
    files: Vec<Vec<u8>>,
}

impl Settings {
    /// # Errors
    /// A configuration that cannot be used, such as a file that is not there.
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        Ok(Self {
            // Read first: a change in between makes one client too many, and not one too few.
            files: kafka::files(&config.kafka.security)?,
            current: Mutex::new((consumer_config(config)?, 0)),
        })
    }

    fn lock(&self) -> MutexGuard<'_, (ClientConfig, u64)> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a client is made from now, and which renewal that is.
    pub(crate) fn current(&self) -> (ClientConfig, u64) {
        self.lock().clone()
    }

    /// How often they were renewed.
    pub(crate) fn renewals(&self) -> u64 {
        self.lock().1
    }

    fn renew(&self, config: ClientConfig) {
        let mut settings = self.lock();
        *settings = (config, settings.1 + 1);
    }
}

/// Looks at the files until `stop`. By content: what is mounted into a container changes by the swap of a
/// link, and certificate and key one after the other.
pub(crate) async fn follow_files(
    settings: Arc<Settings>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) {
    let security = &shared.config.kafka.security;
    if !kafka::has_files(security) {
        return;
    }
    let mut used = settings.files.clone();
    let mut told = String::new();
    while tokio::time::timeout(READ_AGAIN, stop.cancelled())
        .await
        .is_err()
    {
        let obstacle = match kafka::files(security) {
            Ok(found) if found == used => continue,
            Ok(found) => match try_out(&shared).await {
                Ok(config) => {
                    settings.renew(config);
                    (used, told) = (found, String::new());
                    continue;
                }
                Err(obstacle) => obstacle,
            },
            Err(error) => error.to_string(),
        };
        if told != obstacle {
            tracing::warn!(
                "the files of kafka.security have changed; going on with them as they were: {obstacle}"
            );
            told = obstacle;
        }
    }
}

/// Settings made from the files as they are now, if a client that has them reaches Kafka.
async fn try_out(shared: &Arc<Shared>) -> Result<ClientConfig, String> {
    let config = consumer_config(&shared.config).map_err(|error| error.to_string())?;
    let shared = Arc::clone(shared);
    let tried = tokio::task::spawn_blocking(move || {
        let obstacle = obstacle_of_a_new_client(&config, &shared);
        obstacle.map_or(Ok(config), Err)
    });
    tried.await.map_err(|error| error.to_string())?
}
