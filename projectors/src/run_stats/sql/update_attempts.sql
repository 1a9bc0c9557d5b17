-- Writes the attempts that the batch changed and did not begin.
-- Locks: these rows. Nobody else holds them: their runs are locked by lock_runs.sql.
UPDATE run_stats_attempt a
SET status = new.status,
    emitted_started_at = new.emitted_started_at,
    last_event_seq = new.last_event_seq,
    projected_at = clock_timestamp()
FROM unnest(
  $1::text[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::timestamptz[], $7::bigint[]
) AS new (
  tenant_id, run_id, step_id, logical_attempt_id, status, emitted_started_at, last_event_seq
)
WHERE a.tenant_id = new.tenant_id AND a.run_id = new.run_id AND a.step_id = new.step_id
  AND a.logical_attempt_id = new.logical_attempt_id
