-- Events with an idempotency key: of one run by its primary keys, or of all runs (index scan).
-- $1 tenant or null, $2 run or null, $3 key. No locks.
SELECT r.tenant_id, r.run_id, e.run_seq, e.event_id, e.event_type,
       encode(e.idempotency_key, 'hex') AS idempotency_key,
       e.persisted_at, s.topic, s.partition, e.source_offset
FROM event_log.event e
JOIN event_log.run r USING (run_no)
JOIN event_log.stream s USING (stream_id)
WHERE e.idempotency_key = $3
  AND ($1::text IS NULL OR r.tenant_id = $1)
  AND ($2::text IS NULL OR r.run_id = $2)
ORDER BY r.tenant_id, r.run_id
LIMIT 100
