-- Writes the runs of the batch as the fold left them.
-- Locks: none beyond lock_runs.sql's, which this transaction holds.
UPDATE run_timeline_run r
SET last_event_seq = new.last_event_seq,
    is_queued = new.is_queued,
    interval_no = new.interval_no,
    state = new.state,
    started_at = new.started_at,
    emitted_started_at = new.emitted_started_at,
    project_id = new.project_id,
    environment_id = new.environment_id,
    plan_id = new.plan_id,
    plan_version = new.plan_version,
    projected_at = clock_timestamp()
FROM unnest(
  $1::text[], $2::text[], $3::bigint[], $4::boolean[], $5::bigint[], $6::text[], $7::timestamptz[],
  $8::timestamptz[], $9::text[], $10::text[], $11::text[], $12::text[]
) AS new (
  tenant_id, run_id, last_event_seq, is_queued, interval_no, state, started_at, emitted_started_at,
  project_id, environment_id, plan_id, plan_version
)
WHERE r.tenant_id = new.tenant_id AND r.run_id = new.run_id
