-- Takes the leases that are still free. One held by a transaction in flight is not free, whatever
-- its time says: SKIP LOCKED passes it over.
-- Locks: the rows taken, until the end of the statement.
WITH free AS (
  SELECT c.projection, c.stream_id
  FROM read_model.projection_checkpoint c
  JOIN unnest($1::text[], $2::bigint[]) AS wanted (projection, stream_id)
    USING (projection, stream_id)
  WHERE c.finished_at IS NULL AND (c.claim IS NULL OR c.lease_expires_at <= clock_timestamp())
  FOR UPDATE OF c SKIP LOCKED
)
UPDATE read_model.projection_checkpoint c
SET claim = gen_random_uuid(),
    owner = $3,
    lease_expires_at = clock_timestamp() + $4,
    updated_at = clock_timestamp()
FROM free
WHERE c.projection = free.projection AND c.stream_id = free.stream_id
RETURNING c.projection, c.stream_id, c.claim
