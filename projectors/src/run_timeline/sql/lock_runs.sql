-- The runs of the batch as they stand, in key order (which the caller's lists have). The open interval
-- is read from the locked row, not from run_state_interval: a statement that has waited for a lock
-- sees the locked row as it is now, and other tables as they were before.
-- Locks: these rows of run_timeline_run, in that order, until the transaction ends. Whoever changes a
-- run's rows in any table of this projection holds its lock.
SELECT r.tenant_id, r.run_id, r.last_event_seq, r.is_queued, r.interval_no, r.state, r.started_at,
       r.emitted_started_at, r.project_id, r.environment_id, r.plan_id, r.plan_version
FROM unnest($1::text[], $2::text[]) AS wanted (tenant_id, run_id)
JOIN run_timeline_run r ON r.tenant_id = wanted.tenant_id AND r.run_id = wanted.run_id
ORDER BY r.tenant_id, r.run_id
FOR UPDATE OF r
