-- Events of one stream in offset order, below a horizon that was read before: at most $4. Without the ids of
-- their runs and without payloads, which are fetched by themselves: the columns keep their places. Instead
-- the last one says what the payload of an event of the types $5 (NULL = of any type) may weigh; 0 = there
-- is none that is wanted. How large a compressed payload is, only fetching it would tell: it counts as 16
-- times what is stored. Most are smaller; the most compressible are some 90 times as large.
-- Locks: none.
SELECT run_no, run_seq, stream_id, source_offset, emitted_at, persisted_at, event_id, engine_attempt_id,
       logical_attempt_id, idempotency_key, tenant_id, '' AS run_id, event_type, project_id,
       environment_id, plan_id, plan_version, step_id, NULL::text AS payload,
       CASE WHEN payload IS NULL OR event_type <> ALL ($5::text[]) THEN 0
            -- Both are known without fetching the payload.
            ELSE pg_column_size(payload) * CASE WHEN pg_column_compression(payload) IS NULL THEN 1 ELSE 16 END
       END AS payload_bytes
FROM event_log.event
WHERE stream_id = $1 AND source_offset >= $2 AND source_offset < $3
ORDER BY source_offset
LIMIT $4
