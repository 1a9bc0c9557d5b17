-- What is wrong with roles, rights and policies, as the catalogue has them: no row, or each fault in a sentence.
-- Every schema but the system's is looked at, so that a table of a migration to come is, too.
WITH relation AS (
  SELECT c.*, c.oid::regclass::text AS name, n.nspname,
         EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped) AS of_tenants
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname !~ '^(pg_|information_schema$)'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
), routine AS (
  SELECT p.*, p.oid::regprocedure::text AS name
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE n.nspname !~ '^(pg_|information_schema$)'
    AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
), fault (what) AS (
  SELECT name || ' has a tenant_id, and no row-level security that is enabled and forced'
  FROM relation WHERE relkind IN ('r', 'p') AND (of_tenants OR name = 'event_log.stream')
    AND NOT (relrowsecurity AND relforcerowsecurity)
  UNION ALL
  SELECT name || ' has a tenant_id, and no policy own_tenants for analysts that asks for my_tenants() once per statement'
  FROM relation r WHERE relkind IN ('r', 'p') AND of_tenants
    AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = r.oid AND p.polname = 'own_tenants' AND p.polcmd = 'r'
      AND p.polroles = ARRAY['runlog_analyst'::regrole::oid]
      AND pg_get_expr(p.polqual, p.polrelid) = '(tenant_id = ANY (( SELECT event_log.my_tenants() AS my_tenants)::text[]))')
  UNION ALL
  SELECT r.name || ' has a further policy for analysts or for everybody: ' || p.polname
  FROM relation r JOIN pg_policy p ON p.polrelid = r.oid
  WHERE p.polpermissive AND p.polroles && ARRAY[0, 'runlog_analyst'::regrole::oid]
    AND NOT (p.polname = 'own_tenants' AND of_tenants)
    AND NOT (p.polname = 'own_streams' AND r.name = 'event_log.stream' AND pg_get_expr(p.polqual, p.polrelid)
      = E'(stream_id IN ( SELECT t.stream_id\n   FROM event_log.stream_tenant t))')
  UNION ALL
  SELECT 'event_log.stream shows analysts no streams' WHERE NOT EXISTS (
    SELECT FROM pg_policy WHERE polrelid = 'event_log.stream'::regclass AND polname = 'own_streams')
  UNION ALL
  SELECT r.name || ' has row-level security and no policy for the programs'
  FROM relation r WHERE relrowsecurity AND NOT EXISTS (
    SELECT FROM pg_policy p WHERE p.polrelid = r.oid AND p.polname IN ('every_tenant', 'every_stream')
      AND pg_get_expr(p.polqual, p.polrelid) = 'true')
  UNION ALL
  SELECT name || ' belongs to ' || relowner::regrole || ', not to runlog_owner'
  FROM relation WHERE relowner <> 'runlog_owner'::regrole AND name NOT LIKE '\_sqlx\_migrations%'
  UNION ALL
  SELECT 'the schema ' || nspname || ' belongs to ' || nspowner::regrole || ', not to runlog_owner'
  FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema$|public$)' AND nspowner <> 'runlog_owner'::regrole
  UNION ALL
  SELECT name || ' belongs to ' || proowner::regrole || ', not to runlog_owner'
  FROM routine WHERE proowner <> 'runlog_owner'::regrole
  UNION ALL
  SELECT name || ' may be executed by everybody'
  FROM routine WHERE EXISTS (
    SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) x WHERE x.grantee = 0)
  UNION ALL
  SELECT name || ' runs with its owner''s rights, and not with the search path pg_catalog, pg_temp'
  FROM routine WHERE prosecdef AND NOT coalesce(proconfig, '{}') @> ARRAY['search_path=pg_catalog, pg_temp']
  UNION ALL
  SELECT 'the view ' || name || ' reads with its owner''s rights: it is not security_invoker'
  FROM relation WHERE relkind = 'v' AND NOT coalesce(reloptions, '{}') @> ARRAY['security_invoker=true']
  UNION ALL
  SELECT name || ' is of a kind that row-level security does not hold for (' || relkind::text || ')'
  FROM relation WHERE relkind IN ('m', 'f', 'p')
  UNION ALL
  SELECT name || ' is a child of another table, which row-level security and its triggers are not inherited by'
  FROM relation r WHERE EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = r.oid)
  UNION ALL
  SELECT 'the trigger ' || t.tgname || ' of ' || r.name || ' is not ENABLE ALWAYS: a replication session passes it by'
  FROM relation r JOIN pg_trigger t ON t.tgrelid = r.oid WHERE NOT t.tgisinternal AND t.tgenabled <> 'A'
  UNION ALL
  SELECT 'everybody has ' || x.privilege_type || ' on ' || r.name
  FROM relation r, aclexplode(r.relacl) x WHERE x.grantee = 0
  UNION ALL
  SELECT 'everybody has ' || x.privilege_type || ' on the schema ' || n.nspname
  FROM pg_namespace n, aclexplode(n.nspacl) x
  WHERE x.grantee = 0 AND n.nspname !~ '^(pg_|information_schema$)' AND NOT (n.nspname = 'public' AND x.privilege_type = 'USAGE')
  UNION ALL
  SELECT 'the role ' || rolname || ' can log in, or more'
  FROM pg_roles WHERE rolname ~ '^runlog_(owner|ingest|projector|operator|analyst|backup)$'
    AND (rolcanlogin OR rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication)
  UNION ALL
  SELECT 'the role ' || m.member::regrole || ' is a member of ' || m.roleid::regrole
  FROM pg_auth_members m WHERE m.member::regrole::text ~ '^runlog_(owner|ingest|projector|operator|analyst|backup)$'
)
SELECT what FROM fault ORDER BY what
