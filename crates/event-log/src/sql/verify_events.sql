-- The next events by run and runSeq behind ($1, $2), of runs up to $3, each with its run's name. Both
-- ends of the range are said of both tables, so that no plan begins at the log's first run.
-- Locks: none. One statement, so an event is never seen without its run, nor with a hole before it.
SELECT e.run_no, e.run_seq, e.stream_id, e.source_offset, e.event_id, e.idempotency_key, e.emitted_at,
       e.engine_attempt_id, e.content_digest, e.chain_digest, e.tenant_id, e.event_type, e.step_id,
       e.logical_attempt_id, e.plan_id, e.plan_version, e.project_id, e.environment_id,
       e.payload::text AS payload, r.tenant_id AS run_tenant_id, r.run_id,
       e.payload IS NULL AND EXISTS (
         SELECT FROM event_log.erased_run x WHERE x.run_no = e.run_no AND x.up_to_seq >= e.run_seq
       ) AS is_erased
FROM event_log.event e
LEFT JOIN event_log.run r ON r.run_no = e.run_no AND r.run_no >= $1 AND r.run_no <= $3
WHERE (e.run_no, e.run_seq) > ($1, $2) AND e.run_no <= $3
ORDER BY e.run_no, e.run_seq
LIMIT $4
