//! One test's own topic, database and login on the servers that all tests here share.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::ensure;
use runlog_tests::environment::{run_to_end, said, unique_name};
use runlog_tests::secure::kafka::{PLAIN_PASSWORD, PLAIN_USER, SCRAM_PASSWORD};
use runlog_tests::{Database, Environment, Process, Role, Secured, Topic, wait_until};
use tokio::sync::OnceCell;

pub(crate) const SOON: Duration = Duration::from_secs(60);

/// The servers; started by the first test that asks.
pub(crate) async fn secured() -> &'static Secured {
    static SERVERS: OnceCell<Secured> = OnceCell::const_new();
    SERVERS
        .get_or_init(async || Secured::start().await.unwrap())
        .await
}

/// Settings of `kafka.security`, as lines of TOML.
pub(crate) struct Security(pub(crate) String);

impl Security {
    /// SCRAM-SHA-512 over TLS, with the password in a file.
    pub(crate) fn scram(servers: &Secured, user: &str, password_file: &Path) -> Self {
        Self(format!(
            "protocol = \"sasl_ssl\"\nca_file = \"{}\"\nmechanism = \"SCRAM-SHA-512\"\nusername = \"{user}\"\n\
             password_file = \"{}\"\n",
            servers.authority.certificate.display(),
            password_file.display()
        ))
    }

    /// PLAIN over TLS, with the password in the configuration.
    pub(crate) fn plain(servers: &Secured) -> Self {
        Self(format!(
            "protocol = \"sasl_ssl\"\nca_file = \"{}\"\nmechanism = \"PLAIN\"\nusername = \"{PLAIN_USER}\"\n\
             password = \"{PLAIN_PASSWORD}\"\n",
            servers.authority.certificate.display()
        ))
    }

    /// Mutual TLS.
    pub(crate) fn mutual(servers: &Secured, certificate: &Path, key: &Path) -> Self {
        Self(format!(
            "protocol = \"ssl\"\nca_file = \"{}\"\ncertificate_file = \"{}\"\nkey_file = \"{}\"\n",
            servers.authority.certificate.display(),
            certificate.display(),
            key.display()
        ))
    }
}

/// A topic, a database and a consumer group.
pub(crate) struct Deployment {
    pub(crate) servers: &'static Secured,
    pub(crate) topic: Topic,
    pub(crate) database: Database,
    pub(crate) group: String,
}

impl Deployment {
    /// New ones. The topic has one partition.
    pub(crate) async fn fresh() -> Self {
        let servers = secured().await;
        Self {
            servers,
            topic: Topic::fresh(&servers.environment, 1).await.unwrap(),
            database: Database::migrated(&servers.environment).await.unwrap(),
            group: unique_name("ingest"),
        }
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.servers.environment
    }

    /// Lets a principal read the topic as a member of the group.
    pub(crate) async fn allow_reading(&self, principal: &str) {
        let principal = format!("User:{principal}");
        let kafka = &self.servers.kafka;
        let arguments = ["--allow-principal", &principal, "--operation", "Read"];
        let what = ["--topic", &self.topic.name, "--group", &self.group];
        kafka
            .allow(&[&arguments[..], &what].concat())
            .await
            .unwrap();
    }

    /// Lets a principal write to the topic.
    pub(crate) async fn allow_writing(&self, principal: &str) {
        let principal = format!("User:{principal}");
        let arguments = ["--allow-principal", &principal, "--operation", "Write"];
        let what = ["--topic", &self.topic.name];
        let kafka = &self.servers.kafka;
        kafka
            .allow(&[&arguments[..], &what].concat())
            .await
            .unwrap();
    }

    /// A file that only this test writes. Contents are swapped in whole, as mounts of secrets do it.
    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.environment().scratch_file(name);
        swap(&path, content);
        path
    }

    /// The database's URL for the login of a program's role.
    pub(crate) fn url(&self, program: &str) -> String {
        self.database.url_of(Role::of_program(program))
    }

    /// A program with these settings of Kafka and the database's URL.
    pub(crate) fn program(
        &self,
        name: &str,
        port: u16,
        security: &Security,
        database_url: &str,
    ) -> Command {
        let at = format!("localhost:{port}");
        self.program_at(name, &at, security, database_url)
    }

    /// The same at another address.
    pub(crate) fn program_at(
        &self,
        name: &str,
        kafka: &str,
        security: &Security,
        database_url: &str,
    ) -> Command {
        let configuration = self.file(
            "runlog.toml",
            &format!(
                "[database]\nurl = \"{database_url}\"\n\
                 [ingest]\ngroup_id = \"{}\"\ntopics = [{{ name = \"{}\" }}]\n\
                 [kafka]\nbootstrap_servers = \"{kafka}\"\n\
                 [kafka.security]\n{}\n\
                 [kafka.properties]\n\"session.timeout.ms\" = \"6000\"\n\"heartbeat.interval.ms\" = \"1000\"\n",
                self.group, self.topic.name, security.0
            ),
        );
        let mut command = self.environment().program(name);
        command.arg("--config").arg(configuration);
        command
    }

    /// Ingest by SCRAM, with the password in this file.
    pub(crate) fn ingest(
        &self,
        user: &str,
        password_file: &Path,
        change: impl Fn(&mut Command),
    ) -> Process {
        let security = Security::scram(self.servers, user, password_file);
        let port = self.servers.kafka.sasl_port;
        let mut program =
            self.program("runlog-ingest", port, &security, &self.url("runlog-ingest"));
        change(&mut program);
        Process::spawn(self.environment(), "runlog-ingest", program).unwrap()
    }

    /// Publishes this many events of new runs by the open listener.
    pub(crate) async fn publish(&self, events: usize) {
        let program = self.program_at(
            "runlog",
            &self.environment().kafka,
            &Security(String::new()),
            &self.url("runlog"),
        );
        succeeds(with_events(program, self, events)).await;
    }

    /// Waits until the log holds this many events.
    pub(crate) async fn wait_logged(&self, events: i64) {
        wait_until("the events to be in the log", SOON, async || {
            let found: i64 = sqlx::query_scalar("SELECT count(*) FROM event_log.run_events")
                .fetch_one(&self.database.pool)
                .await?;
            ensure!(found == events, "{found} of {events}");
            Ok(())
        })
        .await
        .unwrap();
    }
}

/// Puts a new content in the place of a file's, at once.
pub(crate) fn swap(path: &Path, content: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, content).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// `runlog publish` of this many events.
pub(crate) fn with_events(mut program: Command, deployment: &Deployment, events: usize) -> Command {
    let line = |_| {
        format!(
            "{{\"eventType\":\"RunStarted\",\"tenantId\":\"acme\",\"projectId\":\"shop\",\"environmentId\":\"prod\",\
             \"runId\":\"{}\",\"planId\":\"nightly\",\"planVersion\":\"v1\",\"engineAttemptId\":1,\
             \"logicalAttemptId\":1}}\n",
            unique_name("run")
        )
    };
    let lines: String = (0..events).map(line).collect();
    program
        .arg("publish")
        .arg(deployment.file("events.ndjson", &lines));
    program
}

/// Runs a command that must succeed, and answers what it said.
pub(crate) async fn succeeds(command: Command) -> String {
    let shown = format!("{command:?}");
    let output: Output = run_to_end(command).await.unwrap();
    assert!(output.status.success(), "{shown}: {}", said(&output));
    said(&output)
}

/// The file with the SCRAM password that all logins have at the start.
pub(crate) fn scram_password(deployment: &Deployment) -> PathBuf {
    deployment.file("scram-password", &format!("{SCRAM_PASSWORD}\n"))
}
