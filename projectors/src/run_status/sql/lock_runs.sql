-- The runs of the batch as they stand, in key order (which the caller's lists have).
-- Locks: these rows of run_current, in that order, until the transaction ends. Whoever changes a
-- run's rows in any table of this projection holds its lock.
SELECT r.tenant_id, r.run_id, r.project_id, r.environment_id, r.plan_id, r.plan_version, r.status,
       r.consistency, r.last_event_seq, r.first_persisted_at, r.queued_at, r.started_at, r.ended_at,
       r.emitted_started_at, r.emitted_ended_at, r.interval_since, r.active_us, r.paused_us,
       r.steps_running, r.steps_succeeded, r.steps_failed, r.steps_skipped, r.retries,
       r.error::text AS error
FROM unnest($1::text[], $2::text[]) AS wanted (tenant_id, run_id)
JOIN run_current r ON r.tenant_id = wanted.tenant_id AND r.run_id = wanted.run_id
ORDER BY r.tenant_id, r.run_id
FOR UPDATE OF r
