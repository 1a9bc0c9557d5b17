-- The runs of the batch as they stand, in key order (which the caller's lists have).
-- Locks: these rows of run_stats_run, in that order, until the transaction ends. Whoever counts a
-- run's events holds its lock.
SELECT r.tenant_id, r.run_id, r.project_id, r.environment_id, r.plan_id, r.status, r.is_queued,
       r.emitted_started_at, r.last_event_seq
FROM unnest($1::text[], $2::text[]) AS wanted (tenant_id, run_id)
JOIN run_stats_run r ON r.tenant_id = wanted.tenant_id AND r.run_id = wanted.run_id
ORDER BY r.tenant_id, r.run_id
FOR UPDATE OF r
