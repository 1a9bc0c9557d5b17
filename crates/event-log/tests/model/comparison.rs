//! Compares every row of a case with the reference: events with their digests, dead letters with
//! their bytes, the ledger, and what readers are given.

use std::collections::BTreeMap;

use base64::Engine as _;
use chrono::{DateTime, Utc};
use event_log::read::{
    PageSize, Payloads, StreamEvent, StreamHead, run_events, run_no, stream_events, stream_heads,
};
use run_events::RunEvent;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::{FromRow, PgConnection, Row};
use uuid::Uuid;

use crate::reference::{Ledger, Logged, Reference, StreamName, same_json};
use crate::world::World;

pub async fn compare(world: &World<'_>) {
    events(world).await;
    dead_letters(world).await;
    ledger(world).await;
    readers(world).await;
}

#[derive(FromRow)]
struct EventRow {
    tenant_id: String,
    run_id: String,
    run_seq: i64,
    event_id: Uuid,
    event_type: String,
    idempotency_key: String,
    project_id: String,
    environment_id: String,
    plan_id: String,
    plan_version: String,
    engine_attempt_id: i32,
    logical_attempt_id: i32,
    step_id: Option<String>,
    emitted_at: DateTime<Utc>,
    persisted_at: DateTime<Utc>,
    payload: Option<Value>,
    partition: i32,
    source_offset: i64,
}

async fn events(world: &World<'_>) {
    let pool = &world.ground.database.pool;
    let rows: Vec<EventRow> = sqlx::query_as(
        "SELECT * FROM event_log.run_events WHERE topic = $1 ORDER BY tenant_id, run_id, run_seq",
    )
    .bind(&world.topic)
    .fetch_all(pool)
    .await
    .unwrap();
    let digests: Vec<(Vec<u8>, Vec<u8>, String, i32)> = sqlx::query_as(
        "SELECT e.content_digest, e.chain_digest, e.tenant_id, s.generation
         FROM event_log.event e JOIN event_log.stream s USING (stream_id) JOIN event_log.run r USING (run_no)
         WHERE s.topic = $1 ORDER BY r.tenant_id, r.run_id, e.run_seq",
    )
    .bind(&world.topic)
    .fetch_all(pool)
    .await
    .unwrap();
    let mut found = rows.into_iter().zip(digests);
    for ((tenant, run), logged) in &world.reference.runs {
        let mut chain = [0; 32];
        for (seq, logged) in (1..).zip(logged) {
            let Some((row, (content_digest, chain_digest, tenant_id, generation))) = found.next()
            else {
                panic!("{tenant} {run} lacks the event {seq}");
            };
            assert_eq!(
                (&row.tenant_id, &row.run_id, row.run_seq),
                (tenant, run, seq)
            );
            assert_eq!((&tenant_id, generation), (tenant, logged.stream.1));
            compare_event(&row, logged);
            let content = Sha256::digest(content_form(&logged.event));
            assert_eq!(
                content_digest,
                content.as_slice(),
                "content of {tenant} {run} {seq}"
            );
            chain = link(chain, seq, &logged.event, &content);
            assert_eq!(chain_digest, chain, "chain of {tenant} {run} {seq}");
        }
    }
    if let Some((row, _)) = found.next() {
        panic!(
            "the log holds {} {} {} too much",
            row.tenant_id, row.run_id, row.run_seq
        );
    }
}

fn compare_event(row: &EventRow, logged: &Logged) {
    let event = &logged.event;
    assert_eq!(row.event_id, event.event_id);
    assert_eq!(row.event_type, event.event_type.as_str());
    assert_eq!(row.idempotency_key, hex::encode(event.idempotency_key.0));
    assert_eq!(row.project_id, event.project_id);
    assert_eq!(row.environment_id, event.environment_id);
    assert_eq!(row.plan_id, event.plan_id);
    assert_eq!(row.plan_version, event.plan_version);
    assert_eq!(row.engine_attempt_id, event.engine_attempt_id);
    assert_eq!(row.logical_attempt_id, event.logical_attempt_id);
    assert_eq!(row.step_id, event.step_id);
    assert_eq!(row.emitted_at.timestamp_micros(), event.emitted_at.0);
    assert_eq!(row.persisted_at, logged.persisted_at);
    assert_eq!(
        (row.partition, row.source_offset),
        (logged.stream.0, logged.offset)
    );
    match (&row.payload, event.payload.clone().map(Value::Object)) {
        (None, None) => {}
        (Some(row), Some(sent)) => assert!(same_json(row, &sent), "{row} is not {sent}"),
        (row, sent) => panic!("{row:?} is not {sent:?}"),
    }
}

