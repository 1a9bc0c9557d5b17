//! What the fence stands around: a database in which three tenants' records, and nobody's, came through Kafka, ingest and
//! the projectors, with a word of each tenant in everything that is its own; and the logins that try to get over.
//!
//! Called by the suites of this binary. Uses the processes of `runlog_tests`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use runlog_tests::environment::unique_name;
use runlog_tests::generator::{Intent, Record};
use runlog_tests::roles::{self, Role, as_login};
use runlog_tests::{Database, Environment, Pipeline, Topic, wait_until};
use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use uuid::Uuid;

/// Whose data the attackers may see, at most; whose nobody of them may; and one that has no topic of its own.
pub(crate) const OWN: &str = "aardvark";
pub(crate) const FOREIGN: &str = "badger";
pub(crate) const THIRD: &str = "civet";
/// In records that name no tenant, or name one that their topic may not speak for.
pub(crate) const NOBODYS: &str = "nobodyknows";
const TENANTS: [&str; 3] = [OWN, FOREIGN, THIRD];
/// The same run id in every tenant.
pub(crate) const SAME_RUN: &str = "run-of-everybody";
const SOON: Duration = Duration::from_secs(60);

/// An attacker's login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// An analyst of the tenant [`OWN`].
    Analyst,
    /// An analyst of two tenants, [`OWN`] and [`THIRD`].
    AnalystOfTwo,
    /// An analyst to whom no tenant was granted.
    AnalystOfNone,
    /// A login without any role.
    Nobody,
    /// A role's login.
    Of(Role),
}

impl Who {
    /// Its name in messages.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Analyst => "analyst".to_owned(),
            Self::AnalystOfTwo => "analyst of two".to_owned(),
            Self::AnalystOfNone => "analyst of none".to_owned(),
            Self::Nobody => "no role".to_owned(),
            Self::Of(role) => role.name().trim_start_matches("runlog_").to_owned(),
        }
    }

    /// The database login, whose password is its name.
    pub(crate) fn login(self) -> String {
        match self {
            Self::Analyst => "test_fence_one".to_owned(),
            Self::AnalystOfTwo => "test_fence_two".to_owned(),
            Self::AnalystOfNone => "test_fence_none".to_owned(),
            Self::Nobody => "test_fence_nobody".to_owned(),
            Self::Of(role) => role.login(),
        }
    }

    /// The tenants whose rows it may see.
    pub(crate) fn tenants(self) -> &'static [&'static str] {
        match self {
            Self::Analyst => &[OWN],
            Self::AnalystOfTwo => &[OWN, THIRD],
            Self::AnalystOfNone | Self::Nobody => &[],
            Self::Of(_) => &TENANTS,
        }
    }
}

/// The database and what is known of it.
pub(crate) struct World {
    /// Services, database, configuration.
    pub(crate) pipeline: Pipeline,
    /// The topic of each tenant that has one, by its word.
    pub(crate) topics: BTreeMap<&'static str, Topic>,
    /// What placeholders in statements stand for.
    pub(crate) values: BTreeMap<String, String>,
    /// Event ids and keys (hex) of each tenant.
    pub(crate) ids: BTreeMap<&'static str, Vec<String>>,
}

impl World {
    /// Sends the records, has them ingested and projected, twice for each projection: live and as a version being built.
    pub(crate) async fn new() -> Result<Self> {
        let pipeline = Pipeline::fresh(1).await?;
        let topics = BTreeMap::from([
            (OWN, Topic::fresh(&pipeline.environment, 1).await?),
            (FOREIGN, Topic::fresh(&pipeline.environment, 1).await?),
        ]);
        make_logins(&pipeline.database).await?;
        let sent = send(&pipeline.topic, &topics).await?;
        run(&pipeline, &topics, sent).await?;
        sqlx::raw_sql(AssertSqlSafe(format!(
            "INSERT INTO read_model.parked_run (tenant_id, run_id, projection, version, run_no, run_seq, error)
             SELECT tenant_id, run_id, 'run_status', 1, run_no, 1, tenant_id || '-error' FROM event_log.run WHERE run_id = '{SAME_RUN}';
             ANALYZE"
        )))
        .execute(&pipeline.database.pool)
        .await?;
        let mut world = Self {
            pipeline,
            topics,
            values: BTreeMap::new(),
            ids: BTreeMap::new(),
        };
        world.learn().await?;
        Ok(world)
    }

