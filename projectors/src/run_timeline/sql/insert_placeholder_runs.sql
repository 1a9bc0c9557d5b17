-- Makes a row for every run of the batch that has none, so that there is something to lock: two
-- workers that meet the same new run wait for each other here. The row is overwritten before the
-- transaction ends; last_event_seq = 0 marks it until then.
-- Locks: the rows inserted; waits for a concurrent insert of the same run. In key order, so that two
-- batches cannot wait for each other.
INSERT INTO run_timeline_run (
  tenant_id, run_id, last_event_seq, is_queued, interval_no, state, started_at, emitted_started_at,
  project_id, environment_id, plan_id, plan_version
)
SELECT tenant_id, run_id, 0, false, 1, 'PENDING', 'epoch', 'epoch', '', '', '', ''
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS new (tenant_id, run_id, place)
-- Only to save work: most runs of most batches are known.
WHERE NOT EXISTS (
  SELECT FROM run_timeline_run r WHERE r.tenant_id = new.tenant_id AND r.run_id = new.run_id
)
ORDER BY place
ON CONFLICT (tenant_id, run_id) DO NOTHING
