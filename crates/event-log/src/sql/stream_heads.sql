-- Locks: none. Read before the events below next_offset.
SELECT stream_id, topic, partition, generation, start_offset, next_offset,
       appended, duplicates, dead_lettered, skipped, owner, halted_reason, last_persisted_at, closed_at
FROM event_log.stream
ORDER BY topic, partition, generation
