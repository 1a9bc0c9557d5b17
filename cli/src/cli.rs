//! The command line: global options, the commands, and which module runs which.

use clap::{Parser, Subcommand};
use service::config::ConfigArgs;
use service::exit::Exit;

use crate::app::App;
use crate::commands::{
    audit, completions, config_show, dlq, doctor, erase, events, migrate, publish, rebuild, retire,
    runs, simulate, status, stream, tenant, verify, wait_schema,
};
use crate::output::Format;

const AFTER_HELP: &str = "\
Configuration: runlog.toml or --config FILE, over it environment variables such as
RUNLOG_DATABASE__URL and RUNLOG_KAFKA__BOOTSTRAP_SERVERS, over them --set KEY=VALUE.
`runlog config show` prints every key, its value and where it came from.

Exit codes: 0 done, 1 found a problem, 2 usage or configuration, 3 cannot reach Kafka or PostgreSQL.

First steps:
  runlog doctor                               check configuration, PostgreSQL and Kafka
  runlog migrate                              create the schema
  runlog simulate --runs 100                  publish realistic runs
  runlog status --wait                        watch them arrive
  runlog runs list --all-tenants              see what became of them";

/// Operate Runlog: publish events, see where they are, look at runs and dead letters, decide what
/// halted partitions do
#[derive(Debug, Parser)]
#[command(name = "runlog", version, after_help = AFTER_HELP, propagate_version = true)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    config: ConfigArgs,

    /// How results are written to stdout
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    output: Format,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Migrate(migrate::Args),
    WaitSchema(wait_schema::Args),
    Publish(publish::Args),
    Simulate(simulate::Args),
    Status(status::Args),
    #[command(subcommand)]
    Runs(runs::Command),
    #[command(subcommand)]
    Events(events::Command),
    #[command(subcommand)]
    Dlq(dlq::Command),
    #[command(subcommand)]
    Stream(stream::Command),
    Rebuild(rebuild::Args),
    Retire(retire::Args),
    Erase(erase::Args),
    #[command(subcommand)]
    Tenant(tenant::Command),
    Verify(verify::Args),
    #[command(subcommand)]
    Audit(audit::Command),
    #[command(subcommand)]
    Config(config_show::Command),
    Doctor(doctor::Args),
    Completions(completions::Args),
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// Whatever kept it from its end; the chain decides the exit code.
    pub async fn run(self) -> anyhow::Result<Exit> {
        if let Command::Audit(command) = &self.command
            && let Some(done) = audit::run_alone(command, self.output)
        {
            return done;
        }
        let app = match self.command {
            // These two say something useful without a configuration that loads.
            Command::Completions(args) => return completions::run(&args),
            Command::Doctor(args) => return doctor::run(&args, &self.config, self.output).await,
            _ => App::load(&self.config, self.output)?,
        };
        match self.command {
            Command::Migrate(args) => migrate::run(&args, &app).await,
            Command::WaitSchema(args) => wait_schema::run(&args, &app).await,
            Command::Publish(args) => publish::run(args, &app).await,
            Command::Simulate(args) => simulate::run(&args, &app).await,
            Command::Status(args) => status::run(&args, &app).await,
            Command::Runs(command) => runs::run(command, &app).await,
            Command::Events(command) => events::run(&command, &app).await,
            Command::Dlq(command) => dlq::run(&command, &app).await,
            Command::Stream(command) => stream::run(&command, &app).await,
            Command::Tenant(command) => tenant::run(&command, &app).await,
            Command::Verify(args) => verify::run(&args, &app).await,
            Command::Audit(command) => audit::run(&command, &app).await,
            Command::Rebuild(args) => rebuild::run(&args, &app).await,
            Command::Retire(args) => retire::run(&args, &app).await,
            Command::Erase(args) => erase::run(&args, &app).await,
            Command::Config(config_show::Command::Show) => config_show::run(&app),
            Command::Completions(_) | Command::Doctor(_) => Ok(Exit::Done),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use clap::{CommandFactory, Parser};

    use super::Cli;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_argument_is_documented() {
        fn walk(command: &clap::Command, missing: &mut Vec<String>) {
            if command.get_about().is_none() {
                missing.push(command.get_name().to_owned());
            }
            for argument in command.get_arguments() {
                if argument.get_help().is_none() {
                    missing.push(format!("{} {}", command.get_name(), argument.get_id()));
                }
            }
            let leaf = !command.has_subcommands();
            if leaf && command.get_after_help().is_none() {
                missing.push(format!("{}: examples", command.get_name()));
            }
            command.get_subcommands().for_each(|sub| walk(sub, missing));
        }
        let mut missing = Vec::new();
        walk(&Cli::command(), &mut missing);
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn global_options_may_stand_anywhere() {
        for line in [
            "runlog -o json status",
            "runlog status -o json",
            "runlog runs list --output yaml --tenant acme",
            "runlog status --config x.toml --set ingest.writers=2",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
    }

    #[test]
    fn wrong_values_are_refused_by_the_parser() {
        for line in [
            "runlog simulate --runs 0",
            "runlog simulate --runs 10 --duplicates 101",
            "runlog simulate --runs 10 --malformed -1",
            "runlog simulate --runs 10 --create-topic 0",
            "runlog status --timeout soon",
            "runlog runs list --tenant a --all-tenants",
            "runlog runs list --all-tenants --status SLEEPING",
            "runlog dlq show abc",
            "runlog -o xml status",
            "runlog stream resume run-events --dry-run",
            "runlog stream resume run-events/0",
            "runlog stream resume run-events/0 --at soon --dry-run",
            "runlog stream rewind run-events/0 --dry-run",
            "runlog stream rewind run-events/0 --to latest --dry-run",
            "runlog erase --tenant acme --run r-1",
            "runlog erase --tenant acme --dry-run",
            "runlog erase --run r-1 --dry-run",
            "runlog erase --tenant acme --run r-1 --all-runs --dry-run",
            "runlog retire --all-tenants --dry-run",
            "runlog retire --all-tenants --older-than 1d",
            "runlog retire --all-tenants --older-than 1d --ended-before 2025-01-01 --dry-run",
            "runlog retire --all-tenants --ended-before yesterday --dry-run",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).err();
            assert_eq!(error.map(|e| e.exit_code()), Some(2), "{line}");
        }
    }
}
