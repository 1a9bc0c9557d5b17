//! `runlog status`: where every partition and projection is, and how far behind.

mod gather;
mod report;

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use service::config::Config;
use service::exit::Exit;
use sqlx::PgPool;

use self::report::Report;
use crate::app::App;
use crate::database::connect;
use crate::kafka::probe::Probe;
use crate::output::note;

/// How often --wait looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How often --wait writes a line where stderr is no terminal and nothing changed.
const LINE: Duration = Duration::from_secs(10);

/// Show how far ingest and the projections are, and how far behind
///
/// For each partition: the end of the Kafka log, the offset stored in the database, and the ledger
/// of what became of the offsets in between. For each projection and partition: its checkpoint, and
/// its lag in events and in seconds (the age of the oldest event that it has not applied).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog status
  runlog status --wait --timeout 5m
  runlog status -o json | jq .totals

Exit codes: 0 shown (with --wait: every lag is 0), 1 a lag is left after the timeout,
3 Kafka or PostgreSQL does not answer.")]
pub(crate) struct Args {
    /// Wait until every lag is 0
    #[arg(long)]
    wait: bool,

    /// With --wait: how long at most, such as 30s or 5m
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Where the facts come from.
struct Sources {
    probe: Arc<Probe>,
    pool: PgPool,
    config: Config,
}

pub(crate) async fn run(args: &Args, app: &App) -> anyhow::Result<Exit> {
    let config = app.config().clone();
    let sources = Sources {
        probe: Arc::new(Probe::new(&config.kafka)?),
        pool: connect(&config.database).await?,
        config,
    };
    if args.wait {
        return wait(args, app, &sources).await;
    }
    let report = gather::report(&sources).await?;
    tell_missing(&report);
    app.output
        .document(&report, |output| report.tables(output))?;
    Ok(Exit::Done)
}

async fn wait(args: &Args, app: &App, sources: &Sources) -> anyhow::Result<Exit> {
    let deadline = Instant::now() + args.timeout;
    let mut watched = Watched::new();
    loop {
        let late = Instant::now() >= deadline;
        match gather::report(sources).await {
            Ok(report) if report.is_settled() => {
                watched.clear();
                app.output
                    .document(&report, |output| report.tables(output))?;
                return Ok(Exit::Done);
            }
            Ok(report) if late => {
                watched.clear();
                tell_missing(&report);
                app.output
                    .document(&report, |output| report.tables(output))?;
                let timeout = humantime::format_duration(args.timeout);
                note(format!("After {timeout} a lag is left: {}", report.lags()));
                return Ok(Exit::Problem);
            }
            Ok(report) => watched.show(&report, &app.output),
            Err(error) if late => return Err(error),
            // A broker or a database that restarts is one of the things to wait for.
            Err(error) => watched.line(&format!("{error:#}")),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn tell_missing(report: &Report) {
    for topic in &report.missing_topics {
        note(format!(
            "Kafka has no topic {topic}, which ingest.topics names: create it, or correct the configuration"
        ));
    }
}

/// What --wait shows on stderr meanwhile: the tables, drawn again in place, or lines.
struct Watched {
    terminal: bool,
    drawn: usize,
    told: String,
    tell_again: Instant,
}

impl Watched {
    fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            drawn: 0,
            told: String::new(),
            tell_again: Instant::now(),
        }
    }

    fn show(&mut self, report: &Report, output: &crate::output::Output) {
        if !self.terminal {
            return self.line(&report.lags());
        }
        let text = report.tables(output);
        self.clear();
        note(&text);
        self.drawn = text.lines().count();
    }

    /// A line, unless it would say the same as the last one.
    fn line(&mut self, text: &str) {
        self.clear();
        if text == self.told && Instant::now() < self.tell_again {
            return;
        }
        note(text);
        text.clone_into(&mut self.told);
        self.tell_again = Instant::now() + LINE;
    }

    /// Takes the drawn tables off the terminal.
    fn clear(&mut self) {
        if self.drawn > 0 {
            let _ = write!(std::io::stderr(), "\x1b[{}A\x1b[J", self.drawn);
            self.drawn = 0;
        }
    }
}
