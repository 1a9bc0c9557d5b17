-- Gives leases up, so that others need not wait for their time to run out. One whose row is locked
-- (by what is left of an abandoned batch) is passed over and runs out by itself.
-- Locks: the rows released, until the end of the statement.
WITH mine AS (
  SELECT c.projection, c.version, c.stream_id
  FROM read_model.projection_checkpoint c
  WHERE c.claim = ANY ($1)
  FOR UPDATE OF c SKIP LOCKED
)
UPDATE read_model.projection_checkpoint c
SET claim = NULL, owner = NULL, lease_expires_at = NULL, updated_at = clock_timestamp()
FROM mine
WHERE c.projection = mine.projection AND c.version = mine.version AND c.stream_id = mine.stream_id
