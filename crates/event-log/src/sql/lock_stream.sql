-- The first statement of every batch. Locks: the stream row, until the transaction ends.
-- The clock is read outside the locking query, so after the lock is held.
-- The transaction's statements are planned anew each time: a generic plan expects ten rows in each
-- array, and one that was made while the log was small scans the whole log when it no longer is.
WITH locked AS MATERIALIZED (
  SELECT claim, next_offset, last_persisted_at
  FROM event_log.stream
  WHERE stream_id = $1 AND closed_at IS NULL
  FOR UPDATE
)
SELECT claim, next_offset, greatest(clock_timestamp(), last_persisted_at) AS persisted_at,
       set_config('plan_cache_mode', 'force_custom_plan', true)
FROM locked
