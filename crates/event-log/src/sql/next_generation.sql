-- Closes a generation, opens the next one at $2, and keeps who did it and why: one statement, so
-- that none of the three is ever there without the others. Its row is locked by lock_generation.sql.
-- Locks: nothing more; the inserted rows are new.
-- Of the old row stay the consumer group, and last_persisted_at, so that persisted_at never falls
-- within a partition. The claim goes, which fences whoever reads now; so does what a recreated
-- topic is recognised by (topic_id, last_record_*), since the reading may go on in a new one.
WITH closed AS (
  UPDATE event_log.stream
  SET closed_at = clock_timestamp(), updated_at = clock_timestamp()
  WHERE stream_id = $1 AND closed_at IS NULL
  RETURNING *
), opened AS (
  INSERT INTO event_log.stream (topic, partition, generation, group_id, start_offset, next_offset, last_persisted_at)
  SELECT topic, partition, generation + 1, group_id, $2, $2, last_persisted_at
  FROM closed
  RETURNING generation
), audited AS (
  INSERT INTO event_log.audit (operator, action, subject, reason, detail)
  SELECT $3, $4, closed.topic || '/' || closed.partition, $5,
         jsonb_build_object(
           'closed_generation', closed.generation,
           'opened_generation', opened.generation,
           'next_offset', closed.next_offset,
           'start_offset', $2,
           'halted_code', closed.halted_code,
           'halted_reason', closed.halted_reason)
  FROM closed, opened
  RETURNING audit_id
)
SELECT opened.generation, audited.audit_id
FROM opened, audited
