-- Adds what the batch counted to the rows of its days and steps.
-- Locks: these rows, until the transaction ends; batches of other streams that count in the same rows
-- wait here. In key order (which the caller's lists have) and last, so that two batches cannot wait
-- for each other.
INSERT INTO step_daily AS s (
  tenant_id, day, plan_id, step_id, started, succeeded, failed, skipped, retries, duration_ms_sum,
  durations, last_event_seq
)
SELECT tenant_id, day, plan_id, step_id, started, succeeded, failed, skipped, retries,
       duration_ms_sum::numeric, durations::bigint[], last_event_seq
FROM unnest(
  $1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[],
  $8::bigint[], $9::bigint[], $10::text[], $11::text[], $12::bigint[]
) WITH ORDINALITY AS new (
  tenant_id, day, plan_id, step_id, started, succeeded, failed, skipped, retries, duration_ms_sum,
  durations, last_event_seq, place
)
ORDER BY place
ON CONFLICT (tenant_id, day, plan_id, step_id) DO UPDATE
SET started = s.started + excluded.started,
    succeeded = s.succeeded + excluded.succeeded,
    failed = s.failed + excluded.failed,
    skipped = s.skipped + excluded.skipped,
    retries = s.retries + excluded.retries,
    duration_ms_sum = s.duration_ms_sum + excluded.duration_ms_sum,
    durations = read_model.merge(s.durations, excluded.durations),
    last_event_seq = greatest(s.last_event_seq, excluded.last_event_seq),
    projected_at = clock_timestamp()
