-- Writes the attempts that the batch changed.
-- Locks: these rows. Nobody else holds them: their runs are locked by lock_runs.sql.
INSERT INTO run_stats_attempt (
  tenant_id, run_id, step_id, logical_attempt_id, status, emitted_started_at, last_event_seq
)
SELECT *
FROM unnest(
  $1::text[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::timestamptz[], $7::bigint[]
)
ON CONFLICT (tenant_id, run_id, step_id, logical_attempt_id) DO UPDATE
SET status = excluded.status,
    emitted_started_at = excluded.emitted_started_at,
    last_event_seq = excluded.last_event_seq,
    projected_at = clock_timestamp()
