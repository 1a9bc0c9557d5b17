//! The one way a process is asked to stop. SIGTERM and SIGINT cancel a token that everything
//! else watches; a second signal ends the process at once, which is safe: nothing counts before
//! its transaction has committed. Called once by each main.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The token that SIGTERM or SIGINT cancels. To be called inside a tokio runtime.
///
/// Where the handlers cannot be installed the token is never cancelled, a warning says so, and
/// the signals keep their default action, which ends the process at once.
pub fn install() -> CancellationToken {
    let token = CancellationToken::new();
    match Signals::new() {
        Ok(signals) => drop(tokio::spawn(watch(signals, token.clone()))),
        Err(error) => {
            tracing::warn!(%error, "cannot watch for SIGTERM and SIGINT; they will end this process without a drain");
        }
    }
    token
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next signal: its name and the exit code that shells give a process it ended.
    async fn next(&mut self) -> (&'static str, i32) {
        tokio::select! {
            _ = self.terminate.recv() => ("SIGTERM", 143),
            _ = self.interrupt.recv() => ("SIGINT", 130),
        }
    }
}

async fn watch(mut signals: Signals, token: CancellationToken) {
    let (name, _) = signals.next().await;
    tracing::info!("{name} received: stopping; a second signal ends this process at once");
    token.cancel();
    let (name, code) = signals.next().await;
    tracing::warn!("{name} received while stopping: ending at once");
    std::process::exit(code);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stdout)]
    use std::io::{BufRead, BufReader, Read};
    use std::process::{Child, ChildStdout, Command, Stdio};
    use std::time::Duration;

    use tokio::time::timeout;

    /// Set in the process that [`child`] runs in; its value is what that does once cancelled.
    const MODE: &str = "SHUTDOWN_TEST_MODE";

    /// The process under test: signals are process-wide, so it cannot be this one.
    #[test]
    #[ignore = "started by the tests below, in a process of its own"]
    fn child() {
        let Ok(mode) = std::env::var(MODE) else {
            return;
        };
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let token = super::install();
            println!("\nready");
            // Bounded, so that a signal that has no effect is a failure and not a hang.
            let bound = Duration::from_secs(10);
            timeout(bound, token.cancelled()).await.unwrap();
            println!("\ncancelled");
            if mode == "hang" {
                let _ = timeout(bound, std::future::pending::<()>()).await;
            }
        });
    }

    struct Process {
        child: Child,
        stdout: BufReader<ChildStdout>,
    }

    impl Process {
        fn start(mode: &str) -> Self {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "shutdown::tests::child",
                    "--ignored",
                    "--nocapture",
                ])
                .env(MODE, mode)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let stdout = BufReader::new(child.stdout.take().unwrap());
            let mut process = Process { child, stdout };
            process.wait_for("ready");
            process
        }

        /// Reads on to a line; the end of the output before it is a failure.
        fn wait_for(&mut self, line: &str) {
            let found = self
                .stdout
                .by_ref()
                .lines()
                .any(|read| read.unwrap() == line);
            assert!(found, "the process ended without saying {line:?}");
        }

        fn signal(&self, name: &str) {
            let pid = self.child.id().to_string();
            assert!(
                Command::new("kill")
                    .args(["-s", name, &pid])
                    .status()
                    .unwrap()
                    .success()
            );
        }

        fn exit_code(&mut self) -> Option<i32> {
            self.child.wait().unwrap().code()
        }
    }

    impl Drop for Process {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    #[test]
    fn one_signal_cancels_and_lets_the_process_end_by_itself() {
        for name in ["TERM", "INT"] {
            let mut process = Process::start("drain");
            process.signal(name);
            process.wait_for("cancelled");
            assert_eq!(process.exit_code(), Some(0), "{name}");
        }
    }

    #[test]
    fn a_second_signal_ends_a_process_that_hangs() {
        for (name, code) in [("TERM", 143), ("INT", 130)] {
            let mut process = Process::start("hang");
            process.signal("TERM");
            process.wait_for("cancelled");
            process.signal(name);
            assert_eq!(process.exit_code(), Some(code), "{name}");
        }
    }
}
