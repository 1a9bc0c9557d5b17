-- The payloads of a stream's events at the offsets $2, in their order; NULL where one was erased meanwhile.
-- By a join with the list, each a look-up by key: the planner may read the whole stream for an ANY of many.
-- Locks: none.
SELECT e.source_offset, e.payload::text
FROM unnest($2::bigint[]) WITH ORDINALITY AS wanted (source_offset, place)
JOIN event_log.event e ON e.stream_id = $1 AND e.source_offset = wanted.source_offset
ORDER BY wanted.place
