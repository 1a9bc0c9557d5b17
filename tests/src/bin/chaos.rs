//! `runlog-chaos`: the chaos harness as a program. Called by dev/chaos, which builds the product with
//! failpoints and says where things are.
//!
//! Environment: `RUNLOG_TEST_DIR` (an empty folder for the stack, logs and results),
//! `RUNLOG_TEST_BIN_DIR` (programs with failpoints), `CHAOS_MINUTES` (how long, default 2),
//! `CHAOS_SEED` (default: random, printed), `CHAOS_ROUND` (only this round), `CHAOS_ROUND_SECONDS`
//! (faults in one round, default 60), `CHAOS_RATE` (records a second, default 2000).
#![allow(clippy::print_stdout)]

use anyhow::{Context, Result};
use runlog_tests::Environment;
use runlog_tests::chaos::round::play;
use runlog_tests::chaos::schedule::plan;
use runlog_tests::chaos::servers::Servers;
use runlog_tests::chaos::tally::Tally;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::{Duration, Instant};

struct Options {
    minutes: u64,
    seed: u64,
    only: Option<u64>,
    round: Duration,
    rate: u32,
}

fn number<T: FromStr>(name: &str) -> Result<Option<T>> {
    let Some(text) = std::env::var(name).ok().filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let parsed = text.parse().ok();
    parsed
        .map(Some)
        .with_context(|| format!("{name} is {text:?}; it must be a whole number"))
}

impl Options {
    fn from_env() -> Result<Self> {
        Ok(Self {
            minutes: number("CHAOS_MINUTES")?.unwrap_or(2),
            seed: number("CHAOS_SEED")?.unwrap_or_else(|| rand::random_range(1..1_000_000)),
            only: number("CHAOS_ROUND")?,
            round: Duration::from_secs(number("CHAOS_ROUND_SECONDS")?.unwrap_or(60)),
            rate: number("CHAOS_RATE")?.unwrap_or(2_000),
        })
    }
}

/// One heap for all threads: each round's records and rows would stay in the heap of the thread that
/// read them, and there is one for many threads.
#[allow(unsafe_code)]
fn share_one_heap() {
    // SAFETY: called before any other thread exists.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

fn main() -> ExitCode {
    share_one_heap();
    work()
}

#[tokio::main]
async fn work() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("runlog-chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<bool> {
    let options = Options::from_env()?;
    let dir =
        PathBuf::from(std::env::var("RUNLOG_TEST_DIR").context("RUNLOG_TEST_DIR is not set")?);
    let programs = PathBuf::from(
        std::env::var("RUNLOG_TEST_BIN_DIR").context("RUNLOG_TEST_BIN_DIR is not set")?,
    );
    let environment = Environment {
        kafka: String::new(),
        database_url: String::new(),
        scratch: dir.clone(),
        programs,
    };
    eprintln!(
        "seed {} (SEED={} plays the same again)",
        options.seed, options.seed
    );
    let mut servers = Servers::start(&environment, &dir.join("stack")).await?;
    let total = tokio::select! {
        total = rounds(&options, &mut servers, &dir) => total,
        // What was started is ended by its drop.
        () = told_to_stop() => Err(anyhow::anyhow!("told to stop")),
    };
    servers.stop().await?;
    let total = total?;
    println!("{total}");
    Ok(total.violations.is_empty())
}

/// SIGINT or SIGTERM.
async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

async fn rounds(options: &Options, servers: &mut Servers, dir: &Path) -> Result<Tally> {
    let started = Instant::now();
    let mut total = Tally::default();
    let mut round = options.only.unwrap_or_default();
    loop {
        let plan = plan(options.seed, round, options.round);
        let scratch = dir.join(format!("round-{round}"));
        eprintln!(
            "round {round}: {:?}, {:?}, {} partitions, {} faults in {:?}",
            plan.pace,
            plan.protocol,
            plan.partitions,
            plan.faults.len(),
            plan.lasts
        );
        std::fs::create_dir_all(&scratch)?;
        let listed: Vec<_> = plan
            .faults
            .iter()
            .map(|(at, fault)| format!("{:>6.1} s  {fault}\n", at.as_secs_f64()))
            .collect();
        std::fs::write(scratch.join("schedule.txt"), listed.concat())?;
        let repeat = format!(
            "make chaos SEED={} ROUND={round} ROUND_SECONDS={} RATE={}",
            options.seed,
            options.round.as_secs(),
            options.rate
        );
        let tally = play(servers, &plan, options.rate, &scratch)
            .await
            .with_context(|| {
                format!(
                    "round {round}; logs are in {}; again: {repeat}",
                    scratch.display()
                )
            })?;
        eprintln!(
            "round {round}: {} sent = {} appended + {} duplicates + {} dead letters, {} kills, {} violations",
            tally.sent,
            tally.appended,
            tally.duplicates,
            tally.dead_letters,
            tally.count("kill "),
            tally.violations.len()
        );
        if tally.violations.is_empty() {
            std::fs::remove_dir_all(&scratch)?;
        } else {
            std::fs::write(scratch.join("violations.txt"), tally.violations.join("\n"))?;
            eprintln!(
                "logs, schedule and violations are in {}; again: {repeat}",
                scratch.display()
            );
        }
        let failed = !tally.violations.is_empty();
        total.add(tally);
        total.save(&dir.join("summary.json"), options.seed, started.elapsed())?;
        round += 1;
        // A round takes longer than its faults; one that would not fit is not begun.
        let next_ends = started.elapsed() + options.round;
        if failed || options.only.is_some() || next_ends > Duration::from_secs(60 * options.minutes)
        {
            return Ok(total);
        }
    }
}
