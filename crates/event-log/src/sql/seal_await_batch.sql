-- Waits for the batch that a stream's owner has open. Locks: the stream row, shared, until the statement ends; a batch
-- holds it from its first statement to its commit (lock_stream.sql).
SELECT 1 FROM event_log.stream WHERE stream_id = $1 AND closed_at IS NULL FOR SHARE
