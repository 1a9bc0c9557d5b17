//! Kafka, PostgreSQL and its standby: stopped, killed, started again, promoted.
//!
//! Called by [`super::round`]. The first PostgreSQL is the stack's; after a failover the former
//! standby is the primary, and a new standby is made from it when one is needed again.

use super::postgres::{
    Postgres, SERVER, as_postgres, bin, fresh_data_folder, script, signal, succeeded,
};
use super::proxy::Proxy;
use crate::environment::{Environment, run_to_end};
use crate::process::free_port;
use crate::wait::wait_until;
use anyhow::{Context, Result, ensure};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

/// Connections of the harness to a database.
const CONNECTIONS: u32 = 4;

/// The servers of a run, with a proxy before each.
pub struct Servers {
    /// Before Kafka; the broker sends its clients here.
    pub kafka_proxy: Proxy,
    /// Before whichever PostgreSQL is the primary.
    pub postgres_proxy: Proxy,
    /// Where things are, without the proxies.
    pub environment: Environment,
    dir: PathBuf,
    password: String,
    primary: Postgres,
    standby: Option<(Postgres, Proxy)>,
}

impl Servers {
    /// Starts a stack in `dir`, with proxies before it.
    ///
    /// # Errors
    /// Where something does not start.
    pub async fn start(environment: &Environment, dir: &Path) -> Result<Self> {
        stack(dir, &["up", "--no-fsync", "--proxied"]).await?;
        let env = std::fs::read_to_string(dir.join("env"))?;
        let value = |name: &str| {
            let prefix = format!("export {name}=");
            let line = env.lines().find_map(|line| line.strip_prefix(&prefix));
            line.with_context(|| format!("{} does not name {name}", dir.display()))
        };
        let mut environment = environment.clone();
        environment.kafka = value("RUNLOG_KAFKA__BOOTSTRAP_SERVERS")?.to_owned();
        environment.database_url = value("RUNLOG_DATABASE__URL")?.to_owned();
        let options = PgConnectOptions::from_str(&environment.database_url)?;
        let front: SocketAddr = value("RUNLOG_STACK_KAFKA_PROXY")?.parse()?;
        let behind: SocketAddr = value("RUNLOG_STACK_KAFKA_PROXIED")?.parse()?;
        let port = options.get_port();
        Ok(Self {
            kafka_proxy: Proxy::start(front.port(), behind).await?,
            postgres_proxy: Proxy::start(0, local(port)).await?,
            password: std::fs::read_to_string(dir.join("password"))?
                .trim()
                .to_owned(),
            primary: Postgres {
                port,
                data: std::fs::read_to_string(dir.join("pgdata"))?
                    .trim()
                    .to_owned()
                    .into(),
                is_the_stacks: true,
                child: None,
            },
            standby: None,
            dir: dir.to_owned(),
            environment,
        })
    }

    /// Stops everything and removes its data.
    ///
    /// # Errors
    /// Where something cannot be stopped.
    pub async fn stop(mut self) -> Result<()> {
        if let Some((standby, _)) = self.standby.take() {
            standby.discard().await?;
        }
        if !self.primary.is_the_stacks {
            self.primary.discard().await?;
        }
        stack(&self.dir, &["down"]).await
    }

    /// Where the product reaches Kafka.
    #[must_use]
    pub fn kafka_address(&self) -> String {
        format!("127.0.0.1:{}", self.kafka_proxy.port)
    }

    /// The URL by which the product reaches a database.
    #[must_use]
    pub fn proxied_url(&self, database: &str) -> String {
        self.url(self.postgres_proxy.port, database)
    }

    /// The URL of a database of the present primary.
    #[must_use]
    pub fn direct_url(&self, database: &str) -> String {
        self.url(self.primary.port, database)
    }

    fn url(&self, port: u16, database: &str) -> String {
        format!(
            "postgres://postgres:{}@127.0.0.1:{port}/{database}",
            self.password
        )
    }

    /// Connections to a database of the present primary, made when they are needed.
    ///
    /// # Errors
    /// None that is known: the URL is this harness's own.
    pub fn pool(&self, database: &str) -> Result<PgPool> {
        Ok(PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(Duration::from_secs(2))
            .connect_lazy(&self.direct_url(database))?)
    }

