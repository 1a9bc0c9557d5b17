-- Writes the attempts that the batch began.
-- Locks: the rows inserted. Nobody else inserts them: their runs are locked by lock_runs.sql, or inserted by
-- this transaction.
INSERT INTO step_attempt (
  tenant_id, run_id, step_id, logical_attempt_id, engine_attempt_id, status, started_at,
  completed_at, duration_ms, emitted_started_at, emitted_completed_at, error, last_event_seq
)
SELECT tenant_id, run_id, step_id, logical_attempt_id, engine_attempt_id, status, started_at,
       completed_at, duration_ms, emitted_started_at, emitted_completed_at, error::jsonb,
       last_event_seq
FROM unnest(
  $1::text[], $2::text[], $3::text[], $4::integer[], $5::integer[], $6::text[], $7::timestamptz[],
  $8::timestamptz[], $9::bigint[], $10::timestamptz[], $11::timestamptz[], $12::text[],
  $13::bigint[]
) AS new (
  tenant_id, run_id, step_id, logical_attempt_id, engine_attempt_id, status, started_at,
  completed_at, duration_ms, emitted_started_at, emitted_completed_at, error,
  last_event_seq
)
