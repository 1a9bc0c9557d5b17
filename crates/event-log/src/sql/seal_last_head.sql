-- Where a run stands in the seals: the farthest, or that of day $2. One look-up per sealed day. Locks: none.
SELECT h.day, h.run_seq, h.events, h.leaf
FROM event_log.seal s
JOIN event_log.sealed_head h ON h.day = s.day AND h.run_no = $1
WHERE $2::date IS NULL OR s.day = $2
ORDER BY h.run_seq DESC, h.day DESC
LIMIT 1
