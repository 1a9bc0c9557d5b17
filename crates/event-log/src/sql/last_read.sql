-- Of each run the last event that lies below a place in its stream: what a reader that has come to these
-- places has read of it.
-- Locks: none.
SELECT e.run_no, max(e.run_seq) AS last_seq
FROM event_log.event e
JOIN unnest($2::bigint[], $3::bigint[]) AS reader (stream_id, next_offset)
  ON reader.stream_id = e.stream_id AND e.source_offset < reader.next_offset
WHERE e.run_no = ANY ($1)
GROUP BY e.run_no
