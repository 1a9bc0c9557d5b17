-- The first event of a stream at or behind an offset, below a horizon that was read before. Locks: none.
SELECT source_offset, persisted_at
FROM event_log.event
WHERE stream_id = $1 AND source_offset >= $2 AND source_offset < $3
ORDER BY source_offset
LIMIT 1