    /// The database's URL for a login.
    pub(crate) fn url_of(&self, who: Who) -> String {
        as_login(&self.pipeline.database.url, &who.login())
    }

    /// Every text that a login must never be shown.
    pub(crate) fn secrets(&self, who: Who) -> Vec<String> {
        let mut secrets = vec![NOBODYS.to_owned()];
        for tenant in TENANTS.into_iter().filter(|t| !who.tenants().contains(t)) {
            secrets.push(tenant.to_owned());
            secrets.extend(self.ids[tenant].iter().cloned());
            secrets.extend(self.topics.get(tenant).map(|topic| topic.name.clone()));
        }
        if who.tenants().is_empty() {
            secrets.push(self.pipeline.topic.name.clone());
        }
        // As bytea is shown.
        let hex: Vec<String> = secrets.iter().map(hex::encode).collect();
        secrets.extend(hex);
        secrets
    }

    /// Reads from the database what the records became.
    async fn learn(&mut self) -> Result<()> {
        let pool = &self.pipeline.database.pool.clone();
        for tenant in TENANTS {
            let reused = TENANTS.map(|tenant| reused_id(tenant).to_string());
            let ids: Vec<String> = sqlx::query_scalar(
                "SELECT unnest(ARRAY[event_id::text, idempotency_key]) FROM event_log.run_events WHERE tenant_id = $1",
            )
            .bind(tenant)
            .fetch_all(pool)
            .await?;
            // An id that two tenants' producers use is in the own bytes of both.
            let ids: Vec<String> = ids.into_iter().filter(|id| !reused.contains(id)).collect();
            ensure!(ids.len() > 10, "{tenant} has {} ids", ids.len());
            self.ids.insert(tenant, ids);
        }
        for (prefix, tenant) in [("own", OWN), ("foreign", FOREIGN)] {
            let run = format!("{tenant}-run-1");
            let (event, key, run_no, stream, offset): (String, String, i64, i64, i64) =
                sqlx::query_as(
                    "SELECT e.event_id::text, encode(e.idempotency_key, 'hex'), e.run_no, e.stream_id, e.source_offset
                 FROM event_log.event e JOIN event_log.run r USING (run_no) WHERE r.run_id = $1 AND e.run_seq = 2",
                )
                .bind(&run)
                .fetch_one(pool)
                .await?;
            let dead: i64 = sqlx::query_scalar(
                "SELECT min(dead_letter_id) FROM event_log.dead_letter WHERE tenant_id = $1",
            )
            .bind(tenant)
            .fetch_one(pool)
            .await?;
            let topic = self.topics[tenant].name.clone();
            self.know(
                prefix,
                [
                    tenant.to_owned(),
                    run,
                    event,
                    key,
                    topic,
                    run_no.to_string(),
                    stream.to_string(),
                    offset.to_string(),
                    dead.to_string(),
                ],
            );
        }
        let absent = [
            "bodger".to_owned(),
            "bodger-run-1".to_owned(),
            Uuid::new_v4().to_string(),
            hex::encode(Sha256::digest("absent")),
            unique_name("run-events-test"),
            "987654".to_owned(),
            "987654".to_owned(),
            "987654".to_owned(),
            "987654".to_owned(),
        ];
        self.know("absent", absent);
        self.values
            .insert("same_run".to_owned(), SAME_RUN.to_owned());
        Ok(())
    }

