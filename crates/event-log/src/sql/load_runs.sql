-- For runs that exist: their numbers and their newest events, to fill the run cache.
-- Locks: none. $3 bounds the events read per run.
SELECT r.run_no, r.tenant_id, r.run_id,
       e.run_seq, e.event_id, e.idempotency_key, e.content_digest, e.chain_digest, e.persisted_at
FROM unnest($1::text[], $2::text[]) AS wanted (tenant_id, run_id)
JOIN event_log.run r ON r.tenant_id = wanted.tenant_id AND r.run_id = wanted.run_id
LEFT JOIN LATERAL (
  SELECT run_seq, event_id, idempotency_key, content_digest, chain_digest, persisted_at
  FROM event_log.event
  WHERE event.run_no = r.run_no
  ORDER BY run_seq DESC
  LIMIT $3
) e ON true
