//! `runlog doctor`: checks everything that Runlog stands on, a line each, with the way out.

mod kafka;
mod postgres;

use serde::Serialize;
use service::config::ConfigArgs;
use service::exit::Exit;

use crate::app::App;
use crate::output::{Format, Output, text};

/// Check configuration, PostgreSQL and Kafka, and say what to do about problems
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog doctor
  runlog doctor --config /etc/runlog.toml -o json | jq '.[] | select(.verdict != \"ok\")'

Changes nothing. A warning is worth a look; a problem keeps Runlog from working, or from keeping
its promises.

Exit codes: 0 no problem was found, 1 a problem was found.")]
pub(crate) struct Args {}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Problem,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// One line.
#[derive(Debug, Serialize)]
struct Check {
    verdict: Verdict,
    /// What was looked at.
    check: String,
    /// What was found.
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    way_out: Option<String>,
}

impl Check {
    fn ok(check: &str, found: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Ok,
            check: check.to_owned(),
            found: found.into(),
            way_out: None,
        }
    }

    fn warning(check: &str, found: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Warning,
            way_out: Some(way_out.into()),
            ..Self::ok(check, found)
        }
    }

    fn problem(check: &str, found: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Problem,
            ..Self::warning(check, found, way_out)
        }
    }

    /// A problem whose error says all there is to say.
    fn failed(check: &str, error: &anyhow::Error) -> Self {
        Self {
            verdict: Verdict::Problem,
            ..Self::ok(check, format!("{error:#}"))
        }
    }
}

pub(crate) async fn run(_: &Args, config: &ConfigArgs, format: Format) -> anyhow::Result<Exit> {
    let (checks, output) = match App::load(config, format) {
        Err(error) => (
            vec![Check::failed("configuration", &error)],
            Output::new(format),
        ),
        Ok(app) => {
            let set = app.loaded.entries();
            let set = set
                .iter()
                .filter(|entry| entry.source != service::config::Source::Default);
            let found = format!("loads; {} keys are set", set.count());
            let mut checks = vec![Check::ok("configuration", found)];
            checks.extend(postgres::checks(&app.config().database).await);
            let config = app.config().clone();
            checks.extend(tokio::task::spawn_blocking(move || kafka::checks(&config)).await?);
            (checks, app.output)
        }
    };
    output.document(&checks, |output| table(&checks, output))?;
    let problem = checks.iter().any(|check| check.verdict == Verdict::Problem);
    Ok(if problem { Exit::Problem } else { Exit::Done })
}

fn table(checks: &[Check], output: &Output) -> String {
    let mut table = output.table(&["VERDICT", "CHECK", "FOUND", "WAY OUT"]);
    for check in checks {
        table.add_row(vec![
            output.status(check.verdict.name()),
            (&check.check).into(),
            (&check.found).into(),
            check.way_out.as_deref().unwrap_or("").into(),
        ]);
    }
    text(&table)
}
