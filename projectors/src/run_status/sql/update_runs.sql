-- Writes the runs of the batch as the fold left them.
-- Locks: none beyond lock_runs.sql's, which this transaction holds.
UPDATE run_current r
SET project_id = new.project_id,
    environment_id = new.environment_id,
    plan_id = new.plan_id,
    plan_version = new.plan_version,
    status = new.status,
    consistency = new.consistency,
    last_event_seq = new.last_event_seq,
    first_persisted_at = new.first_persisted_at,
    queued_at = new.queued_at,
    started_at = new.started_at,
    ended_at = new.ended_at,
    sort_at = new.sort_at,
    emitted_started_at = new.emitted_started_at,
    emitted_ended_at = new.emitted_ended_at,
    interval_since = new.interval_since,
    queue_wait_ms = new.queue_wait_ms,
    active_us = new.active_us,
    paused_us = new.paused_us,
    wall_ms = new.wall_ms,
    emitted_wall_ms = new.emitted_wall_ms,
    steps_running = new.steps_running,
    steps_succeeded = new.steps_succeeded,
    steps_failed = new.steps_failed,
    steps_skipped = new.steps_skipped,
    retries = new.retries,
    error = new.error::jsonb,
    projected_at = clock_timestamp()
FROM unnest(
  $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
  $9::bigint[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::timestamptz[],
  $14::timestamptz[], $15::timestamptz[], $16::timestamptz[], $17::timestamptz[], $18::bigint[],
  $19::bigint[], $20::bigint[], $21::bigint[], $22::bigint[], $23::bigint[], $24::bigint[],
  $25::bigint[], $26::bigint[], $27::bigint[], $28::text[]
) AS new (
  tenant_id, run_id, project_id, environment_id, plan_id, plan_version, status, consistency,
  last_event_seq, first_persisted_at, queued_at, started_at, ended_at,
  sort_at, emitted_started_at, emitted_ended_at, interval_since, queue_wait_ms,
  active_us, paused_us, wall_ms, emitted_wall_ms, steps_running, steps_succeeded,
  steps_failed, steps_skipped, retries, error
)
WHERE r.tenant_id = new.tenant_id AND r.run_id = new.run_id
