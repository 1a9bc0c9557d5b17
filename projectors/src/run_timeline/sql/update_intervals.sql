-- Writes the intervals that the batch changed and did not begin. What is not set here never changes.
-- Locks: these rows. Nobody else holds them: their runs are locked by lock_runs.sql.
UPDATE run_state_interval i
SET started_at = new.started_at,
    ended_at = new.ended_at,
    duration_ms = new.duration_ms,
    emitted_started_at = new.emitted_started_at,
    emitted_ended_at = new.emitted_ended_at,
    last_event_seq = new.last_event_seq,
    projected_at = clock_timestamp()
FROM unnest(
  $1::text[], $2::text[], $3::bigint[], $4::text[], $5::timestamptz[], $6::timestamptz[],
  $7::bigint[], $8::timestamptz[], $9::timestamptz[], $10::text[], $11::text[], $12::text[],
  $13::text[], $14::bigint[]
) AS new (
  tenant_id, run_id, interval_no, state, started_at, ended_at, duration_ms, emitted_started_at,
  emitted_ended_at, project_id, environment_id, plan_id, plan_version, last_event_seq
)
WHERE i.tenant_id = new.tenant_id AND i.run_id = new.run_id AND i.interval_no = new.interval_no
