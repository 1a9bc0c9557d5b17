-- Writes the intervals that the batch began.
-- Locks: the rows inserted. Nobody else inserts them: their runs are locked by lock_runs.sql, or inserted by
-- this transaction.
INSERT INTO run_state_interval (
  tenant_id, run_id, interval_no, state, started_at, ended_at, duration_ms, emitted_started_at,
  emitted_ended_at, project_id, environment_id, plan_id, plan_version, last_event_seq
)
SELECT *
FROM unnest(
  $1::text[], $2::text[], $3::bigint[], $4::text[], $5::timestamptz[], $6::timestamptz[],
  $7::bigint[], $8::timestamptz[], $9::timestamptz[], $10::text[], $11::text[], $12::text[],
  $13::text[], $14::bigint[]
)
