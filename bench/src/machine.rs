//! Where the measurements were made: the machine, the versions, PostgreSQL's settings. Called by
//! `compare`, `scaling` and `flat` for their reports.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde::Serialize;
use sqlx::PgConnection;

use crate::stack::Stack;

/// PostgreSQL's settings that matter to what it costs to write.
const SETTINGS: [&str; 7] = [
    "server_version",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "shared_buffers",
    "max_wal_size",
    "wal_compression",
];

/// The machine and what runs on it.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    /// When the measurements began, in UTC.
    pub(crate) at: String,
    /// The processor's model.
    pub(crate) processor: String,
    /// Processors that this program may use.
    pub(crate) processors: usize,
    /// Memory in KiB.
    pub(crate) memory_kib: u64,
    /// Processes that wanted to run, over the last minute before.
    pub(crate) load: String,
    /// The kernel's version.
    pub(crate) kernel: String,
    /// Kafka's version.
    pub(crate) kafka: String,
    /// The compiler's version.
    pub(crate) rust: String,
    /// The sources' commit.
    pub(crate) commit: String,
    /// PostgreSQL's version and settings.
    pub(crate) postgres: BTreeMap<String, String>,
    /// ingest.writers, and connections of the floor.
    pub(crate) writers: u16,
}

impl Machine {
    /// Looks around.
    ///
    /// # Errors
    /// Of PostgreSQL; what else cannot be found out is left empty.
    pub(crate) async fn look(stack: &Stack, on: &mut PgConnection) -> anyhow::Result<Self> {
        let settings = "SELECT name, current_setting(name) FROM unnest($1::text[]) AS name";
        let postgres: Vec<(String, String)> = sqlx::query_as(settings)
            .bind(SETTINGS.as_slice())
            .fetch_all(on)
            .await?;
        let memory = field("/proc/meminfo", "MemTotal");
        let memory = memory
            .split_whitespace()
            .next()
            .and_then(|kib| kib.parse().ok());
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Ok(Self {
            at: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            processor: field("/proc/cpuinfo", "model name"),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_kib: memory.unwrap_or_default(),
            load: load
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned(),
            kernel: text("/proc/sys/kernel/osrelease"),
            kafka: stack.kafka_version.clone(),
            rust: said("rustc", &["--version"]),
            commit: said("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
            postgres: postgres.into_iter().collect(),
            writers: stack.writers,
        })
    }

    /// In two lines, for people.
    pub(crate) fn lines(&self) -> String {
        let postgres = |name: &str| self.postgres.get(name).map_or("?", String::as_str);
        format!(
            "{} x {}, {} GiB, Linux {}; load before: {}\n\
             PostgreSQL {} (fsync {}, synchronous_commit {}, shared_buffers {}), Kafka {}, {}; commit {}",
            self.processors,
            self.processor,
            self.memory_kib / 1024 / 1024,
            self.kernel,
            self.load,
            postgres("server_version"),
            postgres("fsync"),
            postgres("synchronous_commit"),
            postgres("shared_buffers"),
            self.kafka,
            self.rust,
            self.commit
        )
    }
}

fn text(file: &str) -> String {
    fs::read_to_string(file)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The value behind the first `NAME:` of a file.
fn field(file: &str, name: &str) -> String {
    let text = text(file);
    let line = text.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.split_once(':'));
    value.map_or_else(String::new, |(_, value)| value.trim().to_owned())
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.map(|o| o.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}
