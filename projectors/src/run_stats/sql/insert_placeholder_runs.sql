-- Makes a row for every run of the batch that has none, so that there is something to lock: two
-- workers that meet the same new run wait for each other here. The row is overwritten before the
-- transaction ends; last_event_seq = 0 marks it until then.
-- Locks: the rows inserted; waits for a concurrent insert of the same run. In key order, so that two
-- batches cannot wait for each other.
INSERT INTO run_stats_run (
  tenant_id, run_id, project_id, environment_id, plan_id, status, is_queued, last_event_seq
)
SELECT tenant_id, run_id, '', '', '', 'PENDING', false, 0
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS new (tenant_id, run_id, place)
-- Only to save work: most runs of most batches are known.
WHERE NOT EXISTS (
  SELECT FROM run_stats_run r WHERE r.tenant_id = new.tenant_id AND r.run_id = new.run_id
)
ORDER BY place
ON CONFLICT (tenant_id, run_id) DO NOTHING
