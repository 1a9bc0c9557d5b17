-- Who sees which tenants' rows. $1 = only this login, $2 = only this tenant. Locks: none.
SELECT m.login, m.tenant_id, m.granted_at, m.granted_by,
       coalesce(r.rolcanlogin AND pg_has_role(r.oid, 'runlog_analyst', 'USAGE'), false) AS is_analyst
FROM event_log.tenant_member m
LEFT JOIN pg_roles r ON r.rolname = m.login
WHERE ($1::text IS NULL OR m.login = $1) AND ($2::text IS NULL OR m.tenant_id = $2)
ORDER BY m.login, m.tenant_id
