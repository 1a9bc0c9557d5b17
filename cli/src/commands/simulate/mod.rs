//! `runlog simulate`: a realistic orchestrator that publishes runs, with faults in known numbers,
//! and reports exactly what must become of them.

mod faults;
mod generator;
#[cfg(test)]
mod generator_tests;
mod pace;
mod payload;
mod script;
mod world;

use std::time::{Duration, Instant};

use chrono::Utc;
use run_events::Micros;
use serde::Serialize;
use service::config::Config;
use service::exit::Exit;
use tokio_util::sync::CancellationToken;

use self::generator::{Generator, Options, Tally};
use self::pace::Pace;
use super::publish::topic_or_default;
use crate::app::App;
use crate::format::count;
use crate::kafka::publisher::{Publisher, Record};
use crate::kafka::topics;
use crate::output::{Output, note, text};
use crate::progress::Progress;

/// A signal is noticed this often while waiting for the next record's turn.
const LOOK_UP: Duration = Duration::from_millis(100);

/// Publish simulated runs, with faults in known numbers
///
/// Many runs go on side by side, each with steps, retries with backoff, pauses, cancellations and
/// failures. The report says exactly what must become of the records: how many are appended, how
/// many are duplicates or dead letters, and how many runs end in which status.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog simulate --runs 100
  runlog simulate --runs 5000 --rate 2000 --duplicates 5 --malformed 1 --invalid-transitions 1
  runlog simulate --runs 1000 --create-topic 6 -o json > expected.json
  runlog status --wait && runlog runs summary --all-tenants

The same seed makes the same runs. Published once more, every event of them is a duplicate.
Ctrl-C stops cleanly: the report then counts what was sent, and the runs as they stand.
emittedAt lies within the last day, whatever the number of runs.")]
pub(crate) struct Args {
    /// How many runs
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    runs: u64,

    /// Records per second; 0 = no limit
    #[arg(long, default_value_t = 0, value_name = "PER_SECOND")]
    rate: u32,

    /// Seed; without one each simulation has runs of its own
    #[arg(long)]
    seed: Option<u64>,

    /// The topic [default: the first of ingest.topics]
    #[arg(long)]
    topic: Option<String>,

    /// How many tenants
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    tenants: u32,

    /// How many runs are active at once
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    active: u32,

    /// Events that are published again later, in percent
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT", value_parser = percent)]
    duplicates: f64,

    /// Records that are no valid events, in percent of the events
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT", value_parser = percent)]
    malformed: f64,

    /// Events that their run's state does not allow, in percent of the events
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT", value_parser = percent)]
    invalid_transitions: f64,

    /// Events of types that the log does not know, in percent of the events
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT", value_parser = percent)]
    unknown_types: f64,

    /// Create the topic with this many partitions, unless it is there
    #[arg(long, value_name = "PARTITIONS", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    create_topic: Option<i32>,
}

/// What was sent, and what must become of it.
#[derive(Debug, Serialize)]
struct Report {
    topic: String,
    seed: u64,
    #[serde(flatten)]
    tally: Tally,
    seconds: f64,
}

pub(crate) async fn run(args: &Args, app: &App) -> anyhow::Result<Exit> {
    let stop = service::shutdown::install();
    let config = app.config().clone();
    let topic = topic_or_default(args.topic.as_deref(), &config);
    let options = args.options();
    let (rate, create) = (args.rate, args.create_topic);
    let (report, stopped) = tokio::task::spawn_blocking(move || {
        if let Some(partitions) = create {
            topics::create(&config.kafka, &topic, partitions)?;
        }
        topics::require(&config.kafka, &topic)?;
        simulate(&config, topic, options, rate, &stop)
    })
    .await??;
    app.output
        .document(&report, |output| table(&report, output))?;
    if stopped {
        note("Stopped early: the report counts what was sent.");
    }
    Ok(Exit::Done)
}

fn simulate(
    config: &Config,
    topic: String,
    options: Options,
    rate: u32,
    stop: &CancellationToken,
) -> anyhow::Result<(Report, bool)> {
    let seed = options.seed;
    let mut publisher = Publisher::new(config, &topic)?;
    let mut progress = Progress::start(Some(options.runs), "{pos}/{len} runs");
    let mut generator = Generator::new(options);
    let mut pace = Pace::new(f64::from(rate));
    let started = Instant::now();
    let mut sent = 0;
    let mut stopped = false;
    loop {
        if !stopped && stop.is_cancelled() {
            stopped = true;
            generator.stop();
        }
        let Some(outgoing) = generator.next() else {
            break;
        };
        let mut wait = pace.wait(started.elapsed());
        while !wait.is_zero() && !stop.is_cancelled() {
            let slice = wait.min(LOOK_UP);
            publisher.take_reports(slice)?;
            wait -= slice;
        }
        publisher.send(&Record {
            key: Some(&outgoing.run_id),
            value: &outgoing.value,
        })?;
        sent += 1;
        progress.at(generator.runs_over(), sent);
    }
    publisher.finish()?;
    let seconds = progress.finish().as_secs_f64();
    let tally = generator.tally();
    let report = Report {
        topic,
        seed,
        tally,
        seconds,
    };
    Ok((report, stopped))
}

fn table(report: &Report, output: &Output) -> String {
    let tally = &report.tally;
    let mut counts = output.table(&["RECORDS", "MUST BECOME"]);
    let expected = &tally.expected;
    for (what, number) in [
        ("appended", expected.appended),
        ("duplicates", expected.duplicates),
        ("dead letters", expected.dead_letters),
    ] {
        counts.add_row([&count(number), what]);
    }
    let mut runs = output.table(&["RUNS", "STATUS"]);
    for (status, number) in &tally.runs_by_status {
        runs.add_row(vec![count(*number).into(), output.status(status)]);
    }
    format!(
        "{}\n\n{}\n\n{} runs, {} of them inconsistent; {} records to {} in {:.1} s (seed {})",
        text(&counts),
        text(&runs),
        count(tally.runs),
        count(tally.inconsistent_runs),
        count(tally.published),
        report.topic,
        report.seconds,
        report.seed
    )
}

impl Args {
    fn options(&self) -> Options {
        Options {
            // Short enough to be typed again.
            seed: self
                .seed
                .unwrap_or_else(|| u64::from(rand::random::<u32>())),
            runs: self.runs,
            tenants: self.tenants as usize,
            active: self.active as usize,
            duplicates: self.duplicates / 100.0,
            malformed: self.malformed / 100.0,
            invalid_transitions: self.invalid_transitions / 100.0,
            unknown_types: self.unknown_types / 100.0,
            now: Micros::from(Utc::now()),
        }
    }
}

/// A share in percent.
fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text
        .parse()
        .map_err(|_| "a number of percent, such as 2.5".to_owned())?;
    if (0.0..=100.0).contains(&number) {
        Ok(number)
    } else {
        Err("must lie between 0 and 100".to_owned())
    }
}
