-- Writes the runs of the batch that had no row when it began, as the fold left them. A row that another
-- worker has made since is an error (23505), after which the batch begins again.
-- Locks: the rows inserted; waits for a concurrent insert of the same run. In key order (which the caller's
-- lists have, and a scan of them keeps), and when all other runs of the batch are locked: who waits here waits
-- for a batch that waits, if at all, for a run further on. So two batches cannot wait for each other.
INSERT INTO run_current (
  tenant_id, run_id, project_id, environment_id, plan_id, plan_version, status, consistency,
  last_event_seq, first_persisted_at, queued_at, started_at, ended_at,
  sort_at, emitted_started_at, emitted_ended_at, interval_since, queue_wait_ms,
  active_us, paused_us, wall_ms, emitted_wall_ms, steps_running, steps_succeeded,
  steps_failed, steps_skipped, retries, error
)
SELECT
  tenant_id, run_id, project_id, environment_id, plan_id, plan_version, status, consistency,
  last_event_seq, first_persisted_at, queued_at, started_at, ended_at,
  sort_at, emitted_started_at, emitted_ended_at, interval_since, queue_wait_ms,
  active_us, paused_us, wall_ms, emitted_wall_ms, steps_running, steps_succeeded,
  steps_failed, steps_skipped, retries, error::jsonb
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
