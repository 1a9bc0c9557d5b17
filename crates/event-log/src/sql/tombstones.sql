-- The tombstones of those runs that were retired. $1 = run numbers. Locks: none.
SELECT run_no, tenant_id, run_id, head_seq, chain_digest
FROM event_log.retired_run
WHERE run_no = ANY ($1)
