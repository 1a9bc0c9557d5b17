//! A log that is written as ingest writes it, by [`StreamWriter`], with keys, digests and chains; and every projection
//! brought up to it.

use std::sync::Arc;

use event_log::stream::{self, Claimant};
use event_log::{Batch, Outcome, Record, StreamWriter};
use run_events::{EventType, IdempotencyKey, Micros, RunEvent};
use runlog_projectors::projection::{NAMES, by_name};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::support::{Database, Running, settings};

/// A writer on a partition, and the offset that it is at.
pub(crate) struct Partition {
    pub(crate) writer: StreamWriter,
    pub(crate) next: i64,
}

impl Partition {
    /// Claims a partition of the topic `t`. Whoever had claimed it has to claim it again.
    pub(crate) async fn claim(database: &Database, number: i32) -> Self {
        Self::claim_over(&database.pool, number).await
    }

    /// The same over another pool.
    pub(crate) async fn claim_over(pool: &PgPool, number: i32) -> Self {
        let who = Claimant {
            group_id: "test".to_owned(),
            owner: "a test".to_owned(),
        };
        stream::open(pool, &who, "t", number, 0).await.unwrap();
        let claim = stream::claim(pool, &who, "t", number)
            .await
            .unwrap()
            .unwrap();
        Self {
            next: claim.next_offset,
            writer: StreamWriter::new(claim),
        }
    }

    /// The batch that would be appended next.
    pub(crate) fn batch(&self, events: Vec<RunEvent>) -> Batch {
        let start = self.next;
        let record = |(offset, event)| Record {
            offset,
            timestamp_ms: None,
            key: None,
            value: Some(b"value".to_vec()),
            headers: Vec::new(),
            verdict: Ok(event),
        };
        let records: Vec<Record> = (start..).zip(events).map(record).collect();
        Batch {
            start,
            end: start + records.len() as i64,
            skipped: 0,
            records,
        }
    }

    /// Appends events as one batch.
    pub(crate) async fn append(
        &mut self,
        database: &Database,
        events: Vec<RunEvent>,
    ) -> Vec<Outcome> {
        let batch = self.batch(events);
        let appended = self.writer.append(&database.pool, &batch).await.unwrap();
        self.next = batch.end;
        appended.outcomes
    }
}

/// An event of a run of tenant `acme`; its key is made of its type and step, and its attempt is 1.
pub(crate) fn event(run: &str, event_type: &str, step: Option<&str>) -> RunEvent {
    let derived = IdempotencyKey::derive(run, step, 1, event_type, "plan", "v1");
    RunEvent {
        event_id: Uuid::now_v7(),
        event_type: EventType::from_name(event_type.to_owned()),
        tenant_id: "acme".to_owned(),
        project_id: "shop".to_owned(),
        environment_id: "live".to_owned(),
        run_id: run.to_owned(),
        plan_id: "plan".to_owned(),
        plan_version: "v1".to_owned(),
        engine_attempt_id: 1,
        logical_attempt_id: 1,
        idempotency_key: derived,
        emitted_at: Micros(1_767_225_600_000_000),
        step_id: step.map(str::to_owned),
        payload: None,
    }
}

/// The same with a payload.
pub(crate) fn with(mut event: RunEvent, payload: Value) -> RunEvent {
    let Value::Object(payload) = payload else {
        panic!("a payload is an object")
    };
    event.payload = Some(payload);
    event
}

/// A run that fails, seven events long, with two payloads of which one is an error of a step and one of the run.
pub(crate) fn failed_run(run: &str) -> Vec<RunEvent> {
    let mut emitted = 0;
    let mut at = |event_type: &str, step: Option<&str>| {
        emitted += 1_000_000;
        let mut event = event(run, event_type, step);
        event.emitted_at = Micros(event.emitted_at.0 + emitted);
        event
    };
    vec![
        at("RunQueued", None),
        at("RunStarted", None),
        at("StepStarted", Some("a")),
        at("StepCompleted", Some("a")),
        at("StepStarted", Some("b")),
        with(
            at("StepFailed", Some("b")),
            json!({"error": {"secret": run}, "rows": 3}),
        ),
        with(
            at("RunFailed", None),
            json!({"error": format!("secret of {run}")}),
        ),
    ]
}

/// Has every projection project everything there is, in every version that is kept; each knows then that it has read as
/// many events as the ledger says.
pub(crate) async fn project_all(database: &Database) {
    let start =
        |name: &&str| Running::start_with(database, "one", settings(), by_name(name).unwrap());
    let running: Vec<Running> = NAMES.iter().map(start).collect();
    database
        .holds(
            "SELECT NOT EXISTS (
               SELECT FROM event_log.stream s CROSS JOIN read_model.projection_version v
               LEFT JOIN read_model.projection_checkpoint c USING (projection, version, stream_id)
               WHERE v.state <> 'retired' AND c.next_offset IS DISTINCT FROM s.next_offset)",
        )
        .await;
    for (name, running) in NAMES.iter().zip(running) {
        let metrics = running.metrics.clone();
        running.stop().await;
        let mismatches = metrics.ledger_mismatches.with_label_values(&[name]);
        assert_eq!(mismatches.get(), 0, "{name}");
    }
}

/// The number of a run of tenant `acme`.
pub(crate) async fn run_no(database: &Database, run: &str) -> i64 {
    sqlx::query_scalar("SELECT run_no FROM event_log.run WHERE tenant_id = 'acme' AND run_id = $1")
        .bind(run)
        .fetch_one(&database.pool)
        .await
        .unwrap()
}

/// What `runlog verify --chain` finds, as lines, and the digest of all heads.
pub(crate) async fn verify_log(database: &Database) -> (Vec<String>, String) {
    let options = database.pool.connect_options();
    let found = event_log::verify::verify(&options, 2, &Arc::default())
        .await
        .unwrap();
    let of_kind = found.findings.by_kind();
    let lines = of_kind.flat_map(|(_, _, first)| first.iter().map(ToString::to_string));
    (lines.collect(), found.heads.to_string())
}

/// Builds every projection anew and asserts that the new version holds the rows of the live one, then switches to it.
pub(crate) async fn rebuild_all(database: &Database) {
    for name in NAMES {
        let version: i32 = sqlx::query_scalar("SELECT read_model.begin_rebuild($1)")
            .bind(name)
            .fetch_one(&database.pool)
            .await
            .unwrap();
        project_all(database).await;
        let (live, new) = (
            format!("{name}_{}", version - 1),
            format!("{name}_{version}"),
        );
        let rows = crate::tables::rows(database, &new).await;
        assert_eq!(crate::tables::rows(database, &live).await, rows, "{name}");
        sqlx::query("SELECT read_model.publish($1, $2)")
            .bind(name)
            .bind(version)
            .execute(&database.pool)
            .await
            .unwrap();
    }
}
