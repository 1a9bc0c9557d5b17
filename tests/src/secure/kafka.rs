//! A Kafka with a listener for logins over TLS, one for clients with certificates, and access lists. The
//! third listener, which is open, is this suite's own.

use super::certificates::{Authority, Issued};
use super::spawn_bound;
use crate::environment::{said, tail};
use crate::process::free_port;
use crate::wait::wait_until;
use anyhow::{Context, Result, ensure};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::Duration;

/// The password of SCRAM logins at the start.
pub const SCRAM_PASSWORD: &str = "planted-scram-password-1";
/// Logins by SCRAM-SHA-512, each for one test.
pub const SCRAM_USERS: [&str; 3] = ["ingest", "rotated", "secretive"];
/// The login by PLAIN.
pub const PLAIN_USER: &str = "producer";
/// Its password.
pub const PLAIN_PASSWORD: &str = "planted-plain-password-1";

const STORE_PASSWORD: &str = "store-password";
const STARTS: Duration = Duration::from_secs(90);

/// The broker.
pub struct SecureKafka {
    /// Without TLS and login, for the suite itself, who may do everything.
    pub open_port: u16,
    /// TLS and SASL.
    pub sasl_port: u16,
    /// TLS with client certificates.
    pub mutual_port: u16,
    lib: PathBuf,
    _server: Child,
}

impl SecureKafka {
    /// Starts it and waits until it listens.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn start(dir: &Path, authority: &Authority, server: &Issued) -> Result<Self> {
        let lib = lib()?;
        let [open_port, sasl_port, mutual_port, controller] =
            [free_port()?, free_port()?, free_port()?, free_port()?];
        let properties = dir.join("kafka.properties");
        let data = dir.join("kafka");
        let store = server.pkcs12(STORE_PASSWORD)?;
        std::fs::write(
            &properties,
            settings(
                [open_port, sasl_port, mutual_port, controller],
                &data,
                &store,
                &authority.certificate,
            ),
        )?;
        let mut format = java(&lib, "kafka.tools.StorageTool");
        format.args([
            "format",
            "--standalone",
            "-t",
            "wTSHZP53QaW2b3yYFX8cYA",
            "-c",
        ]);
        format.arg(&properties);
        for user in SCRAM_USERS {
            let scram = format!("SCRAM-SHA-512=[name={user},password={SCRAM_PASSWORD}]");
            format.args(["--add-scram", &scram]);
        }
        succeeded(&tokio::process::Command::from(format).output().await?)?;
        let log = dir.join("kafka.log");
        let command = format!(
            "java -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp '{}/*' kafka.Kafka '{}'",
            lib.display(),
            properties.display()
        );
        let cleanup = format!("rm -rf '{}'", data.display());
        let mut kafka = Self {
            open_port,
            sasl_port,
            mutual_port,
            lib,
            _server: spawn_bound(&command, "KILL", &cleanup, &log)?,
        };
        kafka.wait_started(&log).await?;
        Ok(kafka)
    }

    async fn wait_started(&mut self, log: &Path) -> Result<()> {
        wait_until("Kafka to listen", STARTS, async || {
            for port in [self.open_port, self.sasl_port, self.mutual_port] {
                TcpStream::connect(("127.0.0.1", port))
                    .with_context(|| format!("port {port}; its log: {}", tail(log, 20)))?;
            }
            // It listens before it serves.
            let log = std::fs::read_to_string(log)?;
            ensure!(log.contains("Kafka Server started"), "not started yet");
            Ok(())
        })
        .await
    }

    /// Allows what the arguments of kafka-acls say.
    ///
    /// # Errors
    /// Where Kafka refuses.
    pub async fn allow(&self, arguments: &[&str]) -> Result<()> {
        let mut command = java(&self.lib, "org.apache.kafka.tools.AclCommand");
        command.args([
            "--bootstrap-server",
            &format!("127.0.0.1:{}", self.open_port),
        ]);
        command.arg("--add").args(arguments);
        succeeded(&tokio::process::Command::from(command).output().await?)
    }

    /// Gives a SCRAM login another password.
    ///
    /// # Errors
    /// Where Kafka refuses.
    pub async fn set_password(&self, user: &str, password: &str) -> Result<()> {
        let mut command = java(&self.lib, "kafka.admin.ConfigCommand");
        command.args([
            "--bootstrap-server",
            &format!("127.0.0.1:{}", self.open_port),
        ]);
        command.args(["--alter", "--entity-type", "users", "--entity-name", user]);
        command.args([
            "--add-config",
            &format!("SCRAM-SHA-512=[password={password}]"),
        ]);
        succeeded(&tokio::process::Command::from(command).output().await?)
    }
}

fn settings(ports: [u16; 4], data: &Path, store: &Path, authority: &Path) -> String {
    let [open, sasl, mutual, controller] = ports;
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=OPEN://127.0.0.1:{open},SASL://127.0.0.1:{sasl},MUTUAL://127.0.0.1:{mutual},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=OPEN://127.0.0.1:{open},SASL://localhost:{sasl},MUTUAL://localhost:{mutual},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=OPEN:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_SSL,MUTUAL:SSL
inter.broker.listener.name=OPEN
controller.listener.names=CONTROLLER
log.dirs={data}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
ssl.keystore.type=PKCS12
ssl.keystore.location={store}
ssl.keystore.password={STORE_PASSWORD}
ssl.key.password={STORE_PASSWORD}
ssl.truststore.type=PEM
ssl.truststore.location={authority}
listener.name.mutual.ssl.client.auth=required
sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN,OAUTHBEARER
listener.name.sasl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_{PLAIN_USER}=\"{PLAIN_PASSWORD}\";
listener.name.sasl.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"broker\";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
",
        data = data.display(),
        store = store.display(),
        authority = authority.display(),
    )
}

/// Where dev/install puts Kafka's jars.
fn lib() -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dev/lib.sh");
    let print = format!(". '{}'; printf %s \"$KAFKA_LIB\"", script.display());
    let output = Command::new("bash").args(["-c", &print]).output()?;
    let lib = PathBuf::from(String::from_utf8(output.stdout)?);
    ensure!(
        lib.is_dir(),
        "{} is not there: RUNLOG_STACK=native dev/install fetches Kafka",
        lib.display()
    );
    Ok(lib)
}

fn java(lib: &Path, class: &str) -> Command {
    let mut command = Command::new("java");
    command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]);
    command.arg(lib.join("*")).arg(class);
    command
}

fn succeeded(output: &Output) -> Result<()> {
    ensure!(output.status.success(), "{}", said(output));
    Ok(())
}
