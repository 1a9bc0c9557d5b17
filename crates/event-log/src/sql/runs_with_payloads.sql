-- Runs of a tenant behind a run number that have a payload, each with its last runSeq. Locks: none.
-- $1 tenant, $2 run or null, $3 number, $4 limit. Both lookups are one run's at a time, by the primary key.
SELECT r.run_no, head.run_seq
FROM event_log.run r
CROSS JOIN LATERAL (
  SELECT e.run_seq FROM event_log.event e WHERE e.run_no = r.run_no ORDER BY e.run_seq DESC LIMIT 1
) head
WHERE r.tenant_id = $1 AND ($2::text IS NULL OR r.run_id = $2) AND r.run_no > $3
  AND EXISTS (SELECT FROM event_log.event e WHERE e.run_no = r.run_no AND e.payload IS NOT NULL OFFSET 0)
ORDER BY r.run_no
LIMIT $4
