-- Takes the partition for one process: a fresh token fences every earlier one.
-- Locks: the stream row; waits while an earlier owner's batch is being committed, 3 s at most, so that a
-- row which stays locked does not keep a connection from others for long.
WITH bounded AS MATERIALIZED (SELECT set_config('lock_timeout', '3000', true))
UPDATE event_log.stream
SET claim = $4, owner = $5, updated_at = clock_timestamp()
FROM bounded
WHERE topic = $1 AND partition = $2 AND group_id = $3 AND closed_at IS NULL
RETURNING stream_id, generation, next_offset, halted_code, halted_reason,
          topic_id, last_record_offset, last_record_digest
