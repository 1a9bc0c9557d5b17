-- What a batch that was committed before became: its events and dead letters, by offset. Locks: none.
SELECT source_offset, run_seq, NULL AS reason
FROM event_log.event
WHERE stream_id = $1 AND source_offset >= $2 AND source_offset < $3
UNION ALL
SELECT source_offset, NULL, reason
FROM event_log.dead_letter
WHERE stream_id = $1 AND source_offset >= $2 AND source_offset < $3
