-- Every right, policy and trigger, a line each, for the listing that each change of them must change, too.
WITH named AS (
  SELECT n.oid, n.nspname FROM pg_namespace n WHERE n.nspowner = 'runlog_owner'::regrole
)
SELECT line FROM (
  SELECT format('%s: %s on the schema %s', x.grantee::regrole, string_agg(x.privilege_type, ', ' ORDER BY x.privilege_type), s.nspname) AS line
  FROM named s JOIN pg_namespace n USING (oid), aclexplode(n.nspacl) x WHERE x.grantee NOT IN (0, n.nspowner)
  GROUP BY x.grantee, s.nspname
  UNION ALL
  SELECT format('%s: %s on %s', x.grantee::regrole, string_agg(x.privilege_type, ', ' ORDER BY x.privilege_type), c.oid::regclass)
  FROM named s JOIN pg_class c ON c.relnamespace = s.oid, aclexplode(c.relacl) x WHERE x.grantee NOT IN (0, c.relowner)
  GROUP BY x.grantee, c.oid
  UNION ALL
  SELECT format('%s: %s on %s (%s)', x.grantee::regrole, x.privilege_type, c.oid::regclass, string_agg(a.attname, ', ' ORDER BY a.attname))
  FROM named s JOIN pg_class c ON c.relnamespace = s.oid JOIN pg_attribute a ON a.attrelid = c.oid, aclexplode(a.attacl) x
  GROUP BY x.grantee, x.privilege_type, c.oid
  UNION ALL
  SELECT format('%s: EXECUTE on %s%s', x.grantee::regrole, p.oid::regprocedure, CASE WHEN p.prosecdef THEN ', with the rights of its owner' ELSE '' END)
  FROM named s JOIN pg_proc p ON p.pronamespace = s.oid, aclexplode(p.proacl) x WHERE x.grantee NOT IN (0, p.proowner)
  UNION ALL
  SELECT format('policy %s on %s for %s to %s: %s', p.polname, p.polrelid::regclass,
                CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE' ELSE 'everything' END,
                (SELECT string_agg(r::regrole::text, ', ' ORDER BY r::regrole::text) FROM unnest(p.polroles) r),
                regexp_replace(concat_ws('; check ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)), '\s+', ' ', 'g'))
  FROM named s JOIN pg_class c ON c.relnamespace = s.oid JOIN pg_policy p ON p.polrelid = c.oid
  UNION ALL
  SELECT format('trigger %s on %s%s', t.tgname, t.tgrelid::regclass,
                regexp_replace(pg_get_triggerdef(t.oid), '^.* (BEFORE|AFTER|INSTEAD) (.*) ON .* FOR EACH (.*)$', ': \1 \2 for each \3'))
  FROM named s JOIN pg_class c ON c.relnamespace = s.oid JOIN pg_trigger t ON t.tgrelid = c.oid WHERE NOT t.tgisinternal
) AS lines ORDER BY line COLLATE "C"
