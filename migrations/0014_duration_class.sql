-- Who was in a state at a time? was an index on an expression, and for an analyst's login the condition on it may only be
-- looked at after row-level security's, since the function is not LEAKPROOF (which only a superuser could declare). So
-- far more rows were read than were found. A stored column is compared with `=` of integers, which is leakproof.
-- Writes the tables anew that have the column; readers of run_state_interval wait meanwhile.

SET LOCAL ROLE runlog_owner;

DO $migration$
DECLARE
  of_version record;
  old_index regclass;
BEGIN
  FOR of_version IN
    SELECT read_model.version_schema(v.projection, v.version) AS schema
    FROM read_model.projection_version v WHERE v.projection = 'run_timeline' AND v.state <> 'retired'
  LOOP
    FOR old_index IN
      SELECT x.indexrelid::regclass FROM pg_index x
      WHERE x.indrelid = to_regclass(of_version.schema || '.run_state_interval')
        AND pg_get_indexdef(x.indexrelid) LIKE '%(tenant_id, state, read_model.duration_class(duration_ms), started_at)'
    LOOP
      EXECUTE format('DROP INDEX %s', old_index);
    END LOOP;
    EXECUTE format('ALTER TABLE %I.run_state_interval ADD COLUMN duration_class integer NOT NULL '
                   'GENERATED ALWAYS AS (read_model.duration_class(duration_ms)) STORED', of_version.schema);
    EXECUTE format('COMMENT ON COLUMN %I.run_state_interval.duration_class IS '
                   '''read_model.duration_class(duration_ms), which read_model.runs_in_state finds intervals by.''',
                   of_version.schema);
    EXECUTE format('CREATE INDEX run_state_interval_at_time ON %I.run_state_interval '
                   '(tenant_id, state, duration_class, started_at)', of_version.schema);
  END LOOP;
END $migration$;

-- The public view gets the column.
SELECT read_model.publish(v.projection, v.version)
FROM read_model.projection_version v WHERE v.projection = 'run_timeline' AND v.state = 'live';

CREATE OR REPLACE FUNCTION read_model.runs_in_state(of_tenant_id text, of_state text, at timestamptz)
RETURNS SETOF read_model.run_state_interval
LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT i.*
  FROM generate_series(0, 17) AS class
  CROSS JOIN LATERAL (
    SELECT i.* FROM read_model.run_state_interval i
    WHERE i.tenant_id = of_tenant_id AND i.state = of_state AND i.duration_class = class
      AND i.started_at <= at AND (i.ended_at > at OR i.ended_at IS NULL)
      AND i.started_at > CASE WHEN class < 16 THEN at - interval '1 second' * 4 ^ class ELSE '-infinity' END
    OFFSET 0) AS i
$$;

RESET ROLE;
