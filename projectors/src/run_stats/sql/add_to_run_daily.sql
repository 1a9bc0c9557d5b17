-- Adds what the batch counted to the rows of its days.
-- Locks: these rows, until the transaction ends; batches of other streams that count in the same rows
-- wait here. In key order (which the caller's lists have), after all runs and
-- run_hourly and before step_daily, so that two batches cannot wait for each other.
INSERT INTO run_daily AS r (
  tenant_id, day, project_id, environment_id, plan_id, queued, started, completed, failed,
  cancelled, duration_ms_sum, durations, last_event_seq
)
SELECT tenant_id, day, project_id, environment_id, plan_id, queued, started, completed, failed,
       cancelled, duration_ms_sum::numeric, durations::bigint[], last_event_seq
FROM unnest(
  $1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bigint[],
  $8::bigint[], $9::bigint[], $10::bigint[], $11::text[], $12::text[], $13::bigint[]
) WITH ORDINALITY AS new (
  tenant_id, day, project_id, environment_id, plan_id, queued, started, completed, failed,
  cancelled, duration_ms_sum, durations, last_event_seq, place
)
ORDER BY place
ON CONFLICT (tenant_id, day, project_id, environment_id, plan_id) DO UPDATE
SET queued = r.queued + excluded.queued,
    started = r.started + excluded.started,
    completed = r.completed + excluded.completed,
    failed = r.failed + excluded.failed,
    cancelled = r.cancelled + excluded.cancelled,
    duration_ms_sum = r.duration_ms_sum + excluded.duration_ms_sum,
    durations = read_model.merge(r.durations, excluded.durations),
    last_event_seq = greatest(r.last_event_seq, excluded.last_event_seq),
    projected_at = clock_timestamp()
