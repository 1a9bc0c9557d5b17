-- The runs $1 to $2 of a filling; run_no is the number and one. Locks: none but the new rows.
INSERT INTO event_log.run (run_no, tenant_id, run_id) OVERRIDING SYSTEM VALUE
SELECT n + 1, 'acme-retail', 'filling-' || n
FROM generate_series($1::bigint, $2) AS n
-- The same parameters as fill_events.sql.
WHERE ($3::integer, $4::bigint, $5::boolean) IS NOT NULL
