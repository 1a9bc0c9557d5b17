//! One round's topic, database and consumer group, and how the programs are told of them.
//!
//! Called by [`super::round`] and [`super::fleet`].

use super::schedule::{INGEST, Kind, Plan, Protocol};
use super::servers::Servers;
use crate::environment::{Environment, run_to_end, said, unique_name};
use crate::roles::{self, Role};
use crate::topic::Topic;
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A round's deployment.
pub struct Deployment {
    /// Where logs go.
    pub environment: Environment,
    /// The topic, reached directly.
    pub topic: Topic,
    /// The database's name.
    pub database: String,
    /// The consumer group.
    pub group: String,
    protocol: Protocol,
    configuration: PathBuf,
    kafka: String,
    url: String,
}

impl Deployment {
    /// Makes topic and database; `scratch` is the round's folder.
    ///
    /// # Errors
    /// Where a server does not answer, or `runlog migrate` fails.
    pub async fn fresh(servers: &Servers, plan: &Plan, scratch: &Path) -> Result<Self> {
        let environment = Environment {
            scratch: scratch.to_owned(),
            ..servers.environment.clone()
        };
        std::fs::create_dir_all(scratch)?;
        let topic = Topic::fresh(&environment, plan.partitions).await?;
        let database = unique_name("runlog-chaos");
        servers
            .sql(&format!("CREATE DATABASE \"{database}\""))
            .await?;
        let configuration = environment.scratch_file("runlog.toml");
        std::fs::write(&configuration, configuration_of(plan.protocol))?;
        let deployment = Self {
            group: unique_name("ingest"),
            protocol: plan.protocol,
            configuration,
            kafka: servers.kafka_address(),
            url: servers.proxied_url(&database),
            environment,
            topic,
            database,
        };
        let mut migrate = deployment.command("runlog");
        migrate
            .arg("migrate")
            .env("RUNLOG_DATABASE__URL", &deployment.url);
        let output = run_to_end(migrate).await?;
        ensure!(
            output.status.success(),
            "`runlog migrate` failed: {}",
            said(&output)
        );
        roles::make_logins(&servers.environment.database_url).await?;
        Ok(deployment)
    }

    /// The command of a process in a slot of the fleet.
    #[must_use]
    pub fn program(&self, kind: Kind, slot: usize) -> Command {
        let mut command = self.command(kind.program());
        // Visitors have no names of their own: two may be there at once.
        if kind == Kind::Ingest && slot < INGEST && self.is_static() {
            let id = format!("{}-{slot}", self.group);
            command.env("RUNLOG_KAFKA__PROPERTIES__GROUP_INSTANCE_ID", id);
        }
        command
    }

    /// Whether the members of the group have names that outlive a process.
    #[must_use]
    pub fn is_static(&self) -> bool {
        self.protocol == Protocol::Static
    }

    fn command(&self, program: &str) -> Command {
        let mut command = self.environment.program(program);
        command
            .arg("--config")
            .arg(&self.configuration)
            .env(
                "RUNLOG_DATABASE__URL",
                Role::of_program(program).url(&self.url),
            )
            .env("RUNLOG_KAFKA__BOOTSTRAP_SERVERS", &self.kafka)
            .env("RUNLOG_INGEST__GROUP_ID", &self.group)
            .env(
                "RUNLOG_INGEST__TOPICS",
                format!("[{{name=\"{}\"}}]", self.topic.name),
            );
        command
    }
}

/// Short times, so that an hour holds many faults: a transaction that stands still is ended before
/// Kafka gives its partition to another process, as with the defaults.
fn configuration_of(protocol: Protocol) -> String {
    let group = match protocol {
        Protocol::Eager => {
            "\"partition.assignment.strategy\" = \"range\"\n\"session.timeout.ms\" = \"4000\"\n\
             \"heartbeat.interval.ms\" = \"500\"\n"
        }
        Protocol::Cooperative | Protocol::Static => {
            "\"session.timeout.ms\" = \"4000\"\n\"heartbeat.interval.ms\" = \"500\"\n"
        }
        // The broker decides on the times.
        Protocol::Consumer => "\"group.protocol\" = \"consumer\"\n",
    };
    format!(
        "[database]\nidle_in_transaction_timeout = \"3s\"\nlock_timeout = \"5s\"\n\n\
         [kafka.properties]\n\"topic.metadata.refresh.interval.ms\" = \"2000\"\n\
         \"reconnect.backoff.max.ms\" = \"500\"\n{group}"
    )
}
