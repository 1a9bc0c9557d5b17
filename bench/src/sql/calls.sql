-- How often each statement was executed in a database, those that only begin or end a transaction left out; statements
-- whose texts begin alike are taken for one. Locks: none.
SELECT left(regexp_replace(s.query, '\s+', ' ', 'g'), 200) AS text, sum(s.calls)::bigint
FROM pg_stat_statements s
JOIN pg_database d ON d.oid = s.dbid
WHERE d.datname = $1 AND s.query !~* '^\s*(begin|commit|rollback|start transaction)'
GROUP BY 1
