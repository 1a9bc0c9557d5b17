-- Streams that events name and the ledger does not have. Locks: none. Goes from one stream's first event
-- to the next's by the index, since there are few streams.
WITH RECURSIVE named AS (
  SELECT min(stream_id) AS stream_id
  FROM event_log.event
  UNION ALL
  SELECT (SELECT min(e.stream_id) FROM event_log.event e WHERE e.stream_id > named.stream_id)
  FROM named
  WHERE named.stream_id IS NOT NULL
)
SELECT named.stream_id
FROM named
WHERE named.stream_id IS NOT NULL
  AND NOT EXISTS (SELECT FROM event_log.stream s WHERE s.stream_id = named.stream_id)
ORDER BY named.stream_id
