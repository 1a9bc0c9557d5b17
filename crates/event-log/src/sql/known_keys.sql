-- What the log holds for these (run, key) pairs. Locks: none.
-- LIMIT keeps it one index lookup per pair: a join may be planned as a scan of the whole log.
SELECT wanted.run_no, e.run_seq, e.event_id, e.idempotency_key, e.content_digest, e.persisted_at
FROM unnest($1::bigint[], $2::bytea[]) AS wanted (run_no, idempotency_key)
CROSS JOIN LATERAL (
  SELECT run_seq, event_id, idempotency_key, content_digest, persisted_at
  FROM event_log.event
  WHERE event.run_no = wanted.run_no AND event.idempotency_key = wanted.idempotency_key
  LIMIT 1
) e
