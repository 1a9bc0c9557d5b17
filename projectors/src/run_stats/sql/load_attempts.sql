-- These attempts; place = the run's place in the caller's list. An attempt without a row has no status,
-- and is here only where its step has another attempt.
-- Locks: none (the runs are locked by lock_runs.sql).
SELECT wanted.place, wanted.step_id, wanted.logical_attempt_id, a.status, a.emitted_started_at
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::integer[])
  AS wanted (place, tenant_id, run_id, step_id, logical_attempt_id)
LEFT JOIN run_stats_attempt a
  ON a.tenant_id = wanted.tenant_id AND a.run_id = wanted.run_id AND a.step_id = wanted.step_id
 AND a.logical_attempt_id = wanted.logical_attempt_id
WHERE a.status IS NOT NULL OR EXISTS (
  SELECT FROM run_stats_attempt other
  WHERE other.tenant_id = wanted.tenant_id AND other.run_id = wanted.run_id
    AND other.step_id = wanted.step_id
)
