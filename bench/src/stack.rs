//! What is measured and with what: the servers, the programs, and where their logs go. Given on the
//! command line by `dev/bench`; used by every measurement.

use std::path::PathBuf;

use anyhow::Context;
use rdkafka::ClientConfig;

use crate::usage;

/// The Kafka, the PostgreSQL and the programs to measure.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Stack {
    /// Kafka's bootstrap servers
    #[arg(long, env = "RUNLOG_KAFKA__BOOTSTRAP_SERVERS", hide_env_values = true)]
    pub(crate) kafka: String,

    /// URL of a database with a superuser's login; databases are made beside it
    #[arg(long, env = "RUNLOG_DATABASE__URL", hide_env_values = true)]
    pub(crate) database_url: String,

    /// URL with the login of ingest's role
    #[arg(long, env = "RUNLOG_DATABASE_URL_INGEST", hide_env_values = true)]
    pub(crate) ingest_url: String,

    /// URL with the login of the projectors' role
    #[arg(long, env = "RUNLOG_DATABASE_URL_PROJECTOR", hide_env_values = true)]
    pub(crate) projector_url: String,

    /// Folder with runlog, runlog-ingest and runlog-projectors
    #[arg(long, value_name = "DIR")]
    pub(crate) programs: PathBuf,

    /// Folder for the programs' logs
    #[arg(long, value_name = "DIR")]
    pub(crate) logs: PathBuf,

    /// Kafka's process, for its CPU seconds (where it runs beside this program)
    #[arg(long, value_name = "PID")]
    pub(crate) kafka_pid: Option<u32>,

    /// PostgreSQL's first process, for the CPU seconds of all of them
    #[arg(long, value_name = "PID")]
    pub(crate) postgres_pid: Option<u32>,

    /// Kafka's version, for the report
    #[arg(long, default_value = "unknown")]
    pub(crate) kafka_version: String,

    /// Connections that write: ingest.writers, and of the floor
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) writers: u16,
}

impl Stack {
    /// A client of the Kafka.
    pub(crate) fn kafka_client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.kafka);
        client
    }

    /// CPU seconds that Kafka has used since its start; `None` where its process is not known.
    ///
    /// # Errors
    /// Where the process is gone.
    pub(crate) fn kafka_cpu(&self) -> anyhow::Result<Option<f64>> {
        let cpu = self.kafka_pid.map(usage::cpu_of).transpose();
        cpu.context("Kafka's process is gone")
    }

    /// CPU seconds that all processes of PostgreSQL have used since its start, ended ones included.
    ///
    /// # Errors
    /// Where the first process is gone.
    pub(crate) fn postgres_cpu(&self) -> anyhow::Result<Option<f64>> {
        let cpu = self.postgres_pid.map(usage::cpu_of_family).transpose();
        cpu.context("PostgreSQL's process is gone")
    }
}
