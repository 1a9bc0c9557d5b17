-- One alert per event that asked for an invalid transition; one that is there stays as it is.
-- Locks: the rows inserted. Nobody else inserts them: their runs are locked by lock_runs.sql.
INSERT INTO run_inconsistency (
  tenant_id, run_id, event_id, event_type, run_seq, persisted_at, step_id, logical_attempt_id,
  prior_state, attempted_state, code, project_id, environment_id
)
SELECT *
FROM unnest(
  $1::text[], $2::text[], $3::uuid[], $4::text[], $5::bigint[], $6::timestamptz[], $7::text[],
  $8::integer[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[]
)
ON CONFLICT (tenant_id, run_id, event_id) DO NOTHING
