-- How far the log and run_status have come in each partition of a topic. Locks: none.
SELECT s.partition, s.next_offset AS log, coalesce(c.next_offset, 0) AS model
FROM event_log.stream s
LEFT JOIN read_model.projection_checkpoint c ON c.stream_id = s.stream_id AND c.projection = 'run_status'
WHERE s.topic = $1
