-- Indexes for what analysts ask, in every version of the projections that is kept up to date; and rebuilds that keep the
-- names of the indexes, so that documents, plans and later migrations can name them, and the grants.

CREATE OR REPLACE FUNCTION read_model.begin_rebuild(of_projection text) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
  source text;
  target text;
  next_version integer;
  of_table record;
  of_index record;
  of_grant record;
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
    SELECT c.oid, c.relname, c.reloptions, obj_description(c.oid, 'pg_class') AS comment
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
  RETURN next_version;
END $$;

-- Who was in a state at a time? A stay of a known length that holds the time began at most that length before, so an
-- index by length and start is read only where there is something to find, however long the history.
CREATE FUNCTION read_model.duration_class(duration_ms bigint) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(width_bucket(duration_ms, '{1000, 4000, 16000, 64000, 256000, 1024000, 4096000, 16384000, 65536000,
  262144000, 1048576000, 4194304000, 16777216000, 67108864000, 268435456000, 1073741824000}'::bigint[]), 17);
COMMENT ON FUNCTION read_model.duration_class IS
  'How long a stay lasted: shorter than 1 second (0), than 4, 16, 64 ... 4^15 seconds (1 to 15), longer (16), or without an end (17).';

DO $migration$
DECLARE
  of_version record;
  old_index regclass;
BEGIN
  FOR of_version IN
    SELECT v.projection, read_model.version_schema(v.projection, v.version) AS schema
    FROM read_model.projection_version v WHERE v.state <> 'retired'
  LOOP
    IF of_version.projection = 'run_status' THEN
      EXECUTE format('CREATE INDEX run_current_by_plan ON %I.run_current (tenant_id, plan_id, sort_at DESC, run_id)',
                     of_version.schema);
    ELSIF of_version.projection = 'run_timeline' THEN
      EXECUTE format('CREATE INDEX run_state_interval_at_time ON %I.run_state_interval '
                     '(tenant_id, state, read_model.duration_class(duration_ms), started_at)', of_version.schema);
    END IF;
  END LOOP;
  -- The index by the end, whose work grew with all that ended since. It has its own name in the first version only. Last,
  -- since readers wait from here to the commit.
  FOR old_index IN
    SELECT x.indexrelid::regclass
    FROM read_model.projection_version v
    JOIN pg_index x ON x.indrelid = to_regclass(read_model.version_schema(v.projection, v.version) || '.run_state_interval')
    WHERE v.projection = 'run_timeline' AND v.state <> 'retired'
      AND pg_get_indexdef(x.indexrelid) LIKE '%(tenant_id, state, ended_at, started_at)'
  LOOP
    EXECUTE format('DROP INDEX %s', old_index);
  END LOOP;
END $migration$;

-- OFFSET 0 keeps the lookups of the classes apart: joined, they would be a read of all intervals.
CREATE FUNCTION read_model.runs_in_state(of_tenant_id text, of_state text, at timestamptz)
RETURNS SETOF read_model.run_state_interval
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT i.*
  FROM generate_series(0, 17) AS class
  CROSS JOIN LATERAL (
    SELECT i.* FROM read_model.run_state_interval i
    WHERE i.tenant_id = of_tenant_id AND i.state = of_state AND read_model.duration_class(i.duration_ms) = class
      AND i.started_at <= at AND (i.ended_at > at OR i.ended_at IS NULL)
      AND i.started_at > CASE WHEN class < 16 THEN at - interval '1 second' * 4 ^ class ELSE '-infinity' END
    OFFSET 0) AS i
$$;
COMMENT ON FUNCTION read_model.runs_in_state IS
  'The rows of run_state_interval of a tenant''s runs that were PENDING, RUNNING or PAUSED at a time. The cost does not grow '
  'with the history.';
