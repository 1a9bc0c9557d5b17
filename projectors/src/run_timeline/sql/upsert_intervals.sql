-- Writes the intervals that began, ended or were moved. What is not set here never changes.
-- Locks: these rows. Nobody else holds them: their runs are locked by lock_runs.sql.
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
ON CONFLICT (tenant_id, run_id, interval_no) DO UPDATE
SET started_at = excluded.started_at,
    ended_at = excluded.ended_at,
    duration_ms = excluded.duration_ms,
    emitted_started_at = excluded.emitted_started_at,
    emitted_ended_at = excluded.emitted_ended_at,
    last_event_seq = excluded.last_event_seq,
    projected_at = clock_timestamp()
