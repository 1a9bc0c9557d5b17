//! A Kafka and a PostgreSQL of one test's own, which it may break.
//!
//! Called by the suites that stop servers or touch their files. Everything else shares the stack of
//! the whole run.

use crate::environment::{Environment, tail};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long a server may take to end.
const ENDS: Duration = Duration::from_secs(60);

/// The servers. They go with this value, and so does their data.
pub struct Stack {
    /// Where their data is.
    pub dir: PathBuf,
}

impl Stack {
    /// Starts both, and says how to reach them.
    ///
    /// # Errors
    /// Where one does not start.
    pub async fn start(environment: &Environment) -> Result<(Self, Environment)> {
        let stack = Self {
            dir: environment.scratch_file("stack"),
        };
        stack.up().await?;
        let mut environment = environment.clone();
        for line in std::fs::read_to_string(stack.dir.join("env"))?.lines() {
            let value = |name: &str| {
                line.strip_prefix(&format!("export {name}="))
                    .map(str::to_owned)
            };
            if let Some(servers) = value("RUNLOG_KAFKA__BOOTSTRAP_SERVERS") {
                environment.kafka = servers;
            } else if let Some(url) = value("RUNLOG_DATABASE__URL") {
                environment.database_url = url;
            }
        }
        Ok((stack, environment))
    }

    fn command(&self, action: &str) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev/stack");
        let mut command = Command::new(script);
        command.arg(action).arg("--dir").arg(&self.dir);
        command
    }

    /// Starts what does not run.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn up(&self) -> Result<()> {
        let mut command = self.command("up");
        command.arg("--no-fsync");
        let path = self.dir.with_extension("log");
        let log = std::fs::File::create(&path)?;
        command.stdout(log.try_clone()?).stderr(log);
        let status = tokio::process::Command::from(command).status().await?;
        ensure!(status.success(), "dev/stack up: {}", tail(&path, 20));
        Ok(())
    }

    /// Changes Kafka's access lists: the arguments are those of kafka-acls. Everything is allowed to
    /// everybody on what has no list.
    ///
    /// # Errors
    /// Where Kafka does not take it.
    pub async fn acl(&self, arguments: &[&str]) -> Result<()> {
        let mut command = self.command("acl");
        command.args(arguments);
        let output = tokio::process::Command::from(command).output().await?;
        let words = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "dev/stack acl {arguments:?}: {words}"
        );
        Ok(())
    }

    /// Sends a signal to the server whose name this is, and waits until it has ended.
    ///
    /// # Errors
    /// Where it does not end.
    pub async fn end(&self, server: &str, signal: &str) -> Result<()> {
        let pid = std::fs::read_to_string(self.dir.join(format!("{server}.pid")))?;
        let pid = pid.split_whitespace().next().context("no pid")?.to_owned();
        let ended =
            format!("kill -{signal} {pid} && while kill -0 {pid} 2>/dev/null; do sleep 0.05; done");
        let mut shell = tokio::process::Command::new("sh");
        let status = tokio::time::timeout(ENDS, shell.args(["-c", &ended]).status()).await??;
        ensure!(status.success(), "{server} was not ended: {status}");
        Ok(())
    }

    /// The first segment of a partition's log.
    #[must_use]
    pub fn segment(&self, topic: &str, partition: i32) -> PathBuf {
        let name = format!("kafka/{topic}-{partition}/{:020}.log", 0);
        self.dir.join(name)
    }

    /// Where the batches of a segment lie: the first offset, the position of the first byte, and the
    /// number of bytes of each.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn batches(segment: &Path) -> Result<Vec<(i64, usize, usize)>> {
        let log = std::fs::read(segment)?;
        let (mut at, mut found) = (0, Vec::new());
        // A batch: base offset (8 bytes), length of what follows (4 bytes), and that.
        while let (Some(base), Some(length)) = (log.get(at..at + 8), log.get(at + 8..at + 12)) {
            let bytes = 12 + u32::from_be_bytes(length.try_into()?) as usize;
            if bytes == 12 {
                break;
            }
            found.push((i64::from_be_bytes(base.try_into()?), at, bytes));
            at += bytes;
        }
        Ok(found)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let _stopped = self.command("down").output();
    }
}
