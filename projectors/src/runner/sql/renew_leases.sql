-- Renews leases that are still held. One whose batch is in flight is passed over: the batch renews it.
-- Locks: the rows renewed, until the end of the statement.
WITH mine AS (
  SELECT c.projection, c.version, c.stream_id
  FROM read_model.projection_checkpoint c
  WHERE c.claim = ANY ($1)
  FOR UPDATE OF c SKIP LOCKED
)
UPDATE read_model.projection_checkpoint c
SET lease_expires_at = clock_timestamp() + $2, updated_at = clock_timestamp()
FROM mine
WHERE c.projection = mine.projection AND c.version = mine.version AND c.stream_id = mine.stream_id
