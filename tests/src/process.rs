//! A program of the product that runs in the background and can be killed at any moment.
//!
//! Called by [`crate::Pipeline`].

use crate::environment::{Environment, tail};
use crate::wait::wait_until;
use anyhow::{Context, Result, bail, ensure};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

/// How long a process may take until it is ready. A killed predecessor's group membership has to
/// run out first.
const READY: Duration = Duration::from_secs(60);
/// How long a process may take to end after SIGTERM.
const DRAIN: Duration = Duration::from_secs(30);
/// How long the HTTP endpoint may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Lines of a log that a failure shows.
const TAIL: usize = 40;

/// A running program. It is killed when this value goes; where the test panics the end of its log
/// is printed.
#[derive(Debug)]
pub struct Process {
    /// The program's name.
    pub name: String,
    /// Where it writes standard output and standard error.
    pub log: PathBuf,
    /// `host:port` of its HTTP endpoint.
    pub address: String,
    child: Child,
}

impl Process {
    /// Starts a program with a telemetry address of its own.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn spawn(environment: &Environment, name: &str, mut command: Command) -> Result<Self> {
        let log = environment.scratch_file(&format!("{name}.log"));
        let file = std::fs::File::create(&log)?;
        let address = format!("127.0.0.1:{}", free_port()?);
        command
            .env("RUNLOG_TELEMETRY__LISTEN", &address)
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = command
            .spawn()
            .with_context(|| format!("{name} cannot start"))?;
        Ok(Self {
            name: name.to_owned(),
            log,
            address,
            child,
        })
    }

    /// Waits until `/readyz` answers 200.
    ///
    /// # Errors
    /// Where the process ends or stays unready.
    pub async fn wait_ready(&mut self) -> Result<()> {
        let what = format!("{} to be ready", self.name);
        let outcome = wait_until(&what, READY, async || {
            if let Some(status) = self.child.try_wait()? {
                // Nothing will change any more.
                return Ok(Err(status));
            }
            let answer = get(&self.address, "/readyz").await?;
            ensure!(
                answer.starts_with("HTTP/1.1 200"),
                "/readyz answers {answer:?}"
            );
            Ok(Ok(()))
        })
        .await
        .with_context(|| self.describe())?;
        match outcome {
            Ok(()) => Ok(()),
            Err(status) => bail!(
                "ended with {status} before it was ready; {}",
                self.describe()
            ),
        }
    }

    /// The body and head of the answer to a GET request.
    ///
    /// # Errors
    /// Where nothing answers.
    pub async fn get(&self, path: &str) -> Result<String> {
        get(&self.address, path).await
    }

    /// Waits until /readyz says that the program is not ready, and all of these texts.
    ///
    /// # Errors
    /// Where that does not come to pass `within` this time.
    pub async fn wait_unready(&self, texts: &[&str], within: Duration) -> Result<()> {
        wait_until("/readyz to say why not", within, async || {
            let answer = self.get("/readyz").await?;
            let is_said =
                answer.starts_with("HTTP/1.1 503") && texts.iter().all(|t| answer.contains(t));
            ensure!(is_said, "{answer}");
            Ok(())
        })
        .await
    }

    /// SIGKILL: no handler runs, nothing is written any more.
    ///
    /// # Errors
    /// Where the process had ended by itself before.
    pub fn kill9(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "had ended with {status} before it was killed; {}",
                self.describe()
            );
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and the status with which the process ends.
    ///
    /// # Errors
    /// Where it does not end in time.
    pub async fn terminate(mut self) -> Result<ExitStatus> {
        self.signal("TERM")?;
        self.wait_exit(DRAIN).await
    }

    /// Sends a signal by its name without SIG: TERM, STOP, CONT.
    ///
    /// # Errors
    /// Where the process has ended.
    pub fn signal(&self, name: &str) -> Result<()> {
        let signal = format!("kill -{name} {}", self.child.id());
        ensure!(
            Command::new("sh").args(["-c", &signal]).status()?.success(),
            "{signal} failed; {}",
            self.describe()
        );
        Ok(())
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How the process ended, if it has.
    ///
    /// # Errors
    /// Where the kernel does not say.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Whether a SIGSTOP holds the process.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        // The state stands behind the program's name, which may hold anything.
        stat.is_ok_and(|stat| {
            stat.rsplit_once(')')
                .is_some_and(|(_, rest)| rest.starts_with(" T"))
        })
    }

    /// The end of what it has written, for messages.
    #[must_use]
    pub fn describe(&self) -> String {
        format!(
            "{}, whose log {} ends with:\n{}",
            self.name,
            self.log.display(),
            tail(&self.log, TAIL)
        )
    }

    /// Waits until the process ends by itself.
    ///
    /// # Errors
    /// Where it goes on.
    pub async fn wait_exit(&mut self, within: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.name);
        wait_until(&what, within, async || {
            self.child.try_wait()?.context("it still runs")
        })
        .await
        .with_context(|| self.describe())
    }

    /// The most memory that the process has had at once so far, in bytes (VmHWM).
    ///
    /// # Errors
    /// Where the process has ended.
    pub fn peak_memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next());
        Ok(kib.context("no VmHWM in /proc")?.parse::<u64>()? << 10)
    }

    /// All that the process has written so far.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub fn written(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail where the process has ended, which is as good.
        let _killed = self.child.kill();
        let _status = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}", self.describe());
        }
    }
}

/// A port that was free a moment ago.
///
/// # Errors
/// Where the kernel gives none.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

async fn get(address: &str, path: &str) -> Result<String> {
    let (address, path) = (address.to_owned(), path.to_owned());
    tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect_timeout(&address.parse()?, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
    .await?
}
