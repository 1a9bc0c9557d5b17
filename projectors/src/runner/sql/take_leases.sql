-- Takes the leases that are still free. One held by a transaction in flight is not free, whatever
-- its time says: SKIP LOCKED passes it over.
-- Locks: the rows taken, until the end of the statement.
WITH free AS (
  SELECT c.projection, c.version, c.stream_id
  FROM read_model.projection_checkpoint c
  JOIN unnest($1::text[], $2::integer[], $3::bigint[]) AS wanted (projection, version, stream_id)
    USING (projection, version, stream_id)
  WHERE c.finished_at IS NULL AND (c.claim IS NULL OR c.lease_expires_at <= clock_timestamp())
  FOR UPDATE OF c SKIP LOCKED
)
UPDATE read_model.projection_checkpoint c
SET claim = gen_random_uuid(),
    owner = $4,
    lease_expires_at = clock_timestamp() + $5,
    updated_at = clock_timestamp()
FROM free
WHERE c.projection = free.projection AND c.version = free.version AND c.stream_id = free.stream_id
RETURNING c.projection, c.version, c.stream_id, c.claim