/// The RFC 8785 form of an event's content. The payloads of the model hold only numbers whose
/// shortest form has no exponent, and no two keys that UTF-8 and UTF-16 order differently.
fn content_form(event: &RunEvent) -> String {
    let mut members = BTreeMap::new();
    let text = |text: &str| Value::from(text);
    members.insert("eventType", text(event.event_type.as_str()));
    members.insert("stepId", Value::from(event.step_id.clone()));
    members.insert("logicalAttemptId", Value::from(event.logical_attempt_id));
    members.insert("planId", text(&event.plan_id));
    members.insert("planVersion", text(&event.plan_version));
    members.insert("projectId", text(&event.project_id));
    members.insert("environmentId", text(&event.environment_id));
    members.insert(
        "payload",
        event.payload.clone().map_or(Value::Null, Value::Object),
    );
    canonical(
        &members
            .into_iter()
            .map(|(k, v)| (k.to_owned(), v))
            .collect(),
    )
}

fn canonical(value: &Value) -> String {
    match value {
        Value::Number(number) => number.as_f64().unwrap().to_string(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(canonical).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(map) => {
            let sorted: BTreeMap<_, _> = map.iter().collect();
            let members = sorted
                .into_iter()
                .map(|(key, value)| format!("{}:{}", Value::from(key.as_str()), canonical(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

fn link(previous: [u8; 32], seq: i64, event: &RunEvent, content: &[u8]) -> [u8; 32] {
    let mut bytes = previous.to_vec();
    bytes.extend(seq.to_be_bytes());
    bytes.extend(event.event_id.as_bytes());
    bytes.extend(event.idempotency_key.0);
    bytes.extend(event.emitted_at.0.to_be_bytes());
    bytes.extend(event.engine_attempt_id.to_be_bytes());
    bytes.extend(content);
    Sha256::digest(bytes).into()
}

async fn dead_letters(world: &World<'_>) {
    let rows = sqlx::query(
        "SELECT d.*, s.generation FROM event_log.dead_letter d
         JOIN event_log.stream s USING (stream_id) WHERE s.topic = $1
         ORDER BY s.partition, s.generation, d.source_offset",
    )
    .bind(&world.topic)
    .fetch_all(&world.ground.database.pool)
    .await
    .unwrap();
    let view: i64 =
        sqlx::query_scalar("SELECT count(*) FROM event_log.dead_letters WHERE topic = $1")
            .bind(&world.topic)
            .fetch_one(&world.ground.database.pool)
            .await
            .unwrap();
    let mut expected = world.reference.dead_letters.clone();
    expected.sort_by_key(|refused| (refused.stream, refused.record.offset));
    assert_eq!(
        (rows.len(), view),
        (expected.len(), expected.len() as i64),
        "dead letters"
    );
    for (row, refused) in rows.iter().zip(&expected) {
        let record = &refused.record;
        let owner = match &record.verdict {
            Ok(event) => (Some(event.tenant_id.clone()), Some(event.run_id.clone())),
            Err(rejection) => (rejection.tenant_id.clone(), rejection.run_id.clone()),
        };
        assert_eq!(row.get::<i64, _>("source_offset"), record.offset);
        assert_eq!(row.get::<i32, _>("generation"), refused.stream.1);
        assert_eq!(row.get::<String, _>("reason"), refused.reason.as_str());
        assert_eq!((row.get("tenant_id"), row.get("run_id")), owner);
        assert_eq!(row.get::<Option<Vec<u8>>, _>("key"), record.key);
        assert_eq!(row.get::<Option<Vec<u8>>, _>("value"), record.value);
        assert_eq!(
            row.get::<DateTime<Utc>, _>("received_at"),
            refused.received_at
        );
        assert_eq!(row.get::<String, _>("status"), "pending");
        assert_eq!(row.get::<Value, _>("headers"), headers(record));
        let detail: String = row.get("detail");
        match &record.verdict {
            Err(rejection) => assert_eq!(detail, rejection.detail),
            Ok(event) => {
                let others = ["tenant-0", "tenant-1"].map(|t| format!("{t}-"));
                assert!(!detail.is_empty());
                assert!(
                    others.iter().all(|t| !detail.contains(t)),
                    "{event:?}: {detail}"
                );
            }
        }
    }
}

fn headers(record: &event_log::Record) -> Value {
    let base64 = |bytes: &Vec<u8>| base64::engine::general_purpose::STANDARD.encode(bytes);
    let header = |h: &event_log::Header| serde_json::json!({ "name": base64(&h.name), "value": h.value.as_ref().map(base64) });
    record.headers.iter().map(header).collect()
}

async fn ledger(world: &World<'_>) {
    let rows = sqlx::query("SELECT * FROM event_log.streams WHERE topic = $1")
        .bind(&world.topic)
        .fetch_all(&world.ground.database.pool)
        .await
        .unwrap();
    let found: BTreeMap<StreamName, Ledger> = rows
        .iter()
        .map(|row| {
            let ledger = Ledger {
                start_offset: row.get("start_offset"),
                next_offset: row.get("next_offset"),
                appended: row.get("appended"),
                duplicates: row.get("duplicates"),
                dead_lettered: row.get("dead_lettered"),
                skipped: row.get("skipped"),
                closed: row.get::<Option<DateTime<Utc>>, _>("closed_at").is_some(),
            };
            ((row.get("partition"), row.get("generation")), ledger)
        })
        .collect();
    assert_eq!(found, world.reference.ledger);
}

/// What projectors and the command line are given: streams below their horizon, and runs.
async fn readers(world: &World<'_>) {
    let mut connection = world.ground.database.pool.acquire().await.unwrap();
    let mut run_numbers = BTreeMap::new();
    for head in stream_heads(&mut connection).await.unwrap() {
        if head.topic != world.topic {
            continue;
        }
        let read = pages(&mut connection, &head).await;
        let expected = in_offset_order(&world.reference, (head.partition, head.generation));
        let found: Vec<_> = read
            .iter()
            .map(|e| (e.source_offset, e.logged.run_seq, e.logged.event.event_id))
            .collect();
        assert_eq!(found, expected, "{}/{}", head.partition, head.generation);
        for e in &read {
            let name = (
                e.logged.event.tenant_id.clone(),
                e.logged.event.run_id.clone(),
            );
            run_numbers.insert(name, e.run_no);
        }
    }
    for ((tenant, run), logged) in &world.reference.runs {
        let number = run_no(&mut connection, tenant, run).await.unwrap();
        assert_eq!(
            number,
            run_numbers.get(&(tenant.clone(), run.clone())).copied()
        );
        let read = run_events(&mut connection, number.unwrap(), 1, i64::MAX, i64::MAX);
        let ids: Vec<_> = read
            .await
            .unwrap()
            .iter()
            .map(|e| e.logged.event.event_id)
            .collect();
        let expected: Vec<_> = logged.iter().map(|l| l.event.event_id).collect();
        assert_eq!(ids, expected);
    }
}

/// A whole stream, in pages that are bounded by events and by bytes.
async fn pages(connection: &mut PgConnection, head: &StreamHead) -> Vec<StreamEvent> {
    let size = PageSize {
        events: 7,
        bytes: 4_000,
    };
    let mut read: Vec<StreamEvent> = Vec::new();
    loop {
        let from = read
            .last()
            .map_or(head.start_offset, |e| e.source_offset + 1);
        let page = stream_events(
            connection,
            head.stream_id,
            from,
            head.next_offset,
            size,
            Payloads::All,
        );
        match page.await.unwrap() {
            page if page.is_empty() => return read,
            page => read.extend(page),
        }
    }
}

fn in_offset_order(reference: &Reference, stream: StreamName) -> Vec<(i64, i64, Uuid)> {
    let mut events: Vec<_> = reference
        .runs
        .values()
        .flat_map(|run| (1..).zip(run))
        .filter(|(_, logged)| logged.stream == stream)
        .map(|(seq, logged)| (logged.offset, seq, logged.event.event_id))
        .collect();
    events.sort();
    events
}
