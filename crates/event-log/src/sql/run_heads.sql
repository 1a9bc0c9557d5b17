-- The last event of each run, if it has any, and whether it was retired. Locks: none (the runs are locked by
-- lock_runs.sql).
SELECT wanted.run_no, e.run_seq, e.chain_digest,
       EXISTS (SELECT FROM event_log.retired_run t WHERE t.run_no = wanted.run_no) AS is_retired
FROM unnest($1::bigint[]) AS wanted (run_no)
LEFT JOIN LATERAL (
  SELECT run_seq, chain_digest
  FROM event_log.event
  WHERE event.run_no = wanted.run_no
  ORDER BY run_seq DESC
  LIMIT 1
) e ON true
