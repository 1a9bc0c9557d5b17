-- Events of a stream from one offset to below another, in offset order. Locks: none.
SELECT source_offset, run_no, run_seq, chain_digest
FROM event_log.event
WHERE stream_id = $1 AND source_offset >= $2 AND source_offset < $3
ORDER BY source_offset
LIMIT $4
