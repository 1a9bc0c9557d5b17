-- Tombstones behind run number $1, each with what else the log says of the run: its name, the events counted by stream,
-- and whether any event is left. Locks: none.
SELECT t.run_no, t.tenant_id, t.run_id, t.head_seq, t.chain_digest,
       EXISTS (SELECT FROM event_log.run r
               WHERE r.run_no = t.run_no AND r.tenant_id = t.tenant_id AND r.run_id = t.run_id) AS is_named,
       (SELECT coalesce(sum(c.events), 0)::bigint FROM event_log.retired_events c WHERE c.run_no = t.run_no) AS counted,
       EXISTS (SELECT FROM event_log.event e WHERE e.run_no = t.run_no) AS has_events
FROM event_log.retired_run t
WHERE t.run_no > $1
ORDER BY t.run_no
LIMIT $2
