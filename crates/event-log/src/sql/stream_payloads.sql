-- The payloads of a stream's events at the offsets $2, in offset order; NULL where one was erased meanwhile.
-- Locks: none.
SELECT source_offset, payload::text
FROM event_log.event
WHERE stream_id = $1 AND source_offset = ANY ($2)
ORDER BY source_offset
