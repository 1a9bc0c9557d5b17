-- Writes the attempts that the batch changed and did not begin.
-- Locks: these rows. Nobody else holds them: their runs are locked by lock_runs.sql.
UPDATE step_attempt a
SET engine_attempt_id = new.engine_attempt_id,
    status = new.status,
    started_at = new.started_at,
    completed_at = new.completed_at,
    duration_ms = new.duration_ms,
    emitted_started_at = new.emitted_started_at,
    emitted_completed_at = new.emitted_completed_at,
    error = new.error::jsonb,
    last_event_seq = new.last_event_seq,
    projected_at = clock_timestamp()
FROM unnest(
  $1::text[], $2::text[], $3::text[], $4::integer[], $5::integer[], $6::text[], $7::timestamptz[],
  $8::timestamptz[], $9::bigint[], $10::timestamptz[], $11::timestamptz[], $12::text[],
  $13::bigint[]
) AS new (
  tenant_id, run_id, step_id, logical_attempt_id, engine_attempt_id, status, started_at,
  completed_at, duration_ms, emitted_started_at, emitted_completed_at, error,
  last_event_seq
)
WHERE a.tenant_id = new.tenant_id AND a.run_id = new.run_id AND a.step_id = new.step_id
  AND a.logical_attempt_id = new.logical_attempt_id
