-- For development: a login for each role of a migrated database (dev_ingest, dev_projector, dev_operator, dev_analyst,
-- dev_backup), all with one password:  psql -v password=... <dev/logins.sql
SELECT format('CREATE ROLE %I LOGIN IN ROLE %I', 'dev_' || name, 'runlog_' || name)
FROM unnest('{ingest,projector,operator,analyst,backup}'::text[]) AS name
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'dev_' || name) \gexec
SELECT format('ALTER ROLE %I PASSWORD %L', 'dev_' || name, :'password')
FROM unnest('{ingest,projector,operator,analyst,backup}'::text[]) AS name \gexec
