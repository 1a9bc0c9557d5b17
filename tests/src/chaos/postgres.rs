//! One PostgreSQL server of the harness, by its processes: started, stopped at once, killed.
//!
//! Called by [`super::servers`].

use crate::environment::said;
use crate::wait::wait_until;
use anyhow::{Result, ensure};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a server may take to start or to end.
pub(super) const SERVER: Duration = Duration::from_secs(60);

/// One PostgreSQL server.
pub(super) struct Postgres {
    pub(super) port: u16,
    pub(super) data: PathBuf,
    /// The stack's own is started by dev/stack; a former standby by this harness.
    pub(super) is_the_stacks: bool,
    pub(super) child: Option<Child>,
}

impl Postgres {
    pub(super) fn start(&mut self) -> Result<()> {
        let log = std::fs::File::create(self.data.with_extension("log"))?;
        // A server that was killed leaves its lock; nobody works in the folder any more.
        let _absent = std::fs::remove_file(self.data.join("postmaster.pid"));
        let binary = PathBuf::from(pg_bin_blocking()?).join("postgres");
        let mut command = as_postgres(&binary);
        command
            .arg("-D")
            .arg(&self.data)
            .args(["-c", &format!("port={}", self.port)]);
        self.child = Some(command.stdout(log.try_clone()?).stderr(log).spawn()?);
        Ok(())
    }

    pub(super) async fn stop_immediately(&mut self) -> Result<()> {
        let file = std::fs::read_to_string(self.data.join("postmaster.pid"))?;
        let pid = file.lines().next().unwrap_or_default().trim().to_owned();
        signal(&pid, "QUIT")?;
        self.wait_ended().await
    }

    pub(super) async fn kill_all(&mut self) -> Result<()> {
        let pids = self.processes();
        ensure!(!pids.is_empty(), "PostgreSQL had ended by itself");
        let mut command = Command::new("kill");
        // Some may end before the signal reaches them.
        let _status = command
            .arg("-9")
            .args(&pids)
            .stderr(Stdio::null())
            .status()?;
        self.wait_ended().await
    }

    /// The server's processes: their current folder is its data.
    fn processes(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir("/proc") else {
            return Vec::new();
        };
        let works_here = |entry: &std::fs::DirEntry| {
            std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == self.data)
        };
        let name = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        entries
            .filter_map(Result::ok)
            .filter(works_here)
            .map(name)
            .collect()
    }

    async fn wait_ended(&mut self) -> Result<()> {
        wait_until("PostgreSQL to end", SERVER, async || {
            if let Some(child) = &mut self.child {
                // Reaped, or it would be seen for ever.
                let _status = child.try_wait()?;
            }
            ensure!(self.processes().is_empty(), "its processes are still there");
            Ok(())
        })
        .await
    }

    /// Ends a former standby and removes its data.
    pub(super) async fn discard(mut self) -> Result<()> {
        if !self.processes().is_empty() {
            self.kill_all().await?;
        }
        std::fs::remove_dir_all(&self.data)?;
        let _absent = std::fs::remove_file(self.data.with_extension("log"));
        Ok(())
    }
}

pub(super) fn signal(pid: &str, name: &str) -> Result<()> {
    let status = Command::new("kill")
        .args([&format!("-{name}"), pid])
        .status()?;
    ensure!(status.success(), "SIG{name} did not reach process {pid}");
    Ok(())
}

pub(super) fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev/stack")
}

fn pg_bin_blocking() -> Result<String> {
    let output = Command::new(script()).arg("pg-bin").output()?;
    succeeded(&output, "dev/stack pg-bin")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A program of PostgreSQL's.
pub(crate) async fn bin(program: &str) -> Result<PathBuf> {
    let folder = tokio::task::spawn_blocking(pg_bin_blocking).await??;
    Ok(PathBuf::from(folder).join(program))
}

pub(crate) fn succeeded(output: &std::process::Output, what: &str) -> Result<()> {
    ensure!(output.status.success(), "{what} failed: {}", said(output));
    Ok(())
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0)
}

/// A program of PostgreSQL, which refuses to run as root.
pub(crate) fn as_postgres(program: &Path) -> Command {
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=postgres", "--regid=postgres", "--init-groups"])
            .args(["env", "-C", "/", "HOME=/tmp"])
            .arg(program);
        command
    } else {
        Command::new(program)
    };
    command.stdin(Stdio::null());
    command
}

/// An empty folder that user postgres may write to.
pub(crate) fn fresh_data_folder() -> Result<PathBuf> {
    let output = Command::new("mktemp")
        .args(["-d", "/var/tmp/runlog-postgres.XXXXXXXX"])
        .output()?;
    succeeded(&output, "mktemp")?;
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if is_root() {
        let chown = Command::new("chown")
            .args(["postgres:postgres", &folder])
            .output()?;
        succeeded(&chown, "chown")?;
    }
    Ok(folder.into())
}