    /// Runs a statement on the present primary, as superuser.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn sql(&self, statement: &str) -> Result<()> {
        sql(&self.direct_url("postgres"), statement).await
    }

    /// Ends PostgreSQL at once (immediate stop, or SIGKILL of all its processes) and starts it again.
    ///
    /// # Errors
    /// Where it does not come back.
    pub async fn crash_postgres(&mut self, kill: bool, down: Duration) -> Result<()> {
        if kill {
            self.primary.kill_all().await?;
        } else {
            self.primary.stop_immediately().await?;
        }
        tokio::time::sleep(down).await;
        if self.primary.is_the_stacks {
            stack(&self.dir, &["up", "--no-fsync", "postgres"]).await?;
        } else {
            self.primary.start()?;
        }
        self.wait_postgres().await
    }

    async fn wait_postgres(&self) -> Result<()> {
        wait_until("PostgreSQL to answer", SERVER, async || {
            self.sql("SELECT 1").await
        })
        .await
    }

    /// Makes a standby that follows the primary, unless there is one.
    ///
    /// # Errors
    /// Where that does not work.
    pub async fn make_standby(&mut self) -> Result<()> {
        if self.standby.is_some() {
            return Ok(());
        }
        let between = Proxy::start(0, local(self.primary.port)).await?;
        let data = fresh_data_folder()?;
        let mut copy = as_postgres(&bin("pg_basebackup").await?);
        let from = format!(
            "host=127.0.0.1 port={} user=postgres password={} application_name=standby",
            between.port, self.password
        );
        copy.args(["-d", &from, "-R", "-X", "stream", "-c", "fast", "-D"])
            .arg(&data);
        succeeded(&run_to_end(copy).await?, "pg_basebackup")?;
        let mut standby = Postgres {
            port: free_port()?,
            data,
            is_the_stacks: false,
            child: None,
        };
        standby.start()?;
        let url = self.url(standby.port, "postgres");
        wait_until("the standby to answer", SERVER, async || {
            sql(&url, "SELECT 1").await
        })
        .await?;
        self.standby = Some((standby, between));
        Ok(())
    }

    /// Kills the primary and promotes the standby, which got nothing for `behind` before that.
    ///
    /// # Errors
    /// Where there is no standby, or it is not promoted.
    pub async fn fail_over(&mut self, behind: Duration) -> Result<()> {
        let (standby, between) = self.standby.take().context("there is no standby")?;
        if !behind.is_zero() {
            between.set_refusing(true);
            tokio::time::sleep(behind).await;
        }
        self.primary.kill_all().await?;
        self.postgres_proxy.cut();
        let old = std::mem::replace(&mut self.primary, standby);
        self.sql("SELECT pg_promote(true, 60)").await?;
        wait_until("the standby to be promoted", SERVER, async || {
            self.sql(
                "DO $$ BEGIN IF pg_is_in_recovery() THEN RAISE 'still a standby'; END IF; END $$",
            )
            .await
        })
        .await?;
        self.postgres_proxy.set_target(local(self.primary.port));
        self.environment.database_url = self.direct_url("runlog");
        if !old.is_the_stacks {
            old.discard().await?;
        }
        Ok(())
    }

    /// Ends the broker and starts it again.
    ///
    /// # Errors
    /// Where it does not come back.
    pub async fn bounce_broker(&self, kill: bool, down: Duration) -> Result<()> {
        let pid = std::fs::read_to_string(self.dir.join("kafka.pid"))?;
        let pid = pid.split_whitespace().next().unwrap_or_default().to_owned();
        signal(&pid, if kill { "KILL" } else { "TERM" })?;
        wait_gone(&pid).await?;
        tokio::time::sleep(down).await;
        stack(&self.dir, &["up", "--no-fsync", "kafka"]).await
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

async fn sql(url: &str, statement: &str) -> Result<()> {
    let mut connection = PgConnection::connect(url).await?;
    connection
        .execute(AssertSqlSafe(statement.to_owned()))
        .await?;
    Ok(connection.close().await?)
}

async fn wait_gone(pid: &str) -> Result<()> {
    let stat = PathBuf::from(format!("/proc/{pid}/stat"));
    wait_until("the broker to end", SERVER, async || {
        let state = std::fs::read_to_string(&stat).unwrap_or_default();
        let ended = state.is_empty() || state.contains(") Z ");
        ensure!(ended, "process {pid} is still there");
        Ok(())
    })
    .await
}

async fn stack(dir: &Path, arguments: &[&str]) -> Result<()> {
    let (action, rest) = arguments.split_first().context("dev/stack does what?")?;
    let mut command = Command::new(script());
    command.arg(action).arg("--dir").arg(dir).args(rest);
    // Its servers outlive it and would keep a pipe open.
    let log = dir.with_extension("log");
    let file = std::fs::File::create(&log)?;
    command
        .stdin(Stdio::null())
        .stdout(file.try_clone()?)
        .stderr(file);
    let status = tokio::process::Command::from(command).status().await?;
    ensure!(
        status.success(),
        "dev/stack {action} failed: {}",
        std::fs::read_to_string(&log)?
    );
    Ok(())
}
