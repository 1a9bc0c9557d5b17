-- Writes the runs of the batch as its events left them.
-- Locks: none beyond lock_runs.sql's, which this transaction holds.
UPDATE run_stats_run r
SET project_id = new.project_id,
    environment_id = new.environment_id,
    plan_id = new.plan_id,
    status = new.status,
    is_queued = new.is_queued,
    emitted_started_at = new.emitted_started_at,
    last_event_seq = new.last_event_seq,
    projected_at = clock_timestamp()
FROM unnest(
  $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::boolean[],
  $8::timestamptz[], $9::bigint[]
) AS new (
  tenant_id, run_id, project_id, environment_id, plan_id, status, is_queued, emitted_started_at,
  last_event_seq
)
WHERE r.tenant_id = new.tenant_id AND r.run_id = new.run_id
