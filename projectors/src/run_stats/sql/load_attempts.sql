-- These attempts; place = the run's place in the caller's list. An attempt without a row has no status,
-- and is here only where its step has another attempt. That is looked up in a LATERAL with a LIMIT, since
-- the planner makes a hash of the whole table of an EXISTS while it takes the table for a small one.
-- Locks: none (the runs are locked by lock_runs.sql).
SELECT wanted.place, wanted.step_id, wanted.logical_attempt_id, a.status, a.emitted_started_at
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::integer[])
  AS wanted (place, tenant_id, run_id, step_id, logical_attempt_id)
LEFT JOIN run_stats_attempt a
  ON a.tenant_id = wanted.tenant_id AND a.run_id = wanted.run_id AND a.step_id = wanted.step_id
 AND a.logical_attempt_id = wanted.logical_attempt_id
LEFT JOIN LATERAL (
  SELECT one.step_id
  FROM run_stats_attempt one
  WHERE a.status IS NULL AND one.tenant_id = wanted.tenant_id AND one.run_id = wanted.run_id
    AND one.step_id = wanted.step_id
  LIMIT 1
) other ON true
WHERE a.status IS NOT NULL OR other.step_id IS NOT NULL
