//! Where the suites find what they need: Kafka, PostgreSQL, the programs and a folder.
//!
//! Called first by every suite. Nothing is skipped when something is absent: a suite that does not
//! run would look like one that passed.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::process::Command;

/// How long a command of the command line may take.
const COMMAND_SECONDS: u64 = 60;

/// The services and places of one test run.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Kafka's bootstrap servers, `host:port`.
    pub kafka: String,
    /// A superuser's URL of some database.
    pub database_url: String,
    /// A folder for logs and configuration files.
    pub scratch: PathBuf,
    /// The folder that holds `runlog`, `runlog-ingest` and `runlog-projectors`.
    pub programs: PathBuf,
}

impl Environment {
    /// Reads `RUNLOG_TEST_KAFKA`, `RUNLOG_TEST_DATABASE_URL`, `RUNLOG_TEST_DIR` and
    /// `RUNLOG_TEST_BIN_DIR`.
    ///
    /// # Errors
    /// Where one is absent, or a program is not there.
    pub fn from_env() -> Result<Self> {
        let variable = |name: &str| {
            std::env::var(name).with_context(|| {
                format!("{name} is not set: these tests need a real Kafka and PostgreSQL; run `make test`")
            })
        };
        let environment = Self {
            kafka: variable("RUNLOG_TEST_KAFKA")?,
            database_url: variable("RUNLOG_TEST_DATABASE_URL")?,
            scratch: PathBuf::from(variable("RUNLOG_TEST_DIR")?),
            programs: PathBuf::from(variable("RUNLOG_TEST_BIN_DIR")?),
        };
        std::fs::create_dir_all(&environment.scratch).with_context(|| {
            format!(
                "RUNLOG_TEST_DIR {} cannot be made",
                environment.scratch.display()
            )
        })?;
        for program in ["runlog", "runlog-ingest", "runlog-projectors"] {
            let path = environment.programs.join(program);
            if !path.is_file() {
                bail!(
                    "{} is not there (RUNLOG_TEST_BIN_DIR); run `make test`, which builds it",
                    path.display()
                );
            }
        }
        Ok(environment)
    }

    /// A program in the scratch folder, free of the caller's own Runlog settings.
    #[must_use]
    pub fn program(&self, name: &str) -> std::process::Command {
        let mut command = std::process::Command::new(self.programs.join(name));
        command.current_dir(&self.scratch).stdin(Stdio::null());
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("RUNLOG_") {
                command.env_remove(variable);
            }
        }
        command
    }

    /// A file of this name, made unique, in the scratch folder.
    #[must_use]
    pub fn scratch_file(&self, name: &str) -> PathBuf {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        self.scratch
            .join(format!("{}-{number:03}-{name}", run_name()))
    }
}

/// Runs a command to its end.
///
/// # Errors
/// Where it cannot start or does not end in time.
pub async fn run_to_end(command: std::process::Command) -> Result<Output> {
    let shown = format!("{command:?}");
    let mut command = Command::from(command);
    command.kill_on_drop(true);
    tokio::time::timeout(Duration::from_secs(COMMAND_SECONDS), command.output())
        .await
        .with_context(|| format!("{shown} did not end within {COMMAND_SECONDS} s"))?
        .with_context(|| format!("{shown} cannot start"))
}

/// Standard output and standard error as one text, for messages.
#[must_use]
pub fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// A name that no other run of a suite has.
#[must_use]
pub fn run_name() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| hex::encode(rand::random::<[u8; 4]>()))
}

/// A name that no other object of this or any other run has.
#[must_use]
pub fn unique_name(prefix: &str) -> String {
    format!("{prefix}-{}", hex::encode(rand::random::<[u8; 6]>()))
}

/// The last lines of a file, for messages.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
