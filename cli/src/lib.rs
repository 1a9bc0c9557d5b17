//! `runlog`, the operator's command: publish and simulate events, see where they are, look at runs
//! and dead letters, migrate and check a deployment.
//!
//! One module per command under [`commands`]; what they share is beside it: the command line
//! ([`cli`]), what a command gets ([`app`]), how it writes ([`output`], [`format`], [`progress`]),
//! whose data it may read ([`scope`]), why somebody acts ([`reason`]), and how it reaches [`database`] and [`kafka`]. Data goes to
//! stdout, notes and progress to stderr. Calls event-log for the log and reads the read models.

mod acts;
mod app;
mod cli;
mod commands;
mod consent;
mod database;
mod format;
mod kafka;
mod output;
mod progress;
mod reason;
mod scope;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use service::exit::{self, Exit};

pub use cli::Cli;

/// The whole program: reads the command line, runs the command, prints what went wrong and gives
/// the exit code (0 done, 1 found a problem, 2 usage or configuration, 3 cannot reach Kafka or
/// PostgreSQL).
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")
        .and_then(|runtime| {
            let result = runtime.block_on(cli.run());
            // A thread that waits for stdin or a broker must not hold the process back.
            runtime.shutdown_background();
            result
        });
    finish(result)
}

fn finish(result: anyhow::Result<Exit>) -> ExitCode {
    match result {
        // Whoever read our output has seen enough.
        Err(error) if error.is::<output::StdoutClosed>() => Exit::Done.into(),
        Err(error) => match error.downcast::<clap::Error>() {
            Ok(usage) => usage.exit(),
            Err(error) => exit::finish("runlog", Err(error)),
        },
        done => exit::finish("runlog", done),
    }
}
