-- The snapshots that these runs have.
-- Locks: none (the runs are locked by lock_runs.sql).
SELECT s.tenant_id, s.run_id, s.run_seq, s.at_end
FROM unnest($1::text[], $2::text[]) AS wanted (tenant_id, run_id)
JOIN run_snapshot s ON s.tenant_id = wanted.tenant_id AND s.run_id = wanted.run_id
