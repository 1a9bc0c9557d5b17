-- All attempts of these runs; place = the run's place in the caller's list. None of a run whose errors
-- together are longer than $4 bytes.
-- Locks: none (the runs are locked by lock_runs.sql).
SELECT wanted.place, a.step_id, a.logical_attempt_id, a.engine_attempt_id, a.status, a.started_at,
       a.completed_at, a.emitted_started_at, a.emitted_completed_at, a.error
FROM unnest($1::bigint[], $2::text[], $3::text[]) AS wanted (place, tenant_id, run_id)
CROSS JOIN LATERAL (
  SELECT one.*, sum(octet_length(one.error)) OVER () AS error_bytes
  FROM (
    SELECT s.step_id, s.logical_attempt_id, s.engine_attempt_id, s.status, s.started_at, s.completed_at,
           s.emitted_started_at, s.emitted_completed_at, s.error::text AS error
    FROM step_attempt s
    WHERE s.tenant_id = wanted.tenant_id AND s.run_id = wanted.run_id
  ) one
) a
WHERE a.error_bytes IS NULL OR a.error_bytes <= $4
