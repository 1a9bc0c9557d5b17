-- As lock_stream.sql, which says why it is as it is, but does not wait for the row: 55P03 where it is
-- locked.
WITH locked AS MATERIALIZED (
  SELECT claim, next_offset, last_persisted_at
  FROM event_log.stream
  WHERE stream_id = $1 AND closed_at IS NULL
  FOR UPDATE NOWAIT
)
SELECT claim, next_offset, greatest(clock_timestamp(), last_persisted_at) AS persisted_at,
       set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true)
FROM locked
