-- The first statement of every batch. Locks: the stream row, until the transaction ends.
-- The clock is read outside the locking query, so after the lock is held.
-- The transaction's statements are planned once per connection: planned for each batch, their arrays would be
-- copied into the plan, which took a fifth of the time of an insert. So no plan may depend on how large the log was when
-- it was made: enable_seqscan is off, and all lookups are by index.
WITH locked AS MATERIALIZED (
  SELECT claim, next_offset, last_persisted_at
  FROM event_log.stream
  WHERE stream_id = $1 AND closed_at IS NULL
  FOR UPDATE
)
SELECT claim, next_offset, greatest(clock_timestamp(), last_persisted_at) AS persisted_at,
       set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true)
FROM locked
