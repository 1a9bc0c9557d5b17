//! `runlog verify --projections`: compares the read models with a fresh fold of the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use anyhow::Context as _;
use event_log::read::last_run_no;
use runlog_projectors::projection::{self, Projection};
use runlog_projectors::runner::versions::{self, Version};
use runlog_projectors::verify::{Verified, Verifier};
use serde::Serialize;
use sqlx::{Connection as _, PgConnection, PgPool};

use crate::database::failed;
use crate::format::count;
use crate::output::{Output, note, text};
use crate::progress::Progress;

/// Run numbers that a worker takes at once.
const RUNS: i64 = 200;
/// Differences that are told of each projection.
const TOLD: usize = 20;

/// What was found of one projection.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    projection: String,
    version: i32,
    runs: u64,
    events: u64,
    rows: u64,
    differences: u64,
    /// Of all rows that the fold gives, 16 hexadecimal digits.
    digest: String,
}

impl Report {
    pub(super) fn is_well(&self) -> bool {
        self.differences == 0
    }
}

/// The projections of these names; no name = all.
pub(super) fn wanted(names: &[String]) -> anyhow::Result<Vec<Arc<dyn Projection>>> {
    let known = |name: &str| {
        projection::by_name(name).with_context(|| {
            format!(
                "there is no projection {name:?}; there are: {}",
                projection::NAMES.join(", ")
            )
        })
    };
    if names.is_empty() {
        projection::NAMES.iter().map(|name| known(name)).collect()
    } else {
        names.iter().map(|name| known(name)).collect()
    }
}

/// Verifies the live version of each.
pub(super) async fn verify(
    pool: &PgPool,
    projections: &[Arc<dyn Projection>],
    workers: usize,
) -> anyhow::Result<Vec<Report>> {
    let names: Vec<String> = projections.iter().map(|p| p.name().to_owned()).collect();
    let mut connection = pool
        .acquire()
        .await
        .map_err(|error| failed(error, "connect"))?;
    let versions = versions::kept(&mut connection, &names)
        .await
        .map_err(|error| failed(error, "read the projections' versions"))?;
    drop(connection);
    let mut reports = Vec::new();
    for version in versions.into_iter().filter(|version| version.is_live) {
        let mut of_it = projections.iter();
        if let Some(projection) = of_it.find(|p| p.name() == version.projection) {
            let verified = verify_one(pool, projection, &version, workers).await?;
            reports.push(tell(version, verified));
        }
    }
    Ok(reports)
}

/// Verifies all runs that there are now.
async fn verify_one(
    pool: &PgPool,
    projection: &Arc<dyn Projection>,
    version: &Version,
    workers: usize,
) -> anyhow::Result<Verified> {
    let mut connection = pool
        .acquire()
        .await
        .map_err(|error| failed(error, "connect"))?;
    let last = last_run_no(&mut connection)
        .await
        .map_err(|error| failed(error, "read the log's runs"))?;
    drop(connection);
    let (next, events) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..workers {
        let (options, projection, version) = (
            pool.connect_options(),
            Arc::clone(projection),
            version.clone(),
        );
        let (next, events) = (Arc::clone(&next), Arc::clone(&events));
        tasks.spawn(async move {
            let mut connection = PgConnection::connect_with(&options)
                .await
                .context("cannot connect")?;
            let verifier = Verifier::new(&mut connection, version)
                .await
                .context("cannot make tables to verify with")?;
            let mut all = Verified::default();
            loop {
                let after = next.fetch_add(RUNS, Ordering::Relaxed);
                if after >= last {
                    return anyhow::Ok(all);
                }
                let to = (after + RUNS).min(last);
                let some = verifier
                    .runs(&mut connection, &*projection, after, to)
                    .await?;
                events.fetch_add(some.events, Ordering::Relaxed);
                all.add(some);
            }
        });
    }
    let mut progress = Progress::start(
        Some(last.unsigned_abs()),
        &format!("{}: {{human_pos}}/{{human_len}} runs", version.projection),
    );
    let mut verified = Verified::default();
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(200));
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                None => break,
                Some(ended) => verified.add(ended.context("a worker panicked, which is a bug")??),
            },
            _ = tick.tick() => {
                let at = next.load(Ordering::Relaxed).min(last);
                progress.at(at.unsigned_abs(), events.load(Ordering::Relaxed));
            }
        }
    }
    progress.finish();
    Ok(verified)
}

fn tell(version: Version, verified: Verified) -> Report {
    for line in verified.lines.iter().take(TOLD) {
        note(format!("{}: {line}", version.projection));
    }
    if verified.differences > 0 {
        note(format!(
            "{}: {} rows differ. `runlog rebuild {} --accept-differences` builds it anew.",
            version.projection,
            count(i64::try_from(verified.differences).unwrap_or(i64::MAX)),
            version.projection
        ));
    }
    Report {
        projection: version.projection,
        version: version.version,
        runs: verified.runs,
        events: verified.events,
        rows: verified.rows,
        differences: verified.differences,
        digest: format!("{:016x}", verified.digest),
    }
}

pub(super) fn table(reports: &[Report], output: &Output) -> String {
    let mut table = output.table(&[
        "PROJECTION",
        "VERSION",
        "RUNS",
        "EVENTS",
        "ROWS",
        "DIFFERENCES",
        "DIGEST",
    ]);
    for report in reports {
        table.add_row(vec![
            report.projection.clone(),
            report.version.to_string(),
            report.runs.to_string(),
            report.events.to_string(),
            report.rows.to_string(),
            report.differences.to_string(),
            report.digest.clone(),
        ]);
    }
    text(&table)
}
