//! The process `runlog-projectors`: wires configuration, logs and signals to
//! [`runlog_projectors::run`].

use std::process::ExitCode;

use clap::Parser;
use service::config::{Config, ConfigArgs};
use service::exit::{self, Exit};
use service::{shutdown, telemetry};

/// Builds Runlog's read models from the log in PostgreSQL
#[derive(Debug, Parser)]
#[command(name = "runlog-projectors", version)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    exit::finish("runlog-projectors", run(&args).await)
}

async fn run(args: &Args) -> anyhow::Result<Exit> {
    let loaded = Config::load(&args.config)?;
    runlog_projectors::check(&loaded)?;
    telemetry::init(&loaded.config.telemetry)?;
    runlog_projectors::run(&loaded.config, shutdown::install()).await?;
    Ok(Exit::Done)
}