    fn know(&mut self, whose: &str, values: [String; 9]) {
        for (kind, value) in KINDS.into_iter().zip(values) {
            self.values.insert(format!("{whose}_{kind}"), value);
        }
    }
}

/// The placeholders, each with own_, foreign_ and absent_ before it, and some_ for one of the last two.
pub(crate) const KINDS: [&str; 9] = [
    "tenant", "run", "event", "key", "topic", "no", "stream", "offset", "dead",
];

/// The logins, and the tenants that an operator grants to them.
pub(crate) async fn make_logins(database: &Database) -> Result<()> {
    let mut admin = PgConnection::connect(&database.url).await?;
    sqlx::raw_sql("SELECT pg_advisory_lock(hashtextextended('test logins', 0))")
        .execute(&mut admin)
        .await?;
    for who in [Who::Analyst, Who::AnalystOfTwo, Who::AnalystOfNone] {
        roles::make_login(&mut admin, &who.login(), Role::Analyst).await?;
    }
    let nobody = Who::Nobody.login();
    let statement = format!(
        "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{nobody}') THEN
           CREATE ROLE {nobody} LOGIN PASSWORD '{nobody}'; END IF; END $$"
    );
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(&mut admin)
        .await?;
    admin.close().await?;
    let mut operator = PgConnection::connect(&database.url_of(Role::Operator)).await?;
    for who in [Who::Analyst, Who::AnalystOfTwo] {
        for tenant in who.tenants() {
            let granted: bool =
                sqlx::query_scalar("SELECT event_log.grant_tenant($1, $2, 'fence', 'a test')")
                    .bind(who.login())
                    .bind(tenant)
                    .fetch_one(&mut operator)
                    .await?;
            ensure!(granted, "{tenant} was granted before");
        }
    }
    Ok(operator.close().await?)
}

/// An event's id that another tenant's producer uses, too.
fn reused_id(tenant: &str) -> Uuid {
    let digest: [u8; 32] = Sha256::digest(format!("reused {tenant}")).into();
    Uuid::from_slice(&digest[..16]).unwrap_or_default()
}

fn record(value: Vec<u8>) -> Record {
    Record {
        partition: 0,
        hash: 0,
        key: Some(b"key".to_vec()),
        value: Some(value),
        content_type: Some("application/json".to_owned()),
        intent: Intent::Append,
    }
}

/// An event with its tenant's word in every field that can hold one.
fn event(
    tenant: &str,
    run: &str,
    event_type: &str,
    attempt: i32,
    id: Uuid,
    content: &str,
) -> Record {
    let is_step = event_type.starts_with("Step");
    let key = Sha256::digest(format!("{tenant} {run} {event_type} {attempt}"));
    let value = json!({
        "eventId": id, "eventType": event_type, "tenantId": tenant, "projectId": format!("{tenant}-project"),
        "environmentId": format!("{tenant}-environment"), "runId": run, "planId": format!("{tenant}-plan"),
        "planVersion": format!("{tenant}-v1"), "engineAttemptId": 1, "logicalAttemptId": attempt,
        "idempotencyKey": hex::encode(key), "emittedAt": format!("2026-11-24T10:00:{:02}Z", attempt + 10),
        "stepId": is_step.then(|| format!("{tenant}-step")),
        "payload": {"secret": format!("{tenant}-{content}"), "error": format!("{tenant}-error")},
    });
    record(value.to_string().into_bytes())
}

