-- The numbers of the runs that exist. Locks: none.
SELECT r.run_no, r.tenant_id, r.run_id
FROM unnest($1::text[], $2::text[]) AS wanted (tenant_id, run_id)
JOIN event_log.run r ON r.tenant_id = wanted.tenant_id AND r.run_id = wanted.run_id
