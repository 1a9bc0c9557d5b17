//! The process `runlog-ingest`: a Kafka consumer group whose members append what they read to the
//! log, one transaction per batch, with the offset in it.
//!
//! One thread ([`poll`]) owns the Kafka consumer. The group's callbacks ([`group`]) claim a
//! partition in PostgreSQL before it is read, and start it at the stored offset. Each partition has
//! a task ([`worker`]) that gathers records into batches ([`gather`]), judges them ([`judge`]) and
//! appends them through `event_log::StreamWriter`, when it is its turn ([`turns`]).

mod assignment;
mod claimed;
mod claims;
mod client;
mod committed;
mod describe_topics;
mod gather;
mod group;
mod judge;
mod memory;
mod metrics;
mod partitions;
mod poll;
mod progress;
mod raw_record;
mod resume;
mod settings;
mod topics;
mod turns;
mod watchdog;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use event_log::start::{self, Role};
use event_log::stream::Claimant;
use service::config::{Config, ConfigError, LoadedConfig};
use service::database::{self, START_WAIT};
use service::health::Health;
use service::http;
use service::metrics::MetricsRegistry;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Where health and metrics are served unless `telemetry.listen` says otherwise.
const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9600);
/// How long the Kafka client may take to leave the group, beyond the drain.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The conditions of /readyz.
pub(crate) mod condition {
    pub(crate) const DATABASE: &str = "database";
    /// The group may be joined.
    pub(crate) const GROUP: &str = "group";
    /// Kafka can be reached.
    pub(crate) const KAFKA: &str = "kafka";
    /// No partition is halted.
    pub(crate) const STREAMS: &str = "streams";
    /// The topics are there and may be read.
    pub(crate) const TOPICS: &str = "topics";

    pub(crate) const ALL: [&str; 5] = [DATABASE, GROUP, KAFKA, STREAMS, TOPICS];
}

/// What every part of the process shares.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) pool: PgPool,
    pub(crate) claimant: Claimant,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    /// At most `ingest.writers` batches are judged and written at once.
    pub(crate) writers: Arc<turns::Turns>,
    /// Claims take no more connections at once than the writers leave.
    pub(crate) claims: tokio::sync::Semaphore,
    /// At most `ingest.buffer_bytes` of records.
    pub(crate) memory: Arc<memory::Memory>,
    /// What the watchdog looks at.
    pub(crate) pulse: watchdog::Pulse,
}

/// Whether the keys fit each other. Called before [`run`], since only the loaded configuration knows
/// where they were set.
///
/// # Errors
/// [`ConfigError::Invalid`].
pub fn check(loaded: &LoadedConfig) -> Result<(), ConfigError> {
    check_writers(loaded)?;
    check_poll_interval(loaded)
}

/// Kafka takes everything away from a process that does not poll for `max.poll.interval.ms`, and none of
/// the group's callbacks may take that long: a drain, or two rounds of claims and a broker's answer.
fn check_poll_interval(loaded: &LoadedConfig) -> Result<(), ConfigError> {
    const KEY: &str = "kafka.properties.max.poll.interval.ms";
    let properties = &loaded.config.kafka.properties;
    let set = properties.get("max.poll.interval.ms");
    // What is no number was refused by the client library.
    let Some(milliseconds) = set.and_then(|value| value.trim().parse().ok()) else {
        return Ok(());
    };
    let claims = 2 * claims::CLAIM_TIMEOUT + claims::BROKER_TIMEOUT;
    let least = loaded.config.ingest.drain_timeout + claims;
    if Duration::from_millis(milliseconds) > least {
        return Ok(());
    }
    Err(ConfigError::Invalid {
        key: KEY.to_owned(),
        origin: loaded.source(KEY),
        detail: format!(
            "is {milliseconds} ms; it must be above {} ms: ingest.drain_timeout (set by {}), and {} s to claim \
             partitions",
            least.as_millis(),
            loaded.source("ingest.drain_timeout"),
            claims.as_secs()
        ),
    })
}

/// The connections that no writer needs.
fn spare_connections(config: &Config) -> usize {
    (config.database.max_connections as usize).saturating_sub(config.ingest.writers)
}

