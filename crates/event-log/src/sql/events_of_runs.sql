-- Events of several runs, each up to a runSeq, by run and runSeq, behind a place in that order.
-- Locks: none.
SELECT e.run_no, e.run_seq, e.stream_id, e.source_offset, e.emitted_at, e.persisted_at, e.event_id,
       e.engine_attempt_id, e.logical_attempt_id, e.idempotency_key, e.tenant_id, r.run_id,
       e.event_type, e.project_id, e.environment_id, e.plan_id, e.plan_version, e.step_id,
       e.payload::text AS payload
FROM unnest($1::bigint[], $2::bigint[]) AS wanted (run_no, last_seq)
JOIN event_log.event e ON e.run_no = wanted.run_no AND e.run_seq <= wanted.last_seq
JOIN event_log.run r ON r.run_no = e.run_no
WHERE (e.run_no, e.run_seq) > ($3, $4)
ORDER BY e.run_no, e.run_seq
LIMIT $5