/// A tenant's runs: one that ends well, one that fails, one with the id that every tenant uses, and a reused key.
fn story(tenant: &str) -> Vec<Record> {
    let mut records = Vec::new();
    let runs = [
        format!("{tenant}-run-1"),
        format!("{tenant}-run-2"),
        SAME_RUN.to_owned(),
    ];
    for (number, run) in runs.iter().enumerate() {
        let (step, end) = if number == 1 {
            ("StepFailed", "RunFailed")
        } else {
            ("StepCompleted", "RunCompleted")
        };
        for (place, event_type) in ["RunQueued", "RunStarted", "StepStarted", step, end]
            .into_iter()
            .enumerate()
        {
            let id = if number == 0 && place == 0 {
                reused_id(tenant)
            } else {
                Uuid::new_v4()
            };
            records.push(event(tenant, run, event_type, 1, id, "payload"));
        }
        // Not valid any more, and a conflict with the first of the run.
        records.push(event(
            tenant,
            run,
            "RunStarted",
            2,
            Uuid::new_v4(),
            "payload",
        ));
        records.push(event(
            tenant,
            run,
            "RunQueued",
            1,
            Uuid::new_v4(),
            "conflict",
        ));
    }
    records
}

/// Sends everything; how many records.
async fn send(shared: &Topic, topics: &BTreeMap<&'static str, Topic>) -> Result<usize> {
    let mut sent = 0;
    for (tenant, topic) in topics {
        let mut records = story(tenant);
        // Of a tenant that this topic may not speak for: a dead letter of nobody's.
        records.push(event(
            THIRD,
            NOBODYS,
            "RunQueued",
            9,
            Uuid::new_v4(),
            NOBODYS,
        ));
        sent += topic.send(&records).await?.len();
    }
    let mut records = story(THIRD);
    records.push(record(format!("{NOBODYS} is not JSON").into_bytes()));
    for (thief, holder) in [(OWN, FOREIGN), (FOREIGN, OWN), (THIRD, FOREIGN)] {
        records.push(event(
            thief,
            &format!("{thief}-run-3"),
            "RunQueued",
            1,
            Uuid::new_v4(),
            "payload",
        ));
        records.push(event(
            thief,
            &format!("{thief}-run-3"),
            "RunStarted",
            7,
            reused_id(holder),
            "reused",
        ));
    }
    Ok(sent + shared.send(&records).await?.len())
}

async fn run(
    pipeline: &Pipeline,
    topics: &BTreeMap<&'static str, Topic>,
    sent: usize,
) -> Result<()> {
    let mut command = pipeline.program("runlog-ingest");
    command.env(
        "RUNLOG_INGEST__TOPICS",
        format!(
            r#"[{{name="{}"}}, {{name="{}", tenants=["{OWN}"]}}, {{name="{}", tenants=["{FOREIGN}"]}}]"#,
            pipeline.topic.name, topics[OWN].name, topics[FOREIGN].name
        ),
    );
    let environment: &Environment = &pipeline.environment;
    let ingest = runlog_tests::Process::spawn(environment, "runlog-ingest", command)?;
    let mut operator = PgConnection::connect(&pipeline.database.url_of(Role::Operator)).await?;
    sqlx::raw_sql("SELECT read_model.begin_rebuild(projection) FROM read_model.projection_version")
        .execute(&mut operator)
        .await?;
    operator.close().await?;
    let projectors = pipeline.projectors()?;
    wait_until("all records to be ingested and projected", SOON, async || {
        let (read, missing): (Option<i64>, i64) = sqlx::query_as(
            "SELECT (SELECT sum(next_offset)::bigint FROM event_log.streams), count(*)
             FROM event_log.stream s CROSS JOIN read_model.projection_version v
             WHERE NOT EXISTS (SELECT FROM read_model.projection_checkpoint c WHERE c.stream_id = s.stream_id
               AND c.projection = v.projection AND c.version = v.version AND c.next_offset = s.next_offset)",
        )
        .fetch_one(&pipeline.database.pool)
        .await?;
        ensure!(read == i64::try_from(sent).ok(), "{read:?} of {sent} records are ingested");
        ensure!(missing == 0, "{missing} streams are not projected");
        Ok(())
    })
    .await?;
    for process in [ingest, projectors] {
        let status = process.terminate().await?;
        ensure!(
            status.code().context("ended by a signal")? == 0,
            "a process ended with {status}"
        );
    }
    Ok(())
}
