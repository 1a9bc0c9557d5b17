-- What each table (with its TOAST and maps) and each index outside PostgreSQL's own schemas takes. Locks: none.
SELECT format('%s.%s', n.nspname, t.relname) AS table,
       CASE c.relkind WHEN 'i' THEN c.relname END::text AS index,
       CASE c.relkind WHEN 'i' THEN pg_relation_size(c.oid) ELSE pg_table_size(c.oid) END AS bytes
FROM pg_class c
LEFT JOIN pg_index x ON x.indexrelid = c.oid
JOIN pg_class t ON t.oid = coalesce(x.indrelid, c.oid)
JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE c.relkind IN ('r', 'i') AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
ORDER BY bytes DESC, 1, 2
