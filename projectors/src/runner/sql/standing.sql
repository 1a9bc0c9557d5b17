-- Every checkpoint of these projections, and the database's time.
-- Locks: none.
SELECT projection, version, stream_id, topic, partition, generation, next_offset, applied, claim,
       finished_at IS NOT NULL AS finished,
       claim IS NULL OR lease_expires_at <= clock_timestamp() AS free,
       clock_timestamp() AS read_at
FROM read_model.projection_checkpoint
WHERE projection = ANY ($1)
