-- Takes the partition for one process: a fresh token fences every earlier one.
-- Locks: the stream row; waits while an earlier owner's batch is being committed.
UPDATE event_log.stream
SET claim = $4, owner = $5, updated_at = clock_timestamp()
WHERE topic = $1 AND partition = $2 AND group_id = $3 AND closed_at IS NULL
RETURNING stream_id, generation, next_offset, halted_code, halted_reason,
          topic_id, last_record_offset, last_record_digest
