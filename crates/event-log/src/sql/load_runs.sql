-- For runs that exist: their numbers, their last events, and whether they were retired. Locks: none. One
-- statement: a run's tombstone is there as soon as its events are not.
-- LIMIT keeps it one index lookup per run: a join may be planned as a scan of all runs.
SELECT r.run_no, r.tenant_id, r.run_id, e.run_seq, e.chain_digest,
       EXISTS (SELECT FROM event_log.retired_run t WHERE t.run_no = r.run_no) AS is_retired
FROM unnest($1::text[], $2::text[]) AS wanted (tenant_id, run_id)
CROSS JOIN LATERAL (
  SELECT run_no, tenant_id, run_id
  FROM event_log.run
  WHERE run.tenant_id = wanted.tenant_id AND run.run_id = wanted.run_id
  LIMIT 1
) r
LEFT JOIN LATERAL (
  SELECT run_seq, chain_digest
  FROM event_log.event
  WHERE event.run_no = r.run_no
  ORDER BY run_seq DESC
  LIMIT 1
) e ON true