fn check_writers(loaded: &LoadedConfig) -> Result<(), ConfigError> {
    let writers = loaded.config.ingest.writers;
    let connections = loaded.config.database.max_connections;
    if spare_connections(&loaded.config) > 0 {
        return Ok(());
    }
    Err(ConfigError::Invalid {
        key: "ingest.writers".to_owned(),
        origin: loaded.source("ingest.writers"),
        detail: format!(
            "is {writers}; it must be below database.max_connections = {connections} (set by {}), \
             since each writer takes a connection and claims need one more",
            loaded.source("database.max_connections")
        ),
    })
}

/// Runs the process until `shutdown` is cancelled, then drains and returns.
///
/// # Errors
/// A configuration that cannot be used, a schema that is behind, a Kafka or PostgreSQL that does not
/// answer at the start, or a fault that no retry mends. Once it works, it waits for both however
/// long they are away, with the reason in /readyz.
pub async fn run(config: &Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let settings = Arc::new(settings::Settings::new(config)?);
    let pool = database::pool(&config.database, "runlog-ingest")?;
    let registry = MetricsRegistry::new();
    let health = Health::new(&condition::ALL);
    let shared = Arc::new(Shared {
        config: config.clone(),
        claimant: Claimant {
            group_id: config.ingest.group_id.clone(),
            owner: service::process_name(),
        },
        health: health.clone(),
        metrics: Metrics::new(&registry)?,
        writers: turns::Turns::new(config.ingest.writers),
        claims: tokio::sync::Semaphore::new(spare_connections(config)),
        memory: memory::Memory::new(config.ingest.buffer_bytes),
        pulse: watchdog::Pulse::default(),
        pool,
    });
    let listen = config.telemetry.listen_address(DEFAULT_LISTEN)?;
    http::serve(listen, registry, health, shutdown.clone()).await?;
    if wait_for_schema(&shared, &shutdown).await? {
        tokio::spawn(metrics::watch_dead_letters(
            Arc::clone(&shared),
            shutdown.clone(),
        ));
        tokio::spawn(settings::follow_files(
            Arc::clone(&settings),
            Arc::clone(&shared),
            shutdown.clone(),
        ));
        poll_until(settings, Arc::clone(&shared), shutdown.clone()).await?;
    }
    // Connections of batches that were abandoned are closed by their drop, not waited for.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, shared.pool.close()).await;
    tracing::info!("stopped");
    Ok(())
}

/// Waits a while for the database to answer, and checks its schema and our login; false = shut down before that.
async fn wait_for_schema(shared: &Shared, shutdown: &CancellationToken) -> anyhow::Result<bool> {
    let usable = async {
        database::wait_reachable(&shared.pool, &shared.config.database, START_WAIT).await?;
        let allow = shared.config.database.allow_powerful_login;
        start::check(&shared.pool, Role::Ingest, allow, START_WAIT).await?;
        anyhow::Ok(())
    };
    tokio::select! {
        () = shutdown.cancelled() => return Ok(false),
        answer = usable => answer?,
    }
    shared.health.set_ready(condition::DATABASE);
    Ok(true)
}

/// Runs the consumer on its own thread until it ends, or until it fails to end in time.
async fn poll_until(
    settings: Arc<settings::Settings>,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let (ended, mut end) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let drain = shared.config.ingest.drain_timeout;
    let stop = shutdown.clone();
    // Dropped with this function: the watchdog is over then, however it ends.
    let (_watching, watched) = std::sync::mpsc::channel();
    let mut stall = watchdog::start(&shared, watched).context("cannot start the watchdog")?;
    std::thread::Builder::new()
        .name("kafka-poll".to_owned())
        .spawn(move || {
            // The receiver is gone only where this thread took too long; nobody needs the result then.
            let _ = ended.send(poll::run(&settings, &shared, &runtime, &stop));
        })
        .context("cannot start the Kafka thread")?;
    tokio::select! {
        result = &mut end => return result.context("the Kafka thread panicked")?,
        Ok(stall) = &mut stall => return Err(stall),
        () = shutdown.cancelled() => {}
    }
    match tokio::time::timeout(drain + CLOSE_TIMEOUT, end).await {
        Ok(result) => result.context("the Kafka thread panicked")?,
        Err(_) => {
            tracing::warn!(
                "the Kafka client did not close in time; leaving without it, which loses nothing"
            );
            Ok(())
        }
    }
}
