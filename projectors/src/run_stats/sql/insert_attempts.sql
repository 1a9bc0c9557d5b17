-- Writes the attempts that the batch began.
-- Locks: the rows inserted. Nobody else inserts them: their runs are locked by lock_runs.sql, or inserted by
-- this transaction.
INSERT INTO run_stats_attempt (
  tenant_id, run_id, step_id, logical_attempt_id, status, emitted_started_at, last_event_seq
)
SELECT *
FROM unnest(
  $1::text[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::timestamptz[], $7::bigint[]
)
