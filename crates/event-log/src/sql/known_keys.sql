-- What the log holds for these (run, key) pairs. Locks: none.
SELECT e.run_no, e.run_seq, e.event_id, e.idempotency_key, e.content_digest, e.persisted_at
FROM unnest($1::bigint[], $2::bytea[]) AS wanted (run_no, idempotency_key)
JOIN event_log.event e
  ON e.run_no = wanted.run_no AND e.idempotency_key = wanted.idempotency_key
