-- Events of one run with their digests, in runSeq order. Locks: none.
SELECT run_seq, event_id, idempotency_key, emitted_at, engine_attempt_id, content_digest, chain_digest,
       event_type, step_id, logical_attempt_id, plan_id, plan_version, project_id, environment_id,
       payload::text AS payload
FROM event_log.event
WHERE run_no = $1 AND run_seq >= $2 AND run_seq <= $3
ORDER BY run_seq
LIMIT $4
