-- Ages in seconds of the oldest events at or above given offsets of streams, in the order asked.
-- $1 streams, $2 offsets. One index probe each (event_source_unique). No locks.
SELECT coalesce(
         greatest(extract(epoch FROM clock_timestamp() - oldest.persisted_at), 0), 0
       )::double precision
FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS asked (stream_id, from_offset, place)
LEFT JOIN LATERAL (
  SELECT e.persisted_at
  FROM event_log.event e
  WHERE e.stream_id = asked.stream_id AND e.source_offset >= asked.from_offset
  ORDER BY e.source_offset
  LIMIT 1
) oldest ON true
ORDER BY asked.place
