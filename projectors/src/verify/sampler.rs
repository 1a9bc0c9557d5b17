//! Verifies a few runs at a time, always, in a task of the process: chosen at random, so that in the
//! long run all are looked at. What it finds is counted and logged; it changes nothing.

use std::sync::Arc;
use std::time::Duration;

use event_log::read::last_run_no;
use sqlx::{ConnectOptions as _, PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use super::Verifier;
use crate::metrics::Metrics;
use crate::projection::{Projection, ProjectionError};
use crate::runner::versions::{self, Version};

/// Run numbers of one look.
const RUNS: i64 = 20;
/// How long to wait after a failure.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

/// What the sampler works with.
pub(crate) struct Sampler {
    /// Only for how to connect: its own connection is none of the pool's.
    pub(crate) pool: PgPool,
    pub(crate) projections: Vec<Arc<dyn Projection>>,
    pub(crate) metrics: Metrics,
    /// How often some runs of each projection are verified.
    pub(crate) interval: Duration,
}

impl Sampler {
    /// Works until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let work = async {
            loop {
                if let Err(error) = self.work().await {
                    let error = crate::runner::chain(&error);
                    tracing::debug!(error, "cannot verify runs now; trying again");
                }
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    /// Until something fails, or a version is no longer the live one.
    async fn work(&self) -> Result<(), ProjectionError> {
        let doing = ProjectionError::while_doing;
        let options = self.pool.connect_options();
        let mut connection = options.connect().await.map_err(doing("cannot connect"))?;
        let names: Vec<String> = self
            .projections
            .iter()
            .map(|p| p.name().to_owned())
            .collect();
        let mut verifiers: Vec<Verifier> = Vec::new();
        loop {
            tokio::time::sleep(self.interval).await;
            let versions = versions::kept(&mut connection, &names)
                .await
                .map_err(doing("cannot read the versions"))?;
            let live: Vec<Version> = versions.into_iter().filter(|v| v.is_live).collect();
            if !verifiers.iter().map(|v| &v.version).eq(&live) {
                verifiers = make(&mut connection, live)
                    .await
                    .map_err(doing("cannot make tables to verify with"))?;
            }
            let last = last_run_no(&mut connection)
                .await
                .map_err(doing("cannot read the log's runs"))?;
            for verifier in &verifiers {
                self.look(&mut connection, verifier, last).await?;
            }
        }
    }

    async fn look(
        &self,
        connection: &mut PgConnection,
        verifier: &Verifier,
        last_run_no: i64,
    ) -> Result<(), ProjectionError> {
        let version = &verifier.version;
        let mut projections = self.projections.iter();
        let Some(projection) = projections.find(|p| p.name() == version.projection) else {
            return Ok(());
        };
        let after = rand::random_range(0..=last_run_no.max(1)) - 1;
        let verified = verifier
            .runs(connection, &**projection, after, after + RUNS)
            .await?;
        let label = &[version.projection.as_str()];
        let metrics = &self.metrics;
        metrics
            .verified_runs
            .with_label_values(label)
            .inc_by(verified.runs);
        metrics
            .mismatches
            .with_label_values(label)
            .inc_by(verified.differences);
        for line in &verified.lines {
            tracing::error!(
                projection = version.projection,
                "the read model is not what the log gives: {line}; see `runlog verify --projections`, \
                 and `runlog rebuild`"
            );
        }
        Ok(())
    }
}

/// A verifier of each version; those from before are gone with their tables.
async fn make(
    connection: &mut PgConnection,
    versions: Vec<Version>,
) -> Result<Vec<Verifier>, sqlx::Error> {
    sqlx::raw_sql("DISCARD TEMP")
        .execute(&mut *connection)
        .await?;
    let mut verifiers = Vec::new();
    for version in versions {
        verifiers.push(Verifier::new(connection, version).await?);
    }
    Ok(verifiers)
}
