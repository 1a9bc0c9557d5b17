-- All attempts of these steps; place = the run's place in the caller's list.
-- Locks: none (the runs are locked by lock_runs.sql).
SELECT wanted.place, a.step_id, a.logical_attempt_id, a.engine_attempt_id, a.status, a.started_at,
       a.completed_at, a.emitted_started_at, a.emitted_completed_at, a.error::text AS error
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[])
  AS wanted (place, tenant_id, run_id, step_id)
JOIN step_attempt a
  ON a.tenant_id = wanted.tenant_id AND a.run_id = wanted.run_id AND a.step_id = wanted.step_id
