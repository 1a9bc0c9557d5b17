-- The log in the order in which ingest inserted it: batch after batch (a batch is a stream's, and has one persisted_at), each
-- in the order of its runs. Locks: ACCESS SHARE.
COPY (SELECT * FROM event_log.event ORDER BY persisted_at, stream_id, run_no, run_seq) TO STDOUT (FORMAT binary)
