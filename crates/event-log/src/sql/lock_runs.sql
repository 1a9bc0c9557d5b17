-- The checked path: the runs of the batch, locked in one order for all writers.
-- Locks: the run rows, until the transaction ends.
SELECT r.run_no, r.tenant_id, r.run_id
FROM event_log.run r
JOIN unnest($1::text[], $2::text[]) AS wanted (tenant_id, run_id)
  ON r.tenant_id = wanted.tenant_id AND r.run_id = wanted.run_id
ORDER BY r.tenant_id, r.run_id
FOR UPDATE OF r
