-- Sequences are left out: a control that uses one up cannot be rolled back.
-- All that attempts may not change, as rows of (what, how it is): rows of tables as digests, rights, policies, triggers, roles.
SELECT what, how FROM (
  SELECT 'rows of ' || c.oid::regclass::text AS what,
         md5(query_to_xml(format('SELECT * FROM %s AS t ORDER BY t::text', c.oid::regclass), true, false, '')::text) AS how
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'r' AND (n.nspname IN ('event_log', 'read_model', 'public') OR n.nspname ~ '^run_[a-z]+_[0-9]+$')
  UNION ALL
  SELECT 'relation ' || c.oid::regclass::text,
         concat_ws(' ', c.relowner::regrole, c.relacl, c.relrowsecurity, c.relforcerowsecurity, c.reloptions)
  FROM pg_class c WHERE c.relnamespace <> 'pg_toast'::regnamespace AND c.relpersistence <> 't'
  UNION ALL
  SELECT 'schema ' || nspname, concat_ws(' ', nspowner::regrole, nspacl) FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp'
  UNION ALL
  SELECT 'column ' || attrelid::regclass || ' ' || attname, attacl::text FROM pg_attribute WHERE attacl IS NOT NULL
  UNION ALL
  SELECT 'policy ' || polrelid::regclass || ' ' || polname, concat_ws(' ', polcmd, polroles, pg_get_expr(polqual, polrelid)) FROM pg_policy
  UNION ALL
  SELECT 'trigger ' || tgrelid::regclass || ' ' || tgname, concat_ws(' ', tgenabled, tgtype, tgfoid) FROM pg_trigger WHERE NOT tgisinternal
  UNION ALL
  SELECT 'function ' || p.oid::regprocedure, concat_ws(' ', proowner::regrole, proacl, prosecdef, proconfig, md5(pg_get_functiondef(p.oid)))
  FROM pg_proc p WHERE pronamespace::regnamespace::text IN ('event_log', 'read_model', 'public') AND prokind = 'f'
  UNION ALL
  SELECT 'members', string_agg(concat_ws(' in ', member::regrole, roleid::regrole), ', ' ORDER BY member, roleid) FROM pg_auth_members
  WHERE member::regrole::text ~ '^(runlog|test)_'
  UNION ALL
  SELECT 'role ' || rolname, concat_ws(' ', rolsuper, rolbypassrls, rolcreaterole, rolcanlogin) FROM pg_roles
  WHERE rolname ~ '^(runlog|test)_'
) AS state ORDER BY what
