-- Of runs and the runSeq that a reader has applied, those that go further than the log: with the run's
-- last runSeq in the log, 0 where there is none, and whether the log has the run at all. Retired runs, which
-- may have been read before they were, are left out. Locks: none.
SELECT applied.tenant_id, applied.run_id, applied.run_seq, coalesce(e.head, 0), r.run_no IS NOT NULL
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS applied (tenant_id, run_id, run_seq)
LEFT JOIN event_log.run r ON r.tenant_id = applied.tenant_id AND r.run_id = applied.run_id
LEFT JOIN LATERAL (
  SELECT max(event.run_seq) AS head
  FROM event_log.event
  WHERE event.run_no = r.run_no
) e ON true
WHERE applied.run_seq > coalesce(e.head, 0)
  AND NOT EXISTS (SELECT FROM event_log.retired_run t WHERE t.run_no = r.run_no)
ORDER BY applied.tenant_id, applied.run_id
