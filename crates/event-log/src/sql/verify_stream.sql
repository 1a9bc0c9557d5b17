-- Events of a stream below a horizon that was read before, in offset order. Locks: none.
SELECT source_offset, persisted_at
FROM event_log.event
WHERE stream_id = $1 AND source_offset >= $2 AND source_offset < $3
ORDER BY source_offset
LIMIT $4
