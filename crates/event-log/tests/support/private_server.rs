//! A PostgreSQL of a test's own, as an ordinary process, for what must not be done to the one that
//! tests share: stopping it, crashing it, starting it as a standby.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{Connection, PgConnection};

/// A cluster, and its server while one runs. Both are removed at the end.
pub struct PrivateServer {
    programs: PathBuf,
    data: PathBuf,
    port: u16,
    server: Option<Child>,
}

impl PrivateServer {
    /// A new cluster. `None` where this machine has no PostgreSQL programs: the stack then runs in
    /// containers.
    pub fn new() -> Option<Self> {
        let stack = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dev/stack");
        let found = Command::new(stack).arg("pg-bin").output().unwrap();
        if !found.status.success() {
            return None;
        }
        let programs = PathBuf::from(String::from_utf8(found.stdout).unwrap().trim());
        let name = format!("/var/tmp/runlog-postgres.{}", uuid::Uuid::new_v4().simple());
        let mut made = as_postgres("mkdir");
        assert!(made.args(["-m", "700", &name]).status().unwrap().success());
        let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let server = Self {
            programs,
            data: name.into(),
            port: free.local_addr().unwrap().port(),
            server: None,
        };
        let initdb = server
            .program("initdb")
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"])
            .output()
            .unwrap();
        assert!(initdb.status.success(), "{initdb:?}");
        Some(server)
    }

    fn program(&self, name: &str) -> Command {
        let mut command = as_postgres(&self.programs.join(name).to_string_lossy());
        command.arg("-D").arg(&self.data);
        command
    }

    /// Starts the server with these settings beside what keeps it small and alone.
    pub fn start(&mut self, settings: &[&str]) {
        let port = format!("port={}", self.port);
        let mut command = self.program("postgres");
        for setting in [
            "listen_addresses=127.0.0.1",
            &port,
            "unix_socket_directories=",
        ] {
            command.args(["-c", setting]);
        }
        for setting in ["fsync=off", "shared_buffers=16MB"].iter().chain(settings) {
            command.args(["-c", setting]);
        }
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        self.server = Some(quiet.spawn().unwrap());
    }

    /// Makes a standby of it, from the next start on.
    pub fn become_standby(&self) {
        let signal = self.data.join("standby.signal");
        assert!(as_postgres("touch").arg(signal).status().unwrap().success());
    }

    /// Sends the server a signal: TERM = no new sessions, INT = end all sessions.
    pub fn signal(&self, name: &str) {
        let id = self.server.as_ref().unwrap().id();
        send(name, &id.to_string());
    }

    /// Waits for the server's end.
    pub fn wait_stopped(&mut self) {
        self.server.take().unwrap().wait().unwrap();
    }

    /// A session, or why there is none.
    pub async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let options = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username("postgres")
            .ssl_mode(PgSslMode::Disable);
        PgConnection::connect_with(&options).await
    }

    /// Tries to connect until that succeeds, or fails with this SQLSTATE. Every error on the way is
    /// shown to `see`.
    pub async fn connect_until(
        &self,
        sqlstate: Option<&str>,
        mut see: impl FnMut(&sqlx::Error),
    ) -> Option<PgConnection> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match self.connect().await {
                Ok(session) if sqlstate.is_none() => return Some(session),
                Ok(session) => session.close().await.unwrap(),
                Err(error) => {
                    see(&error);
                    let code = event_log::fault::sqlstate(&error);
                    if sqlstate.is_some() && code.as_deref() == sqlstate {
                        return None;
                    }
                }
            }
            assert!(Instant::now() < deadline, "60 s, and never {sqlstate:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            send("QUIT", &server.id().to_string());
            let _ = server.wait();
        }
        let _ = std::fs::remove_dir_all(&self.data);
    }
}

/// Sends a signal to one process.
pub fn send(name: &str, id: &str) {
    let mut kill = Command::new("kill");
    assert!(kill.args(["-s", name, id]).status().unwrap().success());
}

/// PostgreSQL refuses to run as root.
fn as_postgres(program: &str) -> Command {
    let id = Command::new("id").arg("-u").output().unwrap().stdout;
    if id.trim_ascii() != b"0" {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
    command.args(["env", "-C", "/", "HOME=/tmp", program]);
    command
}
