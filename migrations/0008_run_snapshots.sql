-- Snapshots of runs, a table of the projection run_status in each of its versions. Runs that were
-- projected before have snapshots from their next events on only; a rebuild makes the others.
DO $migration$
DECLARE
  of_version record;
BEGIN
  FOR of_version IN
    SELECT v.version, v.state, read_model.version_schema(v.projection, v.version) AS schema
    FROM read_model.projection_version v WHERE v.projection = 'run_status'
  LOOP
    EXECUTE format($create$
      CREATE TABLE %1$I.run_snapshot (
        tenant_id      text COLLATE "C" NOT NULL,
        run_id         text COLLATE "C" NOT NULL,
        run_seq        bigint NOT NULL CHECK (run_seq >= 1),
        status         text COLLATE "C" NOT NULL
                       CHECK (status IN ('PENDING', 'RUNNING', 'PAUSED', 'COMPLETED', 'FAILED', 'CANCELLED')),
        consistency    text COLLATE "C" NOT NULL CHECK (consistency IN ('CONSISTENT', 'INCONSISTENT')),
        at_end         boolean NOT NULL,
        state          jsonb NOT NULL,
        digest         bytea NOT NULL CHECK (octet_length(digest) = 32),
        persisted_at   timestamptz NOT NULL,
        last_event_seq bigint NOT NULL GENERATED ALWAYS AS (run_seq) STORED,
        projected_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (tenant_id, run_id, run_seq)
      );
      COMMENT ON TABLE %1$I.run_snapshot IS
        'Whole states of runs after some of their events: to begin at where the state after a given event is asked for. '
        'One is taken after the event that ends the run, and after every event whose run_seq is a multiple of 1000, or of '
        '2000, 4000, 8000 and so on: of the first of these that is not less than the number of the run''s attempts. The '
        'latter are thinned: one is kept while the newest is at most four times the largest of 1000, 2000, 4000 and so on '
        'that divides its run_seq away. A state whose text is longer than 16 MiB is not kept. Which rows there are, and '
        'what they say, follows from the run''s events alone.';
      COMMENT ON COLUMN %1$I.run_snapshot.tenant_id IS 'The tenant that owns the run.';
      COMMENT ON COLUMN %1$I.run_snapshot.run_id IS 'The run.';
      COMMENT ON COLUMN %1$I.run_snapshot.run_seq IS 'The event after which the run was like this.';
      COMMENT ON COLUMN %1$I.run_snapshot.status IS 'The run''s status then.';
      COMMENT ON COLUMN %1$I.run_snapshot.consistency IS
        'INCONSISTENT where an event up to then asked for an invalid transition, else CONSISTENT.';
      COMMENT ON COLUMN %1$I.run_snapshot.at_end IS 'Whether this event ended the run; such a snapshot is always kept.';
      COMMENT ON COLUMN %1$I.run_snapshot.state IS
        'The state: run, durations, error and steps with their attempts. Numbers are kept as the events say them.';
      COMMENT ON COLUMN %1$I.run_snapshot.digest IS
        'SHA-256 over the RFC 8785 form of the state: the same on every machine for the same events.';
      COMMENT ON COLUMN %1$I.run_snapshot.persisted_at IS 'When the log took the event.';
      COMMENT ON COLUMN %1$I.run_snapshot.last_event_seq IS 'The same as run_seq; every read model has this column.';
      COMMENT ON COLUMN %1$I.run_snapshot.projected_at IS 'When this row was written, by the database''s clock.';
    $create$, of_version.schema);
    IF of_version.state = 'live' THEN
      PERFORM read_model.publish('run_status', of_version.version);
    END IF;
  END LOOP;
END $migration$;
