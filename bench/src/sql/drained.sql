-- When the first event of a topic was appended, and what the ledger says of all of them. Locks: none.
SELECT (SELECT min(e.persisted_at)
        FROM event_log.stream s
        CROSS JOIN LATERAL (SELECT persisted_at FROM event_log.event
                            WHERE stream_id = s.stream_id ORDER BY source_offset LIMIT 1) e
        WHERE s.topic = $1),
       (SELECT sum(appended)::bigint FROM event_log.stream WHERE topic = $1),
       (SELECT sum(duplicates)::bigint FROM event_log.stream WHERE topic = $1)
