-- Roles, grants and row-level security: who may do what is a property of the database. docs/security.md is its manual.
--
-- Run by a superuser, or by the login that owns the database and may create roles (or finds them made, and is a member
-- of runlog_owner). Migrations after this one begin with SET LOCAL ROLE runlog_owner and end with RESET ROLE, so that what
-- they make belongs to the owner; the owner itself is subject to the policies, so a migration that changes rows of a tenant's
-- table needs a policy for that, and asserts how many rows it touched.

-- Roles are the cluster's, not the database's: another database of it may have made them, or be making them now.
DO $migration$
DECLARE
  role record;
BEGIN
  FOR role IN
    SELECT * FROM (VALUES
      ('runlog_owner', 'Owns the objects of Runlog. Nobody logs in as it; migrations act as it.'),
      ('runlog_ingest', 'Runlog: appends events, keeps offsets. For the logins of runlog-ingest.'),
      ('runlog_projector', 'Runlog: reads the log, writes read models. For the logins of runlog-projectors.'),
      ('runlog_operator', 'Runlog: reads all tenants, does audited acts. For the people on call.'),
      ('runlog_analyst', 'Runlog: reads its own tenants. For people and tools that ask in SQL.'),
      ('runlog_backup', 'Runlog: reads everything. For pg_dump --enable-row-security.')
    ) AS roles (name, comment)
    WHERE NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = roles.name)
  LOOP
    BEGIN
      EXECUTE format('CREATE ROLE %I NOLOGIN', role.name);
      EXECUTE format('COMMENT ON ROLE %I IS %L', role.name, role.comment);
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL; -- made by the migration of another database at this moment
    END;
  END LOOP;
  IF NOT pg_has_role(current_user, 'runlog_owner', 'USAGE') THEN
    BEGIN
      EXECUTE format('GRANT runlog_owner TO %I', current_user);
    EXCEPTION WHEN unique_violation THEN
      NULL; -- granted by the migration of another database at this moment
    END;
  END IF;
  -- For the schemas of rebuilds.
  EXECUTE format('GRANT CREATE ON DATABASE %I TO runlog_owner', current_database());
END $migration$;

-- Everything made so far becomes the owner's.
DO $migration$
DECLARE
  statement text;
BEGIN
  FOREACH statement IN ARRAY ARRAY(
    WITH schemas AS (
      SELECT n.oid, n.nspname FROM pg_namespace n
      WHERE n.nspname IN ('event_log', 'read_model')
        OR n.nspname IN (SELECT read_model.version_schema(projection, version) FROM read_model.projection_version)
    )
    SELECT format('ALTER SCHEMA %I OWNER TO runlog_owner', nspname) FROM schemas
    UNION ALL
    SELECT format('ALTER %s %I.%I OWNER TO runlog_owner', CASE c.relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END, s.nspname, c.relname)
    FROM pg_class c JOIN schemas s ON s.oid = c.relnamespace WHERE c.relkind IN ('r', 'v')
    UNION ALL
    SELECT format('ALTER ROUTINE %s OWNER TO runlog_owner', p.oid::regprocedure)
    FROM pg_proc p JOIN schemas s ON s.oid = p.pronamespace)
  LOOP
    EXECUTE statement;
  END LOOP;
END $migration$;

SET LOCAL ROLE runlog_owner;

-- ---------------------------------------------------------------- tenants

CREATE TABLE event_log.tenant_member (
  login      text COLLATE "C" NOT NULL,
  tenant_id  text COLLATE "C" NOT NULL CHECK (octet_length(tenant_id) BETWEEN 1 AND 256),
  granted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  granted_by text COLLATE "C" NOT NULL DEFAULT session_user,
  PRIMARY KEY (login, tenant_id)
);
COMMENT ON TABLE event_log.tenant_member IS
  'Which tenants'' rows the login of an analyst sees. Changed by grant_tenant and revoke_tenant only (runlog tenant).';
