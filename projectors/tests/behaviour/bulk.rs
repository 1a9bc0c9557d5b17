//! A log that is written many events at a time: for runs of thousands of events.

use sqlx::types::Json;

use crate::support::{Database, Event, TENANT};

const ROWS: usize = 5_000;

/// Appends events to a run, each through the stream beside it, as [`crate::support::Log`] does one by
/// one: a millisecond lies between two of them.
pub(crate) async fn append(database: &Database, run_id: &str, events: &[(i64, Event)]) {
    let new_run =
        "INSERT INTO event_log.run (tenant_id, run_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    sqlx::query(new_run)
        .bind(TENANT)
        .bind(run_id)
        .execute(&database.pool)
        .await
        .unwrap();
    for rows in events.chunks(ROWS) {
        append_rows(database, run_id, rows).await;
    }
}

async fn append_rows(database: &Database, run_id: &str, rows: &[(i64, Event)]) {
    let streams: Vec<i64> = rows.iter().map(|(stream, _)| *stream).collect();
    let types: Vec<&str> = rows.iter().map(|(_, event)| event.event_type).collect();
    let steps = rows.iter().map(|(_, event)| event.step.clone());
    let (steps, attempts): (Vec<_>, Vec<_>) = steps.map(Option::unzip).unzip();
    let payloads: Vec<_> = rows
        .iter()
        .map(|(_, event)| event.payload.as_ref().map(Json))
        .collect();
    sqlx::query(
        "WITH new AS (
           SELECT n.*, row_number() OVER (PARTITION BY stream_id ORDER BY place) - 1 AS in_stream
           FROM unnest($3::bigint[], $4::text[], $5::text[], $6::integer[], $7::jsonb[])
             WITH ORDINALITY AS n (stream_id, event_type, step_id, attempt, payload, place)
         ), moved AS (
           UPDATE event_log.stream s
           SET next_offset = s.next_offset + c.events, appended = s.appended + c.events
           FROM (SELECT stream_id, count(*) AS events FROM new GROUP BY stream_id) c
           WHERE s.stream_id = c.stream_id
         ), head AS (
           SELECT r.run_no, coalesce(max(e.run_seq), 0) AS run_seq
           FROM event_log.run r LEFT JOIN event_log.event e USING (run_no)
           WHERE r.tenant_id = $1 AND r.run_id = $2 GROUP BY r.run_no
         )
         INSERT INTO event_log.event (
           run_no, run_seq, stream_id, source_offset, emitted_at, persisted_at, event_id,
           engine_attempt_id, logical_attempt_id, idempotency_key, content_digest, chain_digest,
           tenant_id, event_type, project_id, environment_id, plan_id, plan_version, step_id, payload)
         SELECT h.run_no, h.run_seq + n.place, n.stream_id, s.next_offset + n.in_stream,
                t.at - interval '1 hour', t.at, gen_random_uuid(), 7, coalesce(n.attempt, 1), k.key, k.key, k.key,
                $1, n.event_type, 'shop', 'live', 'plan', 'v1', n.step_id, n.payload
         FROM new n
         CROSS JOIN head h
         JOIN event_log.stream s USING (stream_id)
         CROSS JOIN LATERAL (
           SELECT timestamptz '2026-03-01 12:00Z' + (h.run_seq + n.place) * interval '1 millisecond' AS at) t
         CROSS JOIN LATERAL (SELECT sha256((h.run_no || '/' || h.run_seq + n.place)::bytea) AS key) k",
    )
    .bind(TENANT)
    .bind(run_id)
    .bind(streams)
    .bind(types)
    .bind(steps)
    .bind(attempts)
    .bind(payloads)
    .execute(&database.pool)
    .await
    .unwrap();
}
