-- Bytes of pending dead letters: of each of these tenants, and (NULL) of the topic's that have no known tenant. $1
-- tenants, $2 topic. Locks: none; what other partitions are writing just now is not seen.
SELECT tenant_id, sum(bytes)::bigint
FROM event_log.dead_letter_usage
WHERE tenant_id = ANY ($1)
GROUP BY tenant_id
UNION ALL
SELECT NULL, sum(u.bytes)::bigint
FROM event_log.dead_letter_usage u JOIN event_log.stream s USING (stream_id)
WHERE u.tenant_id IS NULL AND s.topic = $2
HAVING count(*) > 0
