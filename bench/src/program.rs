//! A program of the product, as it is deployed: its own process, its role's login. Called by the
//! measurements.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tokio::process::{Child, Command};

use crate::database::Database;
use crate::stack::Stack;
use crate::usage;

/// How long a program may take to end after SIGTERM.
const DRAIN: Duration = Duration::from_secs(30);
/// Lines of its log that a failure shows.
const TAIL: usize = 20;

/// What a program has used.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Used {
    /// CPU seconds, of all processes together.
    pub(crate) cpu_s: f64,
    /// The most resident memory of one process, in bytes.
    pub(crate) peak_bytes: u64,
}

/// A running program. It is killed when this value goes.
#[derive(Debug)]
pub(crate) struct Program {
    name: &'static str,
    log: PathBuf,
    pid: u32,
    child: Child,
}

impl Program {
    /// Starts ingest for one topic.
    ///
    /// # Errors
    /// Where it cannot start.
    pub(crate) fn ingest(
        stack: &Stack,
        database: &Database,
        topic: &str,
        more: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(stack.programs.join("runlog-ingest"));
        command
            .env(
                "RUNLOG_DATABASE__URL",
                url_of(&stack.ingest_url, &database.name),
            )
            .env("RUNLOG_INGEST__GROUP_ID", &database.group)
            .env("RUNLOG_INGEST__TOPICS", format!("[{{name=\"{topic}\"}}]"))
            .env("RUNLOG_INGEST__WRITERS", stack.writers.to_string());
        Self::start(stack, "runlog-ingest", command, more)
    }

    /// Starts the projectors.
    ///
    /// # Errors
    /// Where they cannot start.
    pub(crate) fn projectors(
        stack: &Stack,
        database: &str,
        more: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(stack.programs.join("runlog-projectors"));
        command.env(
            "RUNLOG_DATABASE__URL",
            url_of(&stack.projector_url, database),
        );
        Self::start(stack, "runlog-projectors", command, more)
    }

    fn start(
        stack: &Stack,
        name: &'static str,
        mut command: Command,
        more: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let address = free_address()?;
        let port = address.rsplit(':').next().unwrap_or_default();
        let log = stack.logs.join(format!("{name}.{port}.log"));
        let file = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .env("RUNLOG_KAFKA__BOOTSTRAP_SERVERS", &stack.kafka)
            .env("RUNLOG_TELEMETRY__LISTEN", &address)
            .env("RUNLOG_TELEMETRY__LOG_FORMAT", "human")
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", stack.programs.join(name).display()))?;
        let pid = child.id().context("the program has no process id")?;
        Ok(Self {
            name,
            log,
            pid,
            child,
        })
    }

    /// That it still runs.
    ///
    /// # Errors
    /// With the end of its log, where it has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}; {}", self.name, self.end_of_log()),
        }
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// Where it is gone.
    pub(crate) fn used(&self) -> anyhow::Result<Used> {
        Ok(Used {
            cpu_s: usage::cpu_of(self.pid)?,
            peak_bytes: usage::peak_memory_of(self.pid)?,
        })
    }

    /// SIGTERM, until it has ended.
    ///
    /// # Errors
    /// Where it fails, or goes on.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.check()?;
        let pid = Pid::from_raw(self.pid.cast_signed()).context("no process id")?;
        kill_process(pid, Signal::TERM)?;
        let Ok(status) = tokio::time::timeout(DRAIN, self.child.wait()).await else {
            bail!("{} goes on after SIGTERM; {}", self.name, self.end_of_log());
        };
        let status = status?;
        if !status.success() {
            bail!("{} ended with {status}; {}", self.name, self.end_of_log());
        }
        fs::remove_file(&self.log)?;
        Ok(())
    }

    fn end_of_log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let end = &lines[lines.len().saturating_sub(TAIL)..];
        format!(
            "its log {} ends with:\n{}",
            self.log.display(),
            end.join("\n")
        )
    }
}

/// What some programs have used, together.
///
/// # Errors
/// Where one is gone.
pub(crate) fn used_by(programs: &[Program]) -> anyhow::Result<Used> {
    programs.iter().try_fold(Used::default(), |sum, program| {
        let used = program.used()?;
        Ok(Used {
            cpu_s: sum.cpu_s + used.cpu_s,
            peak_bytes: sum.peak_bytes.max(used.peak_bytes),
        })
    })
}

/// The URL with another database.
pub(crate) fn url_of(url: &str, database: &str) -> String {
    let server = url.rsplit_once('/').map_or(url, |(server, _)| server);
    format!("{server}/{database}")
}

fn free_address() -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port of 127.0.0.1")?;
    Ok(listener.local_addr()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::url_of;

    #[test]
    fn a_url_gets_another_database() {
        let url = "postgres://dev:secret@127.0.0.1:5432/runlog";
        assert_eq!(
            url_of(url, "bench_1"),
            "postgres://dev:secret@127.0.0.1:5432/bench_1"
        );
    }
}
