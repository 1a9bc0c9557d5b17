-- The streams of a filling: $1 partitions, of consumer group $2, with $3 events each. Locks: none but the new rows.
INSERT INTO event_log.stream (topic, partition, group_id, start_offset, next_offset, appended)
SELECT 'filling', partition, $2, 0, $3, $3 FROM generate_series(0, $1 - 1) AS partition
