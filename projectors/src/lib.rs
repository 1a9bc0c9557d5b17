//! `runlog-projectors`: builds the read models from the log, and from nothing else. The only owner
//! of the schema `read_model` and its SQL.
//!
//! [`run`] is the whole process; the main only loads its configuration. The [`runner`] brings the
//! projections ([`projection::Projection`], one module per read model) up to the head of the log.

mod act;
pub mod by_run;
pub mod erasure;
pub mod metrics;
pub mod projection;
pub mod retention;
mod rows;
mod run_stats;
mod run_status;
mod run_timeline;
pub mod runner;
pub mod verify;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use event_log::start::{self, Role};
use service::config::{Config, ConfigError, LoadedConfig, Source};
use service::database;
use service::health::Health;
use service::metrics::MetricsRegistry;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use metrics::Metrics;
use projection::Projection;
use runner::{Readiness, Runner, Settings};
use verify::sampler::Sampler;

pub use run_stats::RunStatsProjection;
pub use run_status::RunStatusProjection;
pub use run_timeline::RunTimelineProjection;

/// Where health and metrics are served unless `telemetry.listen` says otherwise.
pub const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9601);

const PROJECTIONS_KEY: &str = "projectors.projections";

/// The whole process: works until `shutdown` is cancelled.
///
/// # Errors
/// A configuration that cannot be used, a database that does not answer at the start or lacks
/// migrations, or one that refuses the work later on.
pub async fn run(config: &Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let projections = projections(&config.projectors.projections, Source::Default)?;
    let pool = database::pool(&config.database, "runlog-projectors")?;
    let registry = MetricsRegistry::new();
    let metrics = Metrics::register(&registry).context("cannot register the metrics")?;
    let health = Health::new(&[runner::DATABASE, runner::PROJECTIONS]);
    let listen = config.telemetry.listen_address(DEFAULT_LISTEN)?;
    // It outlives the work, so that probes are answered while the process drains.
    let serving = CancellationToken::new();
    let stop_serving = serving.clone().drop_guard();
    let server = service::http::serve(listen, registry, health.clone(), serving).await?;
    tracing::info!(listen = %server.local_addr, projections = ?config.projectors.projections,
        "runlog-projectors {} starts", service::metrics::VERSION);

    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        usable = usable(&pool, config) => usable?,
    }
    let settings = Settings::from(&config.projectors);
    let readiness = Readiness::new(health);
    let sampler = Sampler {
        pool: pool.clone(),
        projections: projections.clone(),
        metrics: metrics.clone(),
        interval: config.projectors.verify_interval,
    };
    if !sampler.interval.is_zero() {
        tokio::spawn(sampler.run(shutdown.clone()));
    }
    let runner = Runner::new(
        pool.clone(),
        projections,
        service::process_name(),
        settings,
        metrics,
        readiness,
    );
    let worked = runner.run(shutdown).await;
    drop(stop_serving);
    pool.close().await;
    worked?;
    tracing::info!("stopped");
    Ok(())
}

/// The database answers, has this build's schema, and our login may do what it should.
async fn usable(pool: &PgPool, config: &Config) -> anyhow::Result<()> {
    database::wait_reachable(pool, &config.database, database::START_WAIT).await?;
    let allow = config.database.allow_powerful_login;
    start::check(pool, Role::Projector, allow, database::START_WAIT).await?;
    Ok(())
}

/// Whether the projections named in the configuration exist. [`run`] checks it too, but only the
/// loaded configuration knows where the names were set.
///
/// # Errors
/// [`ConfigError::Invalid`].
pub fn check(loaded: &LoadedConfig) -> Result<(), ConfigError> {
    let names = &loaded.config.projectors.projections;
    projections(names, loaded.source(PROJECTIONS_KEY)).map(drop)
}

fn projections(names: &[String], origin: Source) -> Result<Vec<Arc<dyn Projection>>, ConfigError> {
    let by_name = |name: &String| {
        projection::by_name(name).ok_or_else(|| ConfigError::Invalid {
            key: PROJECTIONS_KEY.to_owned(),
            origin: origin.clone(),
            detail: format!(
                "names {name:?}; there are: {}",
                projection::NAMES.join(", ")
            ),
        })
    };
    names.iter().map(by_name).collect()
}
