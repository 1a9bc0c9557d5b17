-- Generations with what lies between each and the one before. $1 = only this topic, $2 = only this
-- partition, $3 = the closed ones too.
-- Locks: none.
SELECT *
FROM (
  SELECT stream_id, topic, partition, generation, group_id, start_offset, next_offset,
         appended, duplicates, dead_lettered, skipped, owner,
         halted_code, halted_reason, halted_at, updated_at, closed_at,
         start_offset - lag(next_offset) OVER (PARTITION BY topic, partition ORDER BY generation) AS gap
  FROM event_log.stream
  WHERE ($1::text IS NULL OR topic = $1) AND ($2::int IS NULL OR partition = $2)
) s
WHERE $3 OR closed_at IS NULL
ORDER BY topic, partition, generation
