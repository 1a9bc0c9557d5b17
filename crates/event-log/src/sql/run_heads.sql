-- The last event of each run. Locks: none (the runs are locked by lock_runs.sql).
SELECT wanted.run_no, e.run_seq, e.chain_digest
FROM unnest($1::bigint[]) AS wanted (run_no)
JOIN LATERAL (
  SELECT run_seq, chain_digest
  FROM event_log.event
  WHERE event.run_no = wanted.run_no
  ORDER BY run_seq DESC
  LIMIT 1
) e ON true
