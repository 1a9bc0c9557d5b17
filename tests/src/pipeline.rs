//! A whole deployment of one test's own: topic, database, consumer group, ingest and projectors.
//!
//! Called by the suites.

use crate::database::Database;
use crate::environment::{Environment, unique_name};
use crate::observe::{self, Observed, Progress};
use crate::oracle::log::{Appended, Log};
use crate::oracle::table::{Table, differences, report};
use crate::oracle::{Produced, expect, fold, log, stats, timeline};
use crate::process::Process;
use crate::roles::Role;
use crate::topic::Topic;
use crate::wait::wait_until;
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Kafka gives a dead member's partitions away after its session; the broker's least is 6 s.
const CONFIGURATION: &str =
    "[kafka.properties]\n\"session.timeout.ms\" = \"6000\"\n\"heartbeat.interval.ms\" = \"1000\"\n";

/// A topic and a migrated database, and how programs reach them.
pub struct Pipeline {
    /// Where the services are.
    pub environment: Environment,
    /// The database.
    pub database: Database,
    /// The topic.
    pub topic: Topic,
    /// The consumer group of ingest.
    pub group: String,
    configuration: PathBuf,
}

impl Pipeline {
    /// A new topic and a new database.
    ///
    /// # Errors
    /// Where a service is absent or `runlog migrate` fails.
    pub async fn fresh(partitions: i32) -> Result<Self> {
        Self::on(Environment::from_env()?, partitions).await
    }

    /// A new topic and a new database on services that may be a test's own.
    ///
    /// # Errors
    /// Where a service is absent or `runlog migrate` fails.
    pub async fn on(environment: Environment, partitions: i32) -> Result<Self> {
        let topic = Topic::fresh(&environment, partitions).await?;
        let database = Database::migrated(&environment).await?;
        let configuration = environment.scratch_file("runlog.toml");
        std::fs::write(&configuration, CONFIGURATION)?;
        Ok(Self {
            environment,
            database,
            topic,
            group: unique_name("ingest"),
            configuration,
        })
    }

    /// Replaces the configuration file that programs get from now on. Without one they have the
    /// short session of Kafka's classic group protocol.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn configure(&self, configuration: &str) -> Result<()> {
        Ok(std::fs::write(&self.configuration, configuration)?)
    }

    /// A program with the settings of this deployment and the login of its role.
    #[must_use]
    pub fn program(&self, name: &str) -> Command {
        let mut command = self.environment.program(name);
        command
            .arg("--config")
            .arg(&self.configuration)
            .env(
                "RUNLOG_DATABASE__URL",
                self.database.url_of(Role::of_program(name)),
            )
            .env("RUNLOG_KAFKA__BOOTSTRAP_SERVERS", &self.environment.kafka)
            .env("RUNLOG_INGEST__GROUP_ID", &self.group)
            .env(
                "RUNLOG_INGEST__TOPICS",
                format!("[{{name=\"{}\"}}]", self.topic.name),
            );
        command
    }

    /// Starts ingest.
    ///
    /// # Errors
    /// Where it cannot start.
    pub fn ingest(&self) -> Result<Process> {
        Process::spawn(
            &self.environment,
            "runlog-ingest",
            self.program("runlog-ingest"),
        )
    }

    /// Starts the projectors.
    ///
    /// # Errors
    /// Where they cannot start.
    pub fn projectors(&self) -> Result<Process> {
        Process::spawn(
            &self.environment,
            "runlog-projectors",
            self.program("runlog-projectors"),
        )
    }

    /// How far ingest and the projection are.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn progress(&self) -> Result<Progress> {
        observe::progress(&self.database.pool).await
    }

    /// Waits until every record is in the ledger.
    ///
    /// # Errors
    /// Where that does not happen in time.
    pub async fn wait_ingested(&self, within: Duration) -> Result<()> {
        let heads = self.topic.heads().await?;
        wait_until("ingest to reach Kafka's heads", within, async || {
            let positions = observe::positions(&self.database.pool).await?;
            for (partition, head) in &heads {
                let stored = positions.get(partition).map_or(0, |position| position[0]);
                ensure!(
                    stored == *head,
                    "partition {partition}: Kafka's head {head}, stored {stored}"
                );
            }
            Ok(())
        })
        .await
    }

    /// Waits until every record is in the ledger and every event in the read models.
    ///
    /// # Errors
    /// Where that does not happen in time.
    pub async fn wait_projected(&self, within: Duration) -> Result<()> {
        self.wait_ingested(within).await?;
        wait_until("the projections to reach the head of the log", within, async || {
            for (partition, position) in observe::positions(&self.database.pool).await? {
                let [stored, appended, checkpoint, applied] = position;
                ensure!(
                    (checkpoint, applied) == (stored, appended),
                    "partition {partition}: next_offset {stored}, checkpoint {checkpoint}; appended {appended}, applied {applied}"
                );
            }
            Ok(())
        })
        .await
    }

    /// Has everything projected by projectors of its own, and compares it with the oracle.
    ///
    /// # Errors
    /// Where something is lost, there twice or different, or does not come in a minute.
    pub async fn assert_as_sent(&self, produced: &[Produced]) -> Result<()> {
        let projectors = self.projectors()?;
        self.wait_projected(Duration::from_secs(60)).await?;
        let differences = self.differences(produced).await?;
        ensure!(differences.is_empty(), "{}", report(&differences, 20));
        let code = exit_code(projectors.terminate().await?)?;
        ensure!(code == 0, "projectors ended with {code}");
        Ok(())
    }

    /// Every difference between what the records must have become and what the views say. Call it
    /// when nothing is under way.
    ///
    /// # Errors
    /// Where a view cannot be read.
    pub async fn differences(&self, records: &[Produced]) -> Result<Vec<String>> {
        let expected: Log = log::judge(records);
        let observed = observe::observe(&self.database.pool).await?;
        compare(&expected, &observed, records, &self.topic.name)
    }

    /// The same where operators had partitions read in parts or more than once: what the readings in
    /// the ledger met must have become what the oracle says of them.
    ///
    /// # Errors
    /// Where a view cannot be read.
    pub async fn differences_over_readings(&self, records: &[Produced]) -> Result<Vec<String>> {
        let readings = observe::readings(&self.database.pool).await?;
        let expected = log::judge_readings(records, &readings);
        let observed = observe::observe(&self.database.pool).await?;
        compare(&expected, &observed, records, &self.topic.name)
    }
}

