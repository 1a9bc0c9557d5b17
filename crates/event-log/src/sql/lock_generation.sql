-- The open generation of a partition, before an operator closes it.
-- Locks: its row, until the transaction ends; waits while a batch or a claim is being committed.
-- Where another operator closed it meanwhile no row comes back: the next one is not in this
-- statement's snapshot.
SELECT stream_id, generation, next_offset, halted_code, halted_reason
FROM event_log.stream
WHERE topic = $1 AND partition = $2 AND closed_at IS NULL
FOR UPDATE
