//! `runlog rebuild`: builds a projection anew from the log, beside the one that is read, and moves the
//! views over once both are known to say the same.
//!
//! The projectors do the work: the new version is one more reader of the log to them. This command
//! begins it, watches ([`watch`]), compares ([`compare`]) and switches ([`switch`]); for the last two both
//! versions stand at the same place ([`hold`]). It may be killed at any moment and started again: it
//! goes on with the version that is being built.

mod compare;
mod hold;
mod switch;
mod watch;

use anyhow::bail;
use event_log::fault::sqlstate;
use runlog_projectors::runner::versions::Version;
use serde::Serialize;
use service::exit::Exit;
use sqlx::PgPool;

use crate::app::App;
use crate::database::{connect_patiently, failed};
use crate::format::count;
use crate::output::note;

/// Build a projection anew from the log, compare it, and switch the views to it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog rebuild run_status                        build, compare, switch
  runlog rebuild run_status --accept-differences   switch although the two differ: the old one is wrong
  runlog rebuild run_status --drop 1               remove a version that is not read any more

Readers notice nothing: the views move over in one transaction, and only when the new version has come at
least as far as the old one. runlog-projectors must run; it builds the new version beside the live one.
Ended in the middle, the same command goes on where it was. The old version is kept until it is dropped.
Exit code 1 if the versions differ: the differences are listed, and nothing is switched.")]
pub(crate) struct Args {
    /// The projection, e.g. run_status
    projection: String,

    /// Switch although the new version differs from the live one
    #[arg(long, conflicts_with = "drop")]
    accept_differences: bool,

    /// Remove this version, live or being built no more, with its tables
    #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(i32).range(1..))]
    drop: Option<i32>,
}

/// The two versions of a rebuild.
#[derive(Debug, Clone)]
struct Versions {
    projection: String,
    live: i32,
    new: i32,
}

impl Versions {
    fn live(&self) -> Version {
        Version {
            projection: self.projection.clone(),
            version: self.live,
            is_live: true,
        }
    }

    fn new_one(&self) -> Version {
        Version {
            version: self.new,
            is_live: false,
            ..self.live()
        }
    }
}

/// What was done.
#[derive(Debug, Serialize)]
struct Report {
    projection: String,
    /// The version that is read now.
    live: i32,
    /// The one before, which is kept.
    kept: i32,
    /// Events that the new version was built from, as far as it had come when it was first close enough.
    events: i64,
    /// Rows that were compared.
    rows: i64,
    /// Rows that differ or are in one version only.
    differences: i64,
}

pub(crate) async fn run(args: &Args, app: &App) -> anyhow::Result<Exit> {
    let pool = connect_patiently(&app.config().database).await?;
    if let Some(version) = args.drop {
        return drop_version(&pool, &args.projection, version).await;
    }
    let versions = begin(&pool, &args.projection).await?;
    let events = watch::until_caught_up(&pool, &versions).await?;
    let compared = compare::run(&pool, &versions).await?;
    if compared.parked > 0 {
        note(format!(
            "Parked runs that were not compared: {}; sums over them may differ. See `runlog runs parked`.",
            count(compared.parked)
        ));
    }
    if compared.differences > 0 && !args.accept_differences {
        compared.tell(&versions);
        return Ok(Exit::Problem);
    }
    switch::run(&pool, &versions).await?;
    let report = Report {
        projection: versions.projection.clone(),
        live: versions.new,
        kept: versions.live,
        events,
        rows: compared.rows,
        differences: compared.differences,
    };
    app.output.document(&report, |_| {
        format!(
            "{} is read from version {} now; version {} is kept as it was.",
            report.projection, report.live, report.kept
        )
    })?;
    note(format!(
        "Remove the old one with `runlog rebuild {} --drop {}`.",
        report.projection, report.kept
    ));
    Ok(Exit::Done)
}

/// The versions of the rebuild: the one that is under way, or a new one.
async fn begin(pool: &PgPool, projection: &str) -> anyhow::Result<Versions> {
    let known: Vec<(i32, String)> = sqlx::query_as(
        "SELECT version, state FROM read_model.projection_version WHERE projection = $1 ORDER BY version",
    )
    .bind(projection)
    .fetch_all(pool)
    .await
    .map_err(|error| failed(error, "look for the projection's versions"))?;
    let in_state = |wanted: &str| {
        let mut known = known.iter();
        known.find(|(_, state)| state == wanted).map(|(v, _)| *v)
    };
    let Some(live) = in_state("live") else {
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT projection FROM read_model.projection_version WHERE state = 'live' ORDER BY 1",
        )
        .fetch_all(pool)
        .await
        .map_err(|error| failed(error, "look for the projections"))?;
        bail!(
            "there is no projection {projection:?}; there are: {}",
            names.join(", ")
        );
    };
    let new = match in_state("building") {
        Some(new) => {
            note(format!(
                "Going on with version {new}, which is being built."
            ));
            new
        }
        None => {
            let new = sqlx::query_scalar("SELECT read_model.begin_rebuild($1)")
                .bind(projection)
                .fetch_one(pool)
                .await;
            let new = match new {
                // unique_violation
                Err(error) if sqlstate(&error).as_deref() == Some("23505") => bail!(
                    "another command began a rebuild of {projection} at the same moment: run this again to go \
                     on with it"
                ),
                new => new.map_err(|error| failed(error, "make the tables of the new version"))?,
            };
            note(format!(
                "Version {new} of {projection} is built beside version {live}, which is read."
            ));
            new
        }
    };
    Ok(Versions {
        projection: projection.to_owned(),
        live,
        new,
    })
}

async fn drop_version(pool: &PgPool, projection: &str, version: i32) -> anyhow::Result<Exit> {
    switch::remove(pool, projection, version).await?;
    note(format!("Version {version} of {projection} is removed."));
    Ok(Exit::Done)
}
