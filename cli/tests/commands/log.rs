//! Puts records into a test's log, through the same door as ingest.

use event_log::stream::{Claimant, claim, open};
use event_log::{Batch, Header, Outcome, Record, StreamWriter};
use run_events::json::decode;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::Place;

/// A complete event of a tenant's run.
pub(crate) fn event(tenant_id: &str, run_id: &str, event_type: &str) -> Value {
    let key = run_events::IdempotencyKey::derive(run_id, None, 1, event_type, "plan", "1");
    json!({
        "eventId": uuid::Uuid::now_v7(), "eventType": event_type, "tenantId": tenant_id,
        "projectId": "shop", "environmentId": "prod", "runId": run_id, "planId": "plan",
        "planVersion": "1", "engineAttemptId": 1, "logicalAttemptId": 1,
        "idempotencyKey": key.to_string(), "emittedAt": "2026-01-02T03:04:05Z",
        "payload": {"type": event_type}
    })
}

/// Appends values as records of partition 0, from offset 0 on.
pub(crate) async fn append(place: &Place, values: &[Vec<u8>]) -> Vec<Outcome> {
    append_within(place, values, usize::MAX).await
}

/// The same, and dead letters are kept whole up to this quota.
pub(crate) async fn append_within(place: &Place, values: &[Vec<u8>], quota: usize) -> Vec<Outcome> {
    let pool = PgPool::connect_with(place.database.clone()).await.unwrap();
    let who = Claimant {
        group_id: "cli-tests".to_owned(),
        owner: "cli-tests".to_owned(),
    };
    open(&pool, &who, &place.topic, 0, 0).await.unwrap();
    let claim = claim(&pool, &who, &place.topic, 0).await.unwrap().unwrap();
    let records = values.iter().zip(0..).map(|(value, offset)| Record {
        offset,
        timestamp_ms: None,
        key: Some(b"the-key".to_vec()),
        value: Some(value.clone()),
        headers: vec![
            Header {
                name: b"traceparent".to_vec(),
                value: Some(b"00-1-2-01".to_vec()),
            },
            Header {
                name: vec![0xff, b'x'],
                value: None,
            },
        ],
        verdict: decode(value).map(|decoded| decoded.event),
    });
    let batch = Batch {
        start: 0,
        end: values.len() as i64,
        skipped: 0,
        records: records.collect(),
    };
    let mut writer = StreamWriter::new(claim).with_dead_letter_quota(quota);
    writer.append(&pool, &batch).await.unwrap().outcomes
}

/// The values of events.
pub(crate) fn bytes(events: &[Value]) -> Vec<Vec<u8>> {
    events
        .iter()
        .map(|event| event.to_string().into_bytes())
        .collect()
}

/// A row of the read model for a run with one event, as a projector would write it.
pub(crate) async fn project(place: &Place, tenant_id: &str, run_id: &str, status: &str) {
    sqlx::query(
        "INSERT INTO read_model.run_current (tenant_id, run_id, project_id, environment_id, plan_id,
           plan_version, status, consistency, last_event_seq, sort_at, first_persisted_at, started_at)
         VALUES ($1, $2, 'shop', 'prod', 'plan', '1', $3, 'CONSISTENT', 1, now(), now(), now())",
    )
    .bind(tenant_id)
    .bind(run_id)
    .bind(status)
    .execute(&mut place.connection().await)
    .await
    .unwrap();
}
