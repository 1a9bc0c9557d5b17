-- A stream's events with offsets that it has not read: how many, and the lowest. Locks: none. One
-- statement, so an event is never seen before its stream has read it.
SELECT s.start_offset, s.next_offset, below.events + beyond.events, coalesce(below.first, beyond.first)
FROM event_log.stream s
CROSS JOIN LATERAL (
  SELECT count(*) AS events, min(e.source_offset) AS first
  FROM event_log.event e
  WHERE e.stream_id = s.stream_id AND e.source_offset < s.start_offset
) below
CROSS JOIN LATERAL (
  SELECT count(*) AS events, min(e.source_offset) AS first
  FROM event_log.event e
  WHERE e.stream_id = s.stream_id AND e.source_offset >= s.next_offset
) beyond
WHERE s.stream_id = $1
