-- A projection is kept in versions: each has a schema of its own with all of its tables, so that a new
-- one can be built from the log beside the one that is read. The views in read_model show the live one.

CREATE TABLE read_model.projection_version (
  projection  text COLLATE "C" NOT NULL CHECK (projection ~ '^[a-z][a-z0-9_]{0,39}$'),
  version     integer NOT NULL CHECK (version >= 1),
  state       text COLLATE "C" NOT NULL CHECK (state IN ('building', 'live', 'retired')),
  created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
  live_since  timestamptz,
  retired_at  timestamptz,
  PRIMARY KEY (projection, version)
);
CREATE UNIQUE INDEX projection_version_one_live ON read_model.projection_version (projection)
  WHERE state = 'live';
CREATE UNIQUE INDEX projection_version_one_building ON read_model.projection_version (projection)
  WHERE state = 'building';
COMMENT ON TABLE read_model.projection_version IS
  'The versions of each projection. The tables of one are in the schema that is called after both: run_status_1.';
COMMENT ON COLUMN read_model.projection_version.projection IS 'The projection, e.g. run_status.';
COMMENT ON COLUMN read_model.projection_version.version IS '1, 2, 3 ...; a rebuild makes the next one.';
COMMENT ON COLUMN read_model.projection_version.state IS
  'live: the views of read_model show it. building: it is on its way to that. retired: it was live, and is kept as it was then.';
COMMENT ON COLUMN read_model.projection_version.created_at IS 'When its tables were made.';
COMMENT ON COLUMN read_model.projection_version.live_since IS 'When the views were first moved to it.';
COMMENT ON COLUMN read_model.projection_version.retired_at IS 'When the views were moved on to another one.';

CREATE FUNCTION read_model.version_schema(projection text, version integer) RETURNS text
LANGUAGE sql IMMUTABLE STRICT
RETURN projection || '_' || version;
COMMENT ON FUNCTION read_model.version_schema IS 'The schema that holds the tables of a projection''s version.';

-- The first version of a projection, whose tables the caller makes next, in its schema; then publish().
CREATE FUNCTION read_model.add_projection(of_projection text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO read_model.projection_version (projection, version, state) VALUES (of_projection, 1, 'building');
  EXECUTE format('CREATE SCHEMA %I', read_model.version_schema(of_projection, 1));
  EXECUTE format('COMMENT ON SCHEMA %I IS %L', read_model.version_schema(of_projection, 1),
                 format('Tables of the projection %s, version 1; read them through read_model.', of_projection));
END $$;
COMMENT ON FUNCTION read_model.add_projection IS
  'For migrations: makes the schema of a new projection''s first version. Make its tables there, then publish it.';

-- Moves the public views to a version, all at once. What is read through them changes with this
-- transaction's commit. Waits for every transaction that has read one of the views: set a short
-- lock_timeout and try again, since readers that come later wait behind this one. Refuses (55000) a
-- version that has not come as far as the live one in every stream: readers would see a step back.
CREATE FUNCTION read_model.publish(of_projection text, of_version integer) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
  source text := read_model.version_schema(of_projection, of_version);
  live integer;
  of_table record;
  of_column record;
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
  END LOOP;
END $$;
COMMENT ON FUNCTION read_model.publish IS
  'Moves the views of read_model to a version of a projection, and makes it the live one.';

-- A new version beside the live one, with the same tables, empty. Returns its number.
CREATE FUNCTION read_model.begin_rebuild(of_projection text) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
  source text;
  target text;
  next_version integer;
  of_table record;
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
  FOR of_table IN
    SELECT c.relname, c.reloptions, obj_description(c.oid, 'pg_class') AS comment
    FROM pg_class c
    WHERE c.relnamespace = source::regnamespace AND c.relkind = 'r'
    ORDER BY c.relname
  LOOP
    EXECUTE format('CREATE TABLE %I.%I (LIKE %I.%I INCLUDING ALL)%s', target, of_table.relname, source, of_table.relname,
                   ' WITH (' || array_to_string(of_table.reloptions, ', ') || ')');
    EXECUTE format('COMMENT ON TABLE %I.%I IS %L', target, of_table.relname, of_table.comment);
  END LOOP;
  RETURN next_version;
END $$;
COMMENT ON FUNCTION read_model.begin_rebuild IS
  'Makes the tables of a projection''s next version, which the projectors then fill from the log. Returns its number.';

-- Removes a version that is not live, with its tables and checkpoints.
CREATE FUNCTION read_model.drop_version(of_projection text, of_version integer) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM read_model.projection_version v
  WHERE v.projection = of_projection AND v.version = of_version AND v.state <> 'live';
  IF NOT FOUND THEN
    RAISE EXCEPTION 'the projection % has no version % that is not live', of_projection, of_version;
  END IF;
  -- Whoever is in the middle of a batch holds its checkpoint, and is waited for.
  DELETE FROM read_model.projection_checkpoint c
  WHERE c.projection = of_projection AND c.version = of_version;
  EXECUTE format('DROP SCHEMA %I CASCADE', read_model.version_schema(of_projection, of_version));
END $$;
COMMENT ON FUNCTION read_model.drop_version IS
  'Removes a version of a projection that is not live: its tables, its checkpoints and its schema.';

SELECT read_model.add_projection('run_status');
ALTER TABLE read_model.run_current SET SCHEMA run_status_1;
ALTER TABLE read_model.step_attempt SET SCHEMA run_status_1;
ALTER TABLE read_model.run_inconsistency SET SCHEMA run_status_1;
SELECT read_model.publish('run_status', 1);

ALTER TABLE read_model.projection_checkpoint
  ADD COLUMN version integer NOT NULL DEFAULT 1,
  DROP CONSTRAINT projection_checkpoint_pkey,
  DROP CONSTRAINT projection_checkpoint_projection_topic_partition_generation_key,
  ADD PRIMARY KEY (projection, version, stream_id),
  ADD UNIQUE (projection, version, topic, partition, generation);
COMMENT ON TABLE read_model.projection_checkpoint IS
  'One row per version of a projection and stream: the offset it has come to, and the lease of the process that works on it.';
COMMENT ON COLUMN read_model.projection_checkpoint.version IS 'The projection''s version.';

CREATE OR REPLACE VIEW read_model.projection_checkpoints AS
SELECT c.projection, c.topic, c.partition, c.generation, c.next_offset, c.applied, c.owner, c.lease_expires_at,
       c.finished_at, c.updated_at, c.version, v.state
FROM read_model.projection_checkpoint c
JOIN read_model.projection_version v USING (projection, version);
COMMENT ON VIEW read_model.projection_checkpoints IS
  'How far each version of each projection has read each stream of the log.';
COMMENT ON COLUMN read_model.projection_checkpoints.version IS 'The projection''s version.';
COMMENT ON COLUMN read_model.projection_checkpoints.state IS
  'live: the views of read_model show this version. building: a rebuild. retired: read no further.';
