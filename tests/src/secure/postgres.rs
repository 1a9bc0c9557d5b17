//! A PostgreSQL that takes connections by TLS and with a password only.

use super::certificates::{Authority, Issued};
use super::spawn_bound;
use crate::chaos::postgres::{as_postgres, bin, fresh_data_folder, succeeded};
use crate::process::free_port;
use crate::wait::wait_until;
use anyhow::{Result, ensure};
use sqlx::{Connection, Executor, PgConnection};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

/// Who may connect: everybody by TLS with a password.
const ACCESS: &str = "hostssl all all 127.0.0.1/32 scram-sha-256\n";
const STARTS: Duration = Duration::from_secs(60);

/// The server.
pub struct SecurePostgres {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    /// The superuser's password.
    pub password: String,
    authority: PathBuf,
    _server: Child,
}

impl SecurePostgres {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn start(authority: &Authority, server: &Issued) -> Result<Self> {
        let (data, port) = (fresh_data_folder()?, free_port()?);
        let password = hex::encode(rand::random::<[u8; 12]>());
        let cluster = data.join("cluster");
        let pwfile = data.join("password");
        write_as_postgres(&pwfile, password.as_bytes())?;
        let mut initdb = as_postgres(&bin("initdb").await?);
        initdb.args([
            "-U",
            "postgres",
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--no-sync",
        ]);
        initdb.arg("--pwfile").arg(&pwfile).arg("-D").arg(&cluster);
        succeeded(
            &tokio::process::Command::from(initdb).output().await?,
            "initdb",
        )?;
        write_as_postgres(&cluster.join("pg_hba.conf"), ACCESS.as_bytes())?;
        write_as_postgres(
            &cluster.join("server.crt"),
            &std::fs::read(&server.certificate)?,
        )?;
        write_as_postgres(&cluster.join("server.key"), &std::fs::read(&server.key)?)?;
        let mut command = as_postgres(&bin("postgres").await?);
        command.arg("-D").arg(&cluster);
        for setting in [
            &format!("port={port}"),
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "ssl=on",
            "fsync=off",
            "shared_buffers=32MB",
        ] {
            command.args(["-c", setting]);
        }
        let cleanup = format!("rm -rf '{}'", data.display());
        let log = data.with_extension("log");
        let postgres = Self {
            port,
            password,
            authority: authority.certificate.clone(),
            _server: spawn_bound(&in_shell(&command), "QUIT", &cleanup, &log)?,
        };
        let url = postgres.url("postgres", &postgres.password);
        wait_until("PostgreSQL to answer", STARTS, async || {
            Ok(PgConnection::connect(&url).await?.close().await?)
        })
        .await?;
        // It is open, and goes with the server that writes it.
        std::fs::remove_file(log)?;
        Ok(postgres)
    }

    /// The URL of a login, by TLS, with the server's certificate and name verified.
    #[must_use]
    pub fn url(&self, user: &str, password: &str) -> String {
        self.url_with("localhost", user, password, &self.verified())
    }

    /// The parameters of a verified connection.
    #[must_use]
    pub fn verified(&self) -> String {
        format!(
            "sslmode=verify-full&sslrootcert={}",
            self.authority.display()
        )
    }

    /// Another URL of it.
    #[must_use]
    pub fn url_with(&self, host: &str, user: &str, password: &str, parameters: &str) -> String {
        format!(
            "postgres://{user}:{password}@{host}:{}/postgres?{parameters}",
            self.port
        )
    }

    /// Runs a statement as superuser.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn sql(&self, statement: &str) -> Result<()> {
        let mut connection = PgConnection::connect(&self.url("postgres", &self.password)).await?;
        connection
            .execute(sqlx::AssertSqlSafe(statement.to_owned()))
            .await?;
        Ok(connection.close().await?)
    }
}

/// A file that belongs to user postgres and that nobody else reads.
fn write_as_postgres(path: &Path, content: &[u8]) -> Result<()> {
    use std::io::Write as _;
    let mut command = as_postgres(Path::new("sh"));
    let script = format!("umask 077; cat >'{}'", path.display());
    let mut child = command
        .args(["-c", &script])
        .stdin(std::process::Stdio::piped())
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(content)?;
    }
    ensure!(child.wait()?.success(), "{script} failed");
    Ok(())
}

/// A command as a shell takes it. Its words are this suite's own and hold no quotes.
fn in_shell(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted = words.map(|word| format!("'{}'", word.to_string_lossy()));
    quoted.collect::<Vec<_>>().join(" ")
}
