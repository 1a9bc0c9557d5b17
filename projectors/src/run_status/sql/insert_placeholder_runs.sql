-- Makes a row for every run of the batch that has none, so that there is something to lock: two
-- workers that meet the same new run wait for each other here. The row is overwritten before the
-- transaction ends; last_event_seq = 0 marks it until then.
-- Locks: the rows inserted; waits for a concurrent insert of the same run. In key order, so that two
-- batches cannot wait for each other.
INSERT INTO run_current (
  tenant_id, run_id, project_id, environment_id, plan_id, plan_version, status, consistency,
  last_event_seq, sort_at, first_persisted_at
)
SELECT tenant_id, run_id, '', '', '', '', 'PENDING', 'CONSISTENT', 0, persisted_at, persisted_at
FROM unnest($1::text[], $2::text[], $3::timestamptz[])
  WITH ORDINALITY AS new (tenant_id, run_id, persisted_at, place)
-- Only to save work: most runs of most batches are known.
WHERE NOT EXISTS (
  SELECT FROM run_current r WHERE r.tenant_id = new.tenant_id AND r.run_id = new.run_id
)
ORDER BY place
ON CONFLICT (tenant_id, run_id) DO NOTHING
