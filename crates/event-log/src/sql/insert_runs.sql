-- Numbers the runs that are new and returns only those.
-- Locks: waits for another transaction that is inserting the same run. The order is the same for
-- every writer, so two partitions with the same new runs cannot deadlock.
INSERT INTO event_log.run (tenant_id, run_id)
SELECT tenant_id, run_id
FROM unnest($1::text[], $2::text[]) AS wanted (tenant_id, run_id)
ORDER BY tenant_id COLLATE "C", run_id COLLATE "C"
ON CONFLICT (tenant_id, run_id) DO NOTHING
RETURNING run_no, tenant_id, run_id
