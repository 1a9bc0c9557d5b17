-- Of runs without events, those that no tombstone and no refused record explains: a record that is refused only once its
-- run is numbered leaves the run's row behind, with a dead letter in the same transaction.
-- Locks: none. Reads all dead letters.
SELECT r.run_no, r.tenant_id, r.run_id
FROM event_log.run r
WHERE r.run_no = ANY ($1)
  AND NOT EXISTS (SELECT FROM event_log.retired_run t WHERE t.run_no = r.run_no)
  AND NOT EXISTS (
    SELECT
    FROM event_log.dead_letter d
    WHERE d.tenant_id = r.tenant_id AND d.run_id = r.run_id
      AND d.reason IN ('event_id_reused', 'unstorable')
  )
ORDER BY r.run_no
