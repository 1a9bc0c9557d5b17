//! A Kafka and a PostgreSQL that are reached by TLS and with a login only, for a whole suite.
//!
//! Called by the suite of the wire. Certificates are made by openssl; the servers are ordinary processes
//! and end with the test process, however that ends.

pub mod certificates;
pub mod kafka;
pub mod postgres;

use crate::environment::Environment;
use anyhow::{Context, Result};
use std::path::Path;
use std::process::{Child, Command, Stdio};

pub use certificates::{Authority, Issued};
pub use kafka::SecureKafka;
pub use postgres::SecurePostgres;

/// Both servers, and who vouches for them.
pub struct Secured {
    /// The programs, Kafka by its open listener, PostgreSQL as its superuser.
    pub environment: Environment,
    /// The authority that signed the servers' certificates, and whose clients Kafka trusts.
    pub authority: Authority,
    /// An authority that nobody trusts.
    pub stranger: Authority,
    /// Kafka.
    pub kafka: SecureKafka,
    /// PostgreSQL.
    pub postgres: SecurePostgres,
}

impl Secured {
    /// Starts both.
    ///
    /// # Errors
    /// Where one does not start.
    pub async fn start() -> Result<Self> {
        let mut environment = Environment::from_env()?;
        let dir = environment.scratch_file("secured");
        std::fs::create_dir(&dir)?;
        let authority = Authority::new(&dir, "authority")?;
        let stranger = Authority::new(&dir, "stranger")?;
        // Not for 127.0.0.1: by that name both are somebody else.
        let server = authority.issue("server", "DNS:localhost")?;
        let (kafka, postgres) = tokio::join!(
            SecureKafka::start(&dir, &authority, &server),
            SecurePostgres::start(&authority, &server)
        );
        let (kafka, postgres) = (kafka?, postgres?);
        environment.kafka = format!("127.0.0.1:{}", kafka.open_port);
        environment.database_url = postgres.url("postgres", &postgres.password);
        Ok(Self {
            environment,
            authority,
            stranger,
            kafka,
            postgres,
        })
    }
}

/// Runs a server until this process ends, when it gets the signal: the shell around it waits for the end of its input, which only
/// this process holds open. Nobody has to clean up.
fn spawn_bound(server: &str, signal: &str, then: &str, log: &Path) -> Result<Child> {
    let file = std::fs::File::create(log)?;
    let script =
        format!("{server} & pid=$!; cat >/dev/null; kill -{signal} $pid; wait $pid; {then}");
    Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(file.try_clone()?)
        .stderr(file)
        .spawn()
        .context("sh cannot start")
}
