-- Events of one stream in offset order, below a horizon that was read before: at most $4, cut short
-- where the payloads so far reach about $5 bytes, but never to nothing. How large a compressed payload
-- is, only fetching it would tell: it counts as 16 times what is stored. Most are smaller; the most
-- compressible are some 90 times as large.
-- Locks: none.
SELECT e.run_no, e.run_seq, e.stream_id, e.source_offset, e.emitted_at, e.persisted_at, e.event_id,
       e.engine_attempt_id, e.logical_attempt_id, e.idempotency_key, e.tenant_id, r.run_id,
       e.event_type, e.project_id, e.environment_id, e.plan_id, e.plan_version, e.step_id,
       e.payload::text AS payload
FROM (
  SELECT *, sum(bytes) OVER (ORDER BY source_offset ROWS UNBOUNDED PRECEDING) - bytes AS bytes_before
  FROM (
    -- Both are known without fetching the payload.
    SELECT *, coalesce(pg_column_size(payload), 0)
              * CASE WHEN pg_column_compression(payload) IS NULL THEN 1 ELSE 16 END AS bytes
    FROM event_log.event
    WHERE stream_id = $1 AND source_offset >= $2 AND source_offset < $3
    ORDER BY source_offset
    LIMIT $4
  ) sized
) e
JOIN event_log.run r ON r.run_no = e.run_no
WHERE e.bytes_before < $5
ORDER BY e.source_offset