COMMENT ON COLUMN event_log.tenant_member.login IS 'The database login (session_user), a member of runlog_analyst.';
COMMENT ON COLUMN event_log.tenant_member.tenant_id IS 'The tenant whose rows it sees; one without any rows may be granted too.';
COMMENT ON COLUMN event_log.tenant_member.granted_at IS 'Since when.';
COMMENT ON COLUMN event_log.tenant_member.granted_by IS 'The login that granted it.';

-- By session_user, which SET ROLE and functions of the owner leave as it is, and not by a setting that a session could
-- change. Policies ask for it as (SELECT event_log.my_tenants()): once per statement.
-- In PL/pgSQL, which plans it once per session: in SQL it was planned with every statement, and cost four times as much.
CREATE FUNCTION event_log.my_tenants() RETURNS text[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  RETURN (SELECT coalesce(array_agg(m.tenant_id), '{}') FROM event_log.tenant_member m WHERE m.login = session_user::text);
END $$;
COMMENT ON FUNCTION event_log.my_tenants IS 'The tenants whose rows this session''s login sees, where it is an analyst''s.';

-- Which tenants have something in which stream: an analyst may know the topics that its own events came through, and no others.
CREATE TABLE event_log.stream_tenant (
  stream_id bigint NOT NULL,
  tenant_id text COLLATE "C" NOT NULL,
  PRIMARY KEY (stream_id, tenant_id)
);
COMMENT ON TABLE event_log.stream_tenant IS
  'Which tenants have events or dead letters in which stream. Written by ingest with the first of them.';
COMMENT ON COLUMN event_log.stream_tenant.stream_id IS 'The topic, partition and generation.';
COMMENT ON COLUMN event_log.stream_tenant.tenant_id IS 'The tenant.';
INSERT INTO event_log.stream_tenant (stream_id, tenant_id)
SELECT stream_id, tenant_id FROM event_log.event
UNION
SELECT stream_id, tenant_id FROM event_log.dead_letter WHERE tenant_id IS NOT NULL;

-- ---------------------------------------------------------------- row-level security

-- Programs see the rows of all tenants, and their grants say what they may do with them; analysts see their own tenants'.
-- FORCE: the owner sees none, unless a policy for its functions says otherwise.
CREATE FUNCTION event_log.secure_table(of_table regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', of_table);
  EXECUTE format('CREATE POLICY every_tenant ON %s TO runlog_ingest, runlog_projector, runlog_operator, runlog_backup '
                 'USING (true) WITH CHECK (true)', of_table);
  EXECUTE format('CREATE POLICY own_tenants ON %s FOR SELECT TO runlog_analyst '
                 'USING (tenant_id = ANY ((SELECT event_log.my_tenants())::text[]))', of_table);
END $$;
COMMENT ON FUNCTION event_log.secure_table IS
  'For migrations: row-level security for a table with a tenant_id. Grants are the migration''s own.';

SELECT event_log.secure_table(t) FROM unnest(ARRAY[
  'event_log.run', 'event_log.event', 'event_log.dead_letter', 'event_log.tenant_member', 'event_log.stream_tenant',
  'read_model.parked_run']::regclass[]) AS t;

CREATE POLICY functions_of_the_owner ON event_log.tenant_member TO runlog_owner USING (true) WITH CHECK (true);

-- No tenant_id, but a tenant's all the same: topic names. stream_tenant shows an analyst its own tenants' rows.
ALTER TABLE event_log.stream ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY every_stream ON event_log.stream TO runlog_ingest, runlog_projector, runlog_operator, runlog_backup
  USING (true) WITH CHECK (true);
CREATE POLICY own_streams ON event_log.stream FOR SELECT TO runlog_analyst
  USING (stream_id IN (SELECT t.stream_id FROM event_log.stream_tenant t));
CREATE POLICY functions_of_the_owner ON event_log.stream TO runlog_owner USING (true) WITH CHECK (true);

-- ---------------------------------------------------------------- views

CREATE OR REPLACE VIEW event_log.run_events WITH (security_invoker = true) AS
SELECT r.tenant_id, r.run_id, e.run_seq, e.event_id, e.event_type,
       encode(e.idempotency_key, 'hex') AS idempotency_key,
       e.project_id, e.environment_id, e.plan_id, e.plan_version,
       e.engine_attempt_id, e.logical_attempt_id, e.step_id,
       e.emitted_at, e.persisted_at, e.payload,
       s.topic, s.partition, e.source_offset
FROM event_log.event e
JOIN event_log.run r USING (run_no)
LEFT JOIN event_log.stream s USING (stream_id);

CREATE OR REPLACE VIEW event_log.dead_letters WITH (security_invoker = true) AS
SELECT d.dead_letter_id, s.topic, s.partition, d.source_offset, d.tenant_id, d.run_id,
       d.reason, d.detail, d.key, d.value, d.headers, d.received_at, d.status
FROM event_log.dead_letter d
LEFT JOIN event_log.stream s USING (stream_id);

ALTER VIEW event_log.streams SET (security_invoker = true);
ALTER VIEW read_model.projection_checkpoints SET (security_invoker = true);

-- ---------------------------------------------------------------- grants

REVOKE ALL ON ALL TABLES IN SCHEMA event_log, read_model FROM PUBLIC;
REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA event_log, read_model FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON ROUTINES FROM PUBLIC;

GRANT USAGE ON SCHEMA event_log TO runlog_ingest, runlog_projector, runlog_operator, runlog_analyst, runlog_backup;
GRANT USAGE ON SCHEMA read_model TO runlog_projector, runlog_operator, runlog_analyst, runlog_backup;

-- Ingest: adds rows and advances streams.
GRANT SELECT, INSERT ON event_log.event, event_log.stream_tenant TO runlog_ingest;
GRANT SELECT, INSERT (tenant_id, run_id) ON event_log.run TO runlog_ingest;
-- To lock runs (SELECT ... FOR UPDATE). A trigger refuses every change of it, and GENERATED ALWAYS every value.
GRANT UPDATE (run_no) ON event_log.run TO runlog_ingest;
GRANT INSERT, SELECT (stream_id, source_offset, tenant_id, run_id, reason, detail, received_at, status)
  ON event_log.dead_letter TO runlog_ingest;
GRANT SELECT, INSERT (topic, partition, generation, group_id, start_offset, next_offset, owner, claim, topic_id),
  UPDATE (claim, owner, next_offset, appended, duplicates, dead_lettered, skipped, last_record_offset, last_record_digest,
          last_persisted_at, topic_id, halted_code, halted_reason, halted_at, updated_at)
  ON event_log.stream TO runlog_ingest;

-- Projectors: read the log, write the read models.
GRANT SELECT ON event_log.event, event_log.run, event_log.stream TO runlog_projector;
GRANT SELECT ON read_model.projection_version TO runlog_projector;
GRANT SELECT, INSERT, UPDATE, DELETE ON read_model.projection_checkpoint, read_model.projection_worker, read_model.parked_run
  TO runlog_projector;

-- Operators: read everything; what they change, audited functions of the owner change.
GRANT SELECT ON ALL TABLES IN SCHEMA event_log, read_model TO runlog_operator;
-- To lock a stream (SELECT ... FOR UPDATE) while an operator's act is checked; it says no more than when the row changed.
GRANT UPDATE (updated_at) ON event_log.stream TO runlog_operator;
GRANT UPDATE (released_at) ON read_model.parked_run TO runlog_operator;

-- Analysts: the views, and of the tables behind them the columns that the views show.
GRANT SELECT ON event_log.run_events, event_log.dead_letters TO runlog_analyst;
GRANT SELECT ON event_log.run, event_log.stream_tenant TO runlog_analyst;
GRANT SELECT (stream_id, topic, partition) ON event_log.stream TO runlog_analyst;
GRANT SELECT (run_no, run_seq, stream_id, source_offset, emitted_at, persisted_at, event_id, engine_attempt_id,
              logical_attempt_id, idempotency_key, tenant_id, event_type, project_id, environment_id, plan_id, plan_version,
              step_id, payload) ON event_log.event TO runlog_analyst;
GRANT SELECT (dead_letter_id, stream_id, source_offset, tenant_id, run_id, reason, detail, key, value, headers, received_at,
              status) ON event_log.dead_letter TO runlog_analyst;

-- Backups: everything, to read.
GRANT SELECT ON ALL TABLES IN SCHEMA event_log, read_model TO runlog_backup;
GRANT SELECT ON ALL SEQUENCES IN SCHEMA event_log, read_model TO runlog_backup;

GRANT EXECUTE ON FUNCTION event_log.my_tenants() TO runlog_analyst, runlog_operator;
-- What rows and indexes are computed with, and what people compute with.
GRANT EXECUTE ON FUNCTION read_model.version_schema(text, integer), read_model.duration_class(bigint),
  read_model.bucket_start(integer), read_model.merge(bigint[], bigint[]), read_model.quantile(bigint[], double precision),
  read_model.buckets(bigint[]), read_model.runs_in_state(text, text, timestamptz)
  TO runlog_projector, runlog_operator, runlog_analyst, runlog_backup;
GRANT EXECUTE ON ROUTINE read_model.merge(bigint[]) TO runlog_projector, runlog_operator, runlog_analyst, runlog_backup;

-- ---------------------------------------------------------------- versions of projections

-- The tables of a version: projectors write them, others read them, each through the policies. The owner's functions
-- rewrite rows of runs in them, for the acts of operators (retention, erasure).
CREATE FUNCTION read_model.secure_version(of_schema text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  of_table record;
BEGIN
  EXECUTE format('GRANT USAGE ON SCHEMA %I TO runlog_projector, runlog_operator, runlog_analyst, runlog_backup', of_schema);
  FOR of_table IN
    SELECT c.oid, c.oid::regclass AS name, c.relrowsecurity AS is_secure,
           EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped) AS of_tenants
    FROM pg_class c WHERE c.relnamespace = of_schema::regnamespace AND c.relkind = 'r'
  LOOP
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO runlog_projector', of_table.name);
    EXECUTE format('GRANT SELECT ON %s TO runlog_operator, runlog_backup', of_table.name);
    IF of_table.of_tenants THEN
      EXECUTE format('GRANT SELECT ON %s TO runlog_analyst', of_table.name);
      IF NOT of_table.is_secure THEN
        PERFORM event_log.secure_table(of_table.name);
      END IF;
      IF NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = of_table.oid AND p.polname = 'acts_of_operators') THEN
        EXECUTE format('CREATE POLICY acts_of_operators ON %s TO runlog_owner USING (true) WITH CHECK (true)', of_table.name);
      END IF;
    END IF;
  END LOOP;
END $$;
COMMENT ON FUNCTION read_model.secure_version IS
  'Grants and row-level security for the tables of a version; publish() and begin_rebuild() do it.';

CREATE OR REPLACE FUNCTION read_model.publish(of_projection text, of_version integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  source text := read_model.version_schema(of_projection, of_version);
  live integer;
  of_table record;
  of_column record;
  of_grantee text;
BEGIN
  SELECT v.version INTO live FROM read_model.projection_version v
  WHERE v.projection = of_projection AND v.state = 'live' AND v.version <> of_version;
  IF live IS NOT NULL THEN
    -- From here to the commit the live version stands still.
    PERFORM FROM read_model.projection_checkpoint c
    WHERE c.projection = of_projection AND c.version = live ORDER BY c.stream_id FOR UPDATE;
    IF EXISTS (
      SELECT FROM read_model.projection_checkpoint c
      LEFT JOIN read_model.projection_checkpoint n
        ON n.projection = c.projection AND n.stream_id = c.stream_id AND n.version = of_version
      WHERE c.projection = of_projection AND c.version = live AND coalesce(n.next_offset, -1) < c.next_offset
    ) THEN
      RAISE EXCEPTION 'version % of % is behind version %, which is live', of_version, of_projection, live
        USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
  END IF;
  UPDATE read_model.projection_version v SET state = 'retired', retired_at = clock_timestamp()
  WHERE v.projection = of_projection AND v.state = 'live' AND v.version <> of_version;
  UPDATE read_model.projection_version v
  SET state = 'live', live_since = coalesce(v.live_since, clock_timestamp()), retired_at = NULL
  WHERE v.projection = of_projection AND v.version = of_version AND v.state IN ('building', 'live');
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the projection % has no version % that is being built', of_projection, of_version;
  END IF;
  PERFORM read_model.secure_version(source);
  FOR of_table IN
    SELECT c.oid, c.relname, obj_description(c.oid, 'pg_class') AS comment,
           string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum) AS columns
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relnamespace = source::regnamespace AND c.relkind = 'r'
    GROUP BY c.oid, c.relname
    ORDER BY c.relname
  LOOP
    EXECUTE format('CREATE OR REPLACE VIEW read_model.%I WITH (security_invoker = true) AS SELECT %s FROM %I.%I',
                   of_table.relname, of_table.columns, source, of_table.relname);
    EXECUTE format('COMMENT ON VIEW read_model.%I IS %L', of_table.relname, of_table.comment);
    FOR of_column IN
      SELECT a.attname, col_description(a.attrelid, a.attnum) AS comment
      FROM pg_attribute a WHERE a.attrelid = of_table.oid AND a.attnum > 0 AND NOT a.attisdropped
    LOOP
      EXECUTE format('COMMENT ON COLUMN read_model.%I.%I IS %L', of_table.relname, of_column.attname, of_column.comment);
    END LOOP;
    -- Who may read the table may read it by its public name.
    FOR of_grantee IN
      SELECT CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE x.grantee::regrole::text END
      FROM pg_class c, aclexplode(c.relacl) x
      WHERE c.oid = of_table.oid AND x.privilege_type = 'SELECT' AND x.grantee <> c.relowner
    LOOP
      EXECUTE format('GRANT SELECT ON read_model.%I TO %s', of_table.relname, of_grantee);
    END LOOP;
  END LOOP;
END $$;

CREATE OR REPLACE FUNCTION read_model.begin_rebuild(of_projection text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  source text;
  target text;
  next_version integer;
  of_table record;
  of_index record;
  of_grant record;
  of_policy record;
BEGIN
  SELECT read_model.version_schema(v.projection, v.version) INTO source
  FROM read_model.projection_version v WHERE v.projection = of_projection AND v.state = 'live';
  IF source IS NULL THEN
    RAISE EXCEPTION 'there is no projection % that is live', of_projection;
  END IF;
  SELECT max(v.version) + 1 INTO next_version
  FROM read_model.projection_version v WHERE v.projection = of_projection;
  target := read_model.version_schema(of_projection, next_version);
  INSERT INTO read_model.projection_version (projection, version, state)
  VALUES (of_projection, next_version, 'building');
  EXECUTE format('CREATE SCHEMA %I', target);
  EXECUTE format('COMMENT ON SCHEMA %I IS %L', target,
                 format('Tables of the projection %s, version %s; read them through read_model.', of_projection, next_version));
  -- A public view reads with the rights of who asks: they need them on the new version too.
  FOR of_grant IN
    SELECT x.privilege_type, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE x.grantee::regrole::text END AS grantee
    FROM pg_namespace n, aclexplode(n.nspacl) x WHERE n.oid = source::regnamespace AND x.grantee <> n.nspowner
  LOOP
    EXECUTE format('GRANT %s ON SCHEMA %I TO %s', of_grant.privilege_type, target, of_grant.grantee);
  END LOOP;
  FOR of_table IN
    SELECT c.oid, c.relname, c.reloptions, c.relrowsecurity, obj_description(c.oid, 'pg_class') AS comment
    FROM pg_class c
    WHERE c.relnamespace = source::regnamespace AND c.relkind = 'r'
    ORDER BY c.relname
  LOOP
    EXECUTE format('CREATE TABLE %I.%I (LIKE %I.%I INCLUDING ALL EXCLUDING INDEXES)%s',
                   target, of_table.relname, source, of_table.relname,
                   ' WITH (' || array_to_string(of_table.reloptions, ', ') || ')');
    EXECUTE format('COMMENT ON TABLE %I.%I IS %L', target, of_table.relname, of_table.comment);
    FOR of_grant IN
      SELECT x.privilege_type, CASE x.grantee WHEN 0 THEN 'PUBLIC' ELSE x.grantee::regrole::text END AS grantee
      FROM pg_class c, aclexplode(c.relacl) x WHERE c.oid = of_table.oid AND x.grantee <> c.relowner
    LOOP
      EXECUTE format('GRANT %s ON %I.%I TO %s', of_grant.privilege_type, target, of_table.relname, of_grant.grantee);
    END LOOP;
    IF of_table.relrowsecurity THEN
      EXECUTE format('ALTER TABLE %I.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', target, of_table.relname);
      FOR of_policy IN
        SELECT p.policyname, p.permissive, p.cmd, p.qual, p.with_check,
               (SELECT string_agg(CASE r WHEN 'public' THEN 'PUBLIC' ELSE quote_ident(r) END, ', ') FROM unnest(p.roles) r) AS roles
        FROM pg_policies p WHERE p.schemaname = source AND p.tablename = of_table.relname
      LOOP
        EXECUTE format('CREATE POLICY %I ON %I.%I AS %s FOR %s TO %s', of_policy.policyname, target, of_table.relname,
                       of_policy.permissive, of_policy.cmd, of_policy.roles)
          || coalesce(' USING (' || of_policy.qual || ')', '') || coalesce(' WITH CHECK (' || of_policy.with_check || ')', '');
      END LOOP;
    END IF;
    -- LIKE would copy them under names of its own.
    FOR of_index IN
      SELECT i.relname, n.conname, pg_get_constraintdef(n.oid) AS of_constraint,
             replace(pg_get_indexdef(i.oid), format(' ON %I.', source), format(' ON %I.', target)) AS definition
      FROM pg_index x
      JOIN pg_class i ON i.oid = x.indexrelid
      LEFT JOIN pg_constraint n ON n.conindid = i.oid AND n.conrelid = x.indrelid AND n.contype IN ('p', 'u', 'x')
      WHERE x.indrelid = of_table.oid
      ORDER BY i.relname
    LOOP
      IF of_index.conname IS NULL THEN
        EXECUTE of_index.definition;
      ELSE
        EXECUTE format('ALTER TABLE %I.%I ADD CONSTRAINT %I %s',
                       target, of_table.relname, of_index.conname, of_index.of_constraint);
      END IF;
    END LOOP;
  END LOOP;
  PERFORM read_model.secure_version(target);
  RETURN next_version;
END $$;

ALTER FUNCTION read_model.drop_version(text, integer) SECURITY DEFINER SET search_path = pg_catalog, pg_temp;
GRANT EXECUTE ON FUNCTION read_model.begin_rebuild(text), read_model.publish(text, integer), read_model.drop_version(text, integer)
  TO runlog_operator;

SELECT read_model.secure_version(schema)
FROM unnest(ARRAY(SELECT read_model.version_schema(v.projection, v.version) FROM read_model.projection_version v)) AS schema;
-- The views of the versions that are live are granted with them.
DO $migration$
DECLARE
  of_version read_model.projection_version;
BEGIN
  FOREACH of_version IN ARRAY ARRAY(SELECT v FROM read_model.projection_version v WHERE v.state = 'live') LOOP
    PERFORM read_model.publish(of_version.projection, of_version.version);
  END LOOP;
END $migration$;

-- ---------------------------------------------------------------- acts

-- Closes a generation, opens the next one, and keeps who did it and why: one statement, so that none of the three is ever
-- there without the others. The caller has locked the row and checked it (crates/event-log/src/generation.rs).
-- Of the old row stay the consumer group, and last_persisted_at, so that persisted_at never falls within a partition. The
-- claim goes, which fences whoever reads now; so does what a recreated topic is recognised by (topic_id, last_record_*), since
-- the reading may go on in a new one.
CREATE FUNCTION event_log.open_generation(after_stream_id bigint, at_offset bigint, by_operator text, act text, why text,
  OUT opened_generation integer, OUT kept_as bigint)
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  WITH closed AS (
    UPDATE event_log.stream
    SET closed_at = clock_timestamp(), updated_at = clock_timestamp()
    WHERE stream_id = after_stream_id AND closed_at IS NULL AND act IN ('stream.resume', 'stream.rewind')
    RETURNING *
  ), opened AS (
    INSERT INTO event_log.stream (topic, partition, generation, group_id, start_offset, next_offset, last_persisted_at)
    SELECT topic, partition, generation + 1, group_id, at_offset, at_offset, last_persisted_at
    FROM closed
    RETURNING generation
  ), audited AS (
    INSERT INTO event_log.audit (operator, action, subject, reason, detail)
    SELECT by_operator, act, closed.topic || '/' || closed.partition, why,
           jsonb_build_object(
             'closed_generation', closed.generation,
             'opened_generation', opened.generation,
             'next_offset', closed.next_offset,
             'start_offset', at_offset,
             'halted_code', closed.halted_code,
             'halted_reason', closed.halted_reason)
    FROM closed, opened
    RETURNING audit_id
  )
  SELECT opened.generation, audited.audit_id FROM opened, audited
$$;
COMMENT ON FUNCTION event_log.open_generation IS
  'Closes an open generation of a partition and opens the next one at an offset, audited. NULL where it was closed before.';

-- One audited change of the membership; false = it was so already.
CREATE FUNCTION event_log.grant_tenant(to_login text, of_tenant text, by_operator text, why text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = to_login AND r.rolcanlogin) THEN
    RAISE EXCEPTION 'there is no login %', to_login
      USING ERRCODE = 'undefined_object', HINT = 'Make it first: CREATE ROLE ... LOGIN IN ROLE runlog_analyst.';
  END IF;
  IF NOT pg_has_role(to_login, 'runlog_analyst', 'MEMBER') THEN
    RAISE EXCEPTION 'the login % is not a member of runlog_analyst', to_login
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = format('GRANT runlog_analyst TO %I;', to_login);
  END IF;
  INSERT INTO event_log.tenant_member (login, tenant_id) VALUES (to_login, of_tenant) ON CONFLICT DO NOTHING;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  INSERT INTO event_log.audit (operator, action, subject, detail, reason)
  VALUES (by_operator, 'tenant.grant', to_login, jsonb_build_object('tenant_id', of_tenant), why);
  RETURN true;
END $$;
COMMENT ON FUNCTION event_log.grant_tenant IS 'Lets an analyst''s login see a tenant''s rows; audited. false = it does already.';

CREATE FUNCTION event_log.revoke_tenant(from_login text, of_tenant text, by_operator text, why text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  DELETE FROM event_log.tenant_member m WHERE m.login = from_login AND m.tenant_id = of_tenant;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  INSERT INTO event_log.audit (operator, action, subject, detail, reason)
  VALUES (by_operator, 'tenant.revoke', from_login, jsonb_build_object('tenant_id', of_tenant), why);
  RETURN true;
END $$;
COMMENT ON FUNCTION event_log.revoke_tenant IS 'No longer lets a login see a tenant''s rows; audited. false = it did not.';

GRANT EXECUTE ON FUNCTION event_log.open_generation(bigint, bigint, text, text, text),
  event_log.grant_tenant(text, text, text, text), event_log.revoke_tenant(text, text, text, text)
  TO runlog_operator;

RESET ROLE;

-- Every program looks at the schema's version when it starts; a backup holds it too.
GRANT SELECT ON _sqlx_migrations TO runlog_ingest, runlog_projector, runlog_operator, runlog_analyst, runlog_backup;
