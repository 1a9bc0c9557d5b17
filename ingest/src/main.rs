//! `runlog-ingest`: reads RunEvents from Kafka and appends them to the log in PostgreSQL, exactly
//! once. This file only wires; [`runlog_ingest::run`] is the process.

use std::process::ExitCode;

use clap::Parser;
use service::config::{Config, ConfigArgs};
use service::exit::{self, Exit};
use service::{shutdown, telemetry};

/// Appends RunEvents from Kafka to the canonical log in PostgreSQL, exactly once.
///
/// Every record of the configured topics ends as an event, a known duplicate or a dead letter. The
/// offset is kept in the same transaction, so the process may be killed at any moment, and any
/// number of them may run in one consumer group. SIGTERM finishes the batches under way and exits.
#[derive(Parser)]
#[command(
    name = "runlog-ingest",
    version,
    after_help = "Example:\n  \
    RUNLOG_DATABASE__URL=postgres://runlog:secret@127.0.0.1/runlog \\\n  \
    RUNLOG_KAFKA__BOOTSTRAP_SERVERS=127.0.0.1:9092 runlog-ingest\n\n\
    `runlog config show` lists every setting. /healthz, /readyz and /metrics are on telemetry.listen."
)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

fn main() -> ExitCode {
    let args = Args::parse();
    exit::finish("runlog-ingest", start(&args))
}

fn start(args: &Args) -> anyhow::Result<Exit> {
    let loaded = Config::load(&args.config)?;
    runlog_ingest::check(&loaded)?;
    let config = loaded.config;
    telemetry::init(&config.telemetry)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(async { runlog_ingest::run(&config, shutdown::install()).await });
    // What hangs, a client library that closes or a task, must not keep the process.
    runtime.shutdown_background();
    result.map(|()| Exit::Done)
}
