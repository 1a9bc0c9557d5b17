-- Removes the snapshots that are not kept.
-- Locks: these rows. Nobody else holds them: their runs are locked by lock_runs.sql.
DELETE FROM run_snapshot s
USING unnest($1::text[], $2::text[], $3::bigint[]) AS old (tenant_id, run_id, run_seq)
WHERE s.tenant_id = old.tenant_id AND s.run_id = old.run_id AND s.run_seq = old.run_seq
