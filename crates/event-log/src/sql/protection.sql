-- What is missing of what the migrations made to protect the log: row-level security of tables with a tenant, and the triggers that
-- keep the log as it is. Schemas of Runlog are those that belong to the owner of event_log. Locks: none.
WITH tables AS (
  SELECT c.oid, n.nspname || '.' || c.relname AS name, c.relrowsecurity, c.relforcerowsecurity
  FROM pg_class c
  JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_namespace log ON log.nspname = 'event_log' AND log.nspowner = n.nspowner
  WHERE c.relkind = 'r' AND n.nspname !~ '^pg_'
), of_tenants AS (
  SELECT t.* FROM tables t
  WHERE EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped)
), kept AS (
  -- Bits of tgtype: 1 row, 8 DELETE, 16 UPDATE, 32 TRUNCATE.
  SELECT w.name, w.what,
         EXISTS (SELECT FROM pg_trigger g
                 WHERE g.tgrelid = to_regclass(w.name) AND g.tgenabled = 'A' AND NOT g.tgisinternal
                   AND g.tgtype & w.bits = w.bits) AS is_there
  FROM (VALUES
    ('event_log.event', 'UPDATE of a row', 17), ('event_log.event', 'DELETE of a row', 9), ('event_log.event', 'TRUNCATE', 32),
    ('event_log.run', 'UPDATE of a row', 17), ('event_log.run', 'DELETE of a row', 9), ('event_log.run', 'TRUNCATE', 32),
    ('event_log.audit', 'UPDATE of a row', 17), ('event_log.audit', 'DELETE of a row', 9), ('event_log.audit', 'TRUNCATE', 32),
    ('event_log.seal', 'UPDATE of a row', 17), ('event_log.seal', 'DELETE of a row', 9), ('event_log.seal', 'TRUNCATE', 32),
    ('event_log.sealed_head', 'UPDATE of a row', 17), ('event_log.sealed_head', 'DELETE of a row', 9), ('event_log.sealed_head', 'TRUNCATE', 32),
    ('event_log.retired_run', 'UPDATE of a row', 17), ('event_log.retired_run', 'DELETE of a row', 9), ('event_log.retired_run', 'TRUNCATE', 32),
    ('event_log.retired_events', 'UPDATE of a row', 17), ('event_log.retired_events', 'DELETE of a row', 9), ('event_log.retired_events', 'TRUNCATE', 32),
    ('event_log.erased_run', 'UPDATE of a row', 17), ('event_log.erased_run', 'DELETE of a row', 9), ('event_log.erased_run', 'TRUNCATE', 32),
    ('event_log.stream', 'UPDATE of a row', 17), ('event_log.stream', 'DELETE', 8), ('event_log.stream', 'TRUNCATE', 32)
  ) AS w (name, what, bits)
)
SELECT name || ' has no row-level security that is forced' FROM of_tenants WHERE NOT (relrowsecurity AND relforcerowsecurity)
UNION ALL
SELECT t.name || ' has no policy for the tenants of analysts'
FROM of_tenants t
WHERE NOT EXISTS (
  SELECT FROM pg_policy p
  WHERE p.polrelid = t.oid AND (SELECT oid FROM pg_roles WHERE rolname = 'runlog_analyst') = ANY (p.polroles)
    AND pg_get_expr(p.polqual, p.polrelid) LIKE '%my_tenants()%')
UNION ALL
SELECT name || ' has no trigger that is always on and checks ' || what FROM kept WHERE NOT is_there
ORDER BY 1