/// Every difference between what the oracle expects of the records and what the views say.
///
/// # Errors
/// Where a row has no time.
pub fn compare(
    expected: &Log,
    observed: &Observed,
    records: &[Produced],
    topic: &str,
) -> Result<Vec<String>> {
    let mut lines = differences(
        "streams",
        &expect::ledger(expected, topic),
        &observed.ledger,
    );
    let run_events = expect::run_events(expected, topic);
    lines.extend(differences("run_events", &run_events, &observed.run_events));
    let dead_letters = expect::dead_letters(expected, records, topic);
    lines.extend(differences(
        "dead_letters",
        &dead_letters,
        &observed.dead_letters,
    ));
    lines.extend(clock_differences(&observed.run_events)?);
    let times = observe::persisted_at(&observed.run_events)?;
    let is_there = |row: &Appended| times.contains_key(&(row.partition, row.offset));
    if !expected.appended.iter().all(is_there) {
        lines.push("read models: not compared, because rows of the log are missing".to_owned());
        return Ok(lines);
    }
    let models = fold::fold(&expected.appended, &times);
    let intervals = timeline::run_state_interval(&expected.appended, &times);
    let stats = stats::stats(&expected.appended, &times);
    for (name, expected, observed) in [
        ("run_current", &models.run_current, &observed.run_current),
        ("step_attempt", &models.step_attempt, &observed.step_attempt),
        (
            "run_inconsistency",
            &models.run_inconsistency,
            &observed.run_inconsistency,
        ),
        (
            "run_state_interval",
            &intervals,
            &observed.run_state_interval,
        ),
        ("run_hourly", &stats.run_hourly, &observed.run_hourly),
        ("run_daily", &stats.run_daily, &observed.run_daily),
        ("step_daily", &stats.step_daily, &observed.step_daily),
    ] {
        lines.extend(differences(name, expected, observed));
    }
    Ok(lines)
}

/// Within a partition the database's clock never goes back.
fn clock_differences(run_events: &Table) -> Result<Vec<String>> {
    let times = observe::persisted_at(run_events)?;
    let mut lines = Vec::new();
    let mut last: Option<((i32, i64), i64)> = None;
    for (place, persisted) in times {
        if let Some((before, earlier)) = last
            && before.0 == place.0
            && persisted < earlier
        {
            lines.push(format!(
                "run_events [partition {}, offset {}]: persisted_at before offset {}'s",
                place.0, place.1, before.1
            ));
        }
        last = Some((place, persisted));
    }
    Ok(lines)
}

/// The exit code of a status, for messages that say which was expected.
///
/// # Errors
/// Where a signal ended the process.
pub fn exit_code(status: std::process::ExitStatus) -> Result<i32> {
    status
        .code()
        .with_context(|| format!("ended by a signal: {status}"))
}
