//! `runlog-bench`: measures the product against what its database could do at most, on real servers
//! that `dev/bench` starts for it. This file only wires; each module is a measurement or what it needs.

mod compare;
mod database;
mod drain;
mod flat;
mod floor;
mod generator;
mod goals;
mod idle;
mod latency;
mod load;
mod machine;
mod meter;
mod program;
mod progress;
mod projection;
mod report;
mod scaling;
mod stack;
mod stats;
mod usage;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::stack::Stack;

/// Measures Runlog against the limit that its database sets, in pairs, on the same servers.
///
/// `dev/bench` starts a Kafka and a PostgreSQL for it and removes them afterwards: use that.
#[derive(Parser)]
#[command(
    name = "runlog-bench",
    version,
    after_help = "Examples:\n  dev/bench\n  make bench EVENTS=1000000 PAIRS=9 EVENT_IDS=v4\n  \
    dev/bench flat 3000000\n\nWhile one runs: . .runlog/bench/stack/env and dev/stack psql --dir .runlog/bench/stack."
)]
struct Args {
    #[command(flatten)]
    stack: Stack,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The COPY floor, ingest, each projection, all together, latency, and doing nothing
    Compare(compare::Args),
    /// Drains of 1, 2, 4 and 8 partitions by 1, 2 and 4 ingest processes
    Scaling(scaling::Args),
    /// Drains into a log that holds much beside one that holds little
    Flat(flat::Args),
}

fn main() -> ExitCode {
    let args = Args::parse();
    match start(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress::failure(&error);
            ExitCode::FAILURE
        }
    }
}

/// A signal drops what is under way, and with it the programs that were started.
#[tokio::main]
async fn start(args: &Args) -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    tokio::select! {
        result = measure(args) => result,
        _ = terminated.recv() => Err(anyhow::anyhow!("terminated")),
        _ = interrupted.recv() => Err(anyhow::anyhow!("interrupted")),
    }
}

async fn measure(args: &Args) -> anyhow::Result<()> {
    let logs = &args.stack.logs;
    std::fs::create_dir_all(logs).with_context(|| format!("cannot make {}", logs.display()))?;
    match &args.command {
        Command::Compare(compare) => compare::run(&args.stack, compare).await,
        Command::Scaling(scaling) => scaling::run(&args.stack, scaling).await,
        Command::Flat(flat) => flat::run(&args.stack, flat).await,
    }
}
