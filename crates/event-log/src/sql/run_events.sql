-- Events of one run in runSeq order. Locks: none.
SELECT e.run_no, e.run_seq, e.stream_id, e.source_offset, e.emitted_at, e.persisted_at, e.event_id,
       e.engine_attempt_id, e.logical_attempt_id, e.idempotency_key, e.tenant_id, r.run_id,
       e.event_type, e.project_id, e.environment_id, e.plan_id, e.plan_version, e.step_id,
       e.payload::text AS payload
FROM event_log.event e
JOIN event_log.run r ON r.run_no = e.run_no
WHERE e.run_no = $1 AND e.run_seq >= $2 AND e.run_seq <= $3
ORDER BY e.run_seq
LIMIT $4
