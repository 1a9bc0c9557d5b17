-- What the session's login may do beyond what the role $1 (runlog_ingest or runlog_projector) is for, as ends of the sentence
-- "the login ...". By session_user: what a session gave up with SET ROLE it can take back.
-- Schemas of Runlog are those that belong to the owner of event_log.
-- Locks: none.
WITH login AS (
  SELECT * FROM pg_roles WHERE rolname = session_user
), schemas AS (
  SELECT n.oid, n.nspname, n.nspname = 'event_log' AS is_log
  FROM pg_namespace n
  JOIN pg_namespace log ON log.nspname = 'event_log' AND log.nspowner = n.nspowner
  WHERE n.nspname !~ '^pg_'
), granted AS (
  SELECT p.privilege, p.ord, s.is_log, s.nspname || '.' || c.relname AS name
  FROM pg_class c
  JOIN schemas s ON s.oid = c.relnamespace
  CROSS JOIN unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,TRIGGER}'::text[]) WITH ORDINALITY AS p (privilege, ord)
  WHERE c.relkind IN ('r', 'v')
    AND CASE WHEN p.privilege IN ('SELECT', 'INSERT', 'UPDATE') THEN has_any_column_privilege(session_user, c.oid, p.privilege)
             ELSE has_table_privilege(session_user, c.oid, p.privilege) END
), excess (place, what) AS (
  SELECT 1, 'is a superuser' FROM login WHERE rolsuper
  UNION ALL
  SELECT 2, 'passes by row-level security (BYPASSRLS)' FROM login WHERE rolbypassrls AND NOT rolsuper
  UNION ALL
  SELECT 3, 'may create roles (CREATEROLE)' FROM login WHERE rolcreaterole AND NOT rolsuper
  UNION ALL
  SELECT 4, 'may copy the whole cluster (REPLICATION)' FROM login WHERE rolreplication AND NOT rolsuper
  UNION ALL
  SELECT 5, 'owns the database'
  FROM login, pg_database d
  WHERE d.datname = current_database() AND d.datdba = login.oid AND NOT login.rolsuper
  UNION ALL
  SELECT 6, 'is a member of ' || r.rolname
  FROM login, pg_roles r
  WHERE NOT login.rolsuper AND r.rolname <> $1 AND r.oid <> login.oid AND pg_has_role(session_user, r.oid, 'MEMBER')
    AND (r.rolsuper OR r.rolbypassrls OR r.rolcreaterole OR r.rolname IN (
      'runlog_owner', 'runlog_ingest', 'runlog_projector', 'runlog_operator', 'runlog_analyst', 'runlog_backup',
      'pg_read_all_data', 'pg_write_all_data', 'pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program'))
  UNION ALL
  SELECT 7, 'may make objects in the schema ' || s.nspname
  FROM login, schemas s
  WHERE NOT login.rolsuper AND has_schema_privilege(session_user, s.oid, 'CREATE')
  UNION ALL
  SELECT 8, 'may ' || string_agg(g.privilege, ', ' ORDER BY g.ord) || ' on ' || g.name
  FROM login, granted g
  WHERE NOT login.rolsuper
    AND (g.privilege IN ('TRUNCATE', 'TRIGGER')
      OR g.is_log AND g.privilege = 'DELETE'
      OR g.name = 'event_log.event' AND g.privilege = 'UPDATE'
      OR CASE $1 WHEN 'runlog_ingest' THEN NOT g.is_log
                 ELSE g.is_log AND g.privilege <> 'SELECT' END)
  GROUP BY g.name
)
SELECT what FROM excess ORDER BY place, what
