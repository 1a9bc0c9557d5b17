-- Moves the stored offset and books every offset of the batch. The row is locked by lock_stream.sql.
UPDATE event_log.stream
SET next_offset = $2,
    appended = appended + $3,
    duplicates = duplicates + $4,
    dead_lettered = dead_lettered + $5,
    skipped = skipped + $6,
    last_record_offset = coalesce($7, last_record_offset),
    last_record_digest = coalesce($8, last_record_digest),
    last_persisted_at = $9,
    updated_at = $9
WHERE stream_id = $1
