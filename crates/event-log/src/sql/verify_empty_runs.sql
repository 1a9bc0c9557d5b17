-- Runs above $1 and up to $2 of which the log has no event. Locks: none.
SELECT r.run_no
FROM event_log.run r
WHERE r.run_no > $1 AND r.run_no <= $2
  AND NOT EXISTS (
    SELECT
    FROM event_log.event e
    -- The range again, so that no plan reads the whole log.
    WHERE e.run_no = r.run_no AND e.run_no > $1 AND e.run_no <= $2
  )
ORDER BY r.run_no
