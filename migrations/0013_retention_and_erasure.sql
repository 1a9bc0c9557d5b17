-- The two exceptions to "append-only": retention takes whole runs that have ended out of the log and keeps a tombstone of
-- each; erasure takes the payloads of a run away and keeps their digests. Each is an audited act of an operator, done by
-- a function of the owner. What the triggers let through is tied to the record of the act, written in the same
-- transaction, and not to who asks. Sources of the rules: docs/guarantees.md, docs/operations.md (Retention, Erasure).

SET LOCAL ROLE runlog_owner;

-- ---------------------------------------------------------------- tombstones

-- No foreign keys, here as in the log: a trigger takes the names from event_log.run, which cannot be deleted, and asks for
-- the row in the audit. (A foreign key would have TRUNCATE refused for another reason than the one that counts.)
CREATE TABLE event_log.retired_run (
  run_no             bigint PRIMARY KEY,
  tenant_id          text COLLATE "C" NOT NULL,
  run_id             text COLLATE "C" NOT NULL,
  head_seq           bigint NOT NULL CHECK (head_seq >= 1),
  chain_digest       bytea NOT NULL CHECK (octet_length(chain_digest) = 32),
  first_persisted_at timestamptz NOT NULL,
  last_persisted_at  timestamptz NOT NULL,
  retired_at         timestamptz NOT NULL,
  audit_id           bigint NOT NULL,
  xid                xid8 NOT NULL
);
CREATE INDEX retired_run_of_act ON event_log.retired_run (xid);
COMMENT ON TABLE event_log.retired_run IS
  'Tombstones: the runs that were taken out of the log, append-only. Written by event_log.retire_runs (runlog retire).';
COMMENT ON COLUMN event_log.retired_run.run_no IS 'The run''s number, which stays in event_log.run: no run takes it again.';
COMMENT ON COLUMN event_log.retired_run.tenant_id IS 'The tenant that owns the run.';
COMMENT ON COLUMN event_log.retired_run.run_id IS 'The run''s id; unique within its tenant.';
COMMENT ON COLUMN event_log.retired_run.head_seq IS 'runSeq of the last event, and so how many events there were.';
COMMENT ON COLUMN event_log.retired_run.chain_digest IS 'chain_digest of the last event: the end of the run''s chain.';
COMMENT ON COLUMN event_log.retired_run.first_persisted_at IS 'persisted_at of the first event.';
COMMENT ON COLUMN event_log.retired_run.last_persisted_at IS 'persisted_at of the last event.';
COMMENT ON COLUMN event_log.retired_run.retired_at IS 'When the run was taken out of the log.';
COMMENT ON COLUMN event_log.retired_run.audit_id IS 'The act, as event_log.audit numbers it.';
COMMENT ON COLUMN event_log.retired_run.xid IS 'The transaction of the act: in it alone the run''s events can be deleted.';

-- What keeps the ledger balanced: appended = the events of the stream that are there + those that are counted here.
CREATE TABLE event_log.retired_events (
  run_no    bigint NOT NULL,
  stream_id bigint NOT NULL,
  events    bigint NOT NULL CHECK (events >= 1),
  PRIMARY KEY (run_no, stream_id)
);
CREATE INDEX retired_events_of_stream ON event_log.retired_events (stream_id) INCLUDE (events);
COMMENT ON TABLE event_log.retired_events IS
  'How many events of each retired run came through which stream, append-only. Written with the tombstone.';
COMMENT ON COLUMN event_log.retired_events.run_no IS 'The run, as event_log.run numbers it.';
COMMENT ON COLUMN event_log.retired_events.stream_id IS 'The topic, partition and generation they came through.';
COMMENT ON COLUMN event_log.retired_events.events IS 'How many.';

-- A tombstone says what the log says at this moment, whoever writes it.
CREATE FUNCTION event_log.fill_tombstone() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  NEW.xid := pg_current_xact_id();
  NEW.retired_at := clock_timestamp();
  SELECT r.tenant_id, r.run_id INTO NEW.tenant_id, NEW.run_id FROM event_log.run r WHERE r.run_no = NEW.run_no;
  SELECT e.run_seq, e.chain_digest, e.persisted_at INTO NEW.head_seq, NEW.chain_digest, NEW.last_persisted_at
  FROM event_log.event e WHERE e.run_no = NEW.run_no ORDER BY e.run_seq DESC LIMIT 1;
  SELECT e.persisted_at INTO NEW.first_persisted_at
  FROM event_log.event e WHERE e.run_no = NEW.run_no ORDER BY e.run_seq LIMIT 1;
  IF NEW.head_seq IS NULL THEN
    RAISE EXCEPTION 'the run with number % has no events: there is nothing to retire', NEW.run_no
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  IF NOT EXISTS (SELECT FROM event_log.audit a WHERE a.audit_id = NEW.audit_id AND a.at >= transaction_timestamp()) THEN
    RAISE EXCEPTION 'a run is retired only with a row in event_log.audit that is written in the same transaction'
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  INSERT INTO event_log.retired_events (run_no, stream_id, events)
  SELECT e.run_no, e.stream_id, count(*) FROM event_log.event e WHERE e.run_no = NEW.run_no GROUP BY e.run_no, e.stream_id;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION event_log.fill_tombstone() IS 'Trigger: a tombstone takes everything but run_no and audit_id from the log.';
CREATE TRIGGER retired_run_is_true BEFORE INSERT ON event_log.retired_run
  FOR EACH ROW EXECUTE FUNCTION event_log.fill_tombstone();
ALTER TABLE event_log.retired_run ENABLE ALWAYS TRIGGER retired_run_is_true;

-- Whole runs only. At the end of the transaction, so that whatever was appended before is seen.
CREATE FUNCTION event_log.refuse_half_retired() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT FROM event_log.event e WHERE e.run_no = NEW.run_no) THEN
    RAISE EXCEPTION 'the run with number % has a tombstone, and events of it are left', NEW.run_no
      USING ERRCODE = 'check_violation', SCHEMA = 'event_log', TABLE = 'retired_run';
  END IF;
  RETURN NULL;
END $$;
COMMENT ON FUNCTION event_log.refuse_half_retired() IS 'Trigger: no run is retired in part.';
CREATE CONSTRAINT TRIGGER retired_run_is_whole AFTER INSERT ON event_log.retired_run
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION event_log.refuse_half_retired();

CREATE TRIGGER retired_run_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON event_log.retired_run
  FOR EACH STATEMENT EXECUTE FUNCTION event_log.refuse_change();
CREATE TRIGGER retired_run_row_is_immutable BEFORE UPDATE OR DELETE ON event_log.retired_run
  FOR EACH ROW EXECUTE FUNCTION event_log.refuse_change();
CREATE TRIGGER retired_events_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON event_log.retired_events
  FOR EACH STATEMENT EXECUTE FUNCTION event_log.refuse_change();
CREATE TRIGGER retired_events_row_is_immutable BEFORE UPDATE OR DELETE ON event_log.retired_events
  FOR EACH ROW EXECUTE FUNCTION event_log.refuse_change();
ALTER TABLE event_log.retired_run ENABLE ALWAYS TRIGGER retired_run_is_whole;
ALTER TABLE event_log.retired_run ENABLE ALWAYS TRIGGER retired_run_is_append_only;
ALTER TABLE event_log.retired_run ENABLE ALWAYS TRIGGER retired_run_row_is_immutable;
ALTER TABLE event_log.retired_events ENABLE ALWAYS TRIGGER retired_events_are_append_only;
ALTER TABLE event_log.retired_events ENABLE ALWAYS TRIGGER retired_events_row_is_immutable;

-- ---------------------------------------------------------------- erasures

CREATE TABLE event_log.erased_run (
  run_no    bigint NOT NULL,
  audit_id  bigint NOT NULL,
  tenant_id text COLLATE "C" NOT NULL,
  run_id    text COLLATE "C" NOT NULL,
  up_to_seq bigint NOT NULL CHECK (up_to_seq >= 1),
  payloads  bigint NOT NULL CHECK (payloads >= 0),
  erased_at timestamptz NOT NULL,
  xid       xid8 NOT NULL,
  PRIMARY KEY (run_no, audit_id)
);
CREATE INDEX erased_run_of_act ON event_log.erased_run (xid);
COMMENT ON TABLE event_log.erased_run IS
  'The runs whose payloads were erased, append-only. Written by event_log.erase_payloads (runlog erase).';
COMMENT ON COLUMN event_log.erased_run.run_no IS 'The run, as event_log.run numbers it.';
COMMENT ON COLUMN event_log.erased_run.audit_id IS 'The act, as event_log.audit numbers it.';
COMMENT ON COLUMN event_log.erased_run.tenant_id IS 'The tenant that owns the run.';
COMMENT ON COLUMN event_log.erased_run.run_id IS 'The run''s id; unique within its tenant.';
COMMENT ON COLUMN event_log.erased_run.up_to_seq IS
  'runSeq of the last event that there was: the payloads of later ones are there.';
COMMENT ON COLUMN event_log.erased_run.payloads IS 'How many events had a payload until then.';
COMMENT ON COLUMN event_log.erased_run.erased_at IS 'When.';
COMMENT ON COLUMN event_log.erased_run.xid IS 'The transaction of the act: in it alone a payload can become NULL.';

-- As a tombstone does.
CREATE FUNCTION event_log.fill_erasure() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  NEW.xid := pg_current_xact_id();
  NEW.erased_at := clock_timestamp();
  SELECT r.tenant_id, r.run_id INTO NEW.tenant_id, NEW.run_id FROM event_log.run r WHERE r.run_no = NEW.run_no;
  SELECT max(e.run_seq), count(*) FILTER (WHERE e.payload IS NOT NULL) INTO NEW.up_to_seq, NEW.payloads
  FROM event_log.event e WHERE e.run_no = NEW.run_no;
  IF NEW.up_to_seq IS NULL THEN
    RAISE EXCEPTION 'the run with number % has no events: there is nothing to erase', NEW.run_no
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  IF NOT EXISTS (SELECT FROM event_log.audit a WHERE a.audit_id = NEW.audit_id AND a.at >= transaction_timestamp()) THEN
    RAISE EXCEPTION 'payloads are erased only with a row in event_log.audit that is written in the same transaction'
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION event_log.fill_erasure() IS 'Trigger: an erasure takes everything but run_no and audit_id from the log.';
CREATE TRIGGER erased_run_is_true BEFORE INSERT ON event_log.erased_run
  FOR EACH ROW EXECUTE FUNCTION event_log.fill_erasure();
ALTER TABLE event_log.erased_run ENABLE ALWAYS TRIGGER erased_run_is_true;

CREATE FUNCTION event_log.refuse_half_erased() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF EXISTS (SELECT FROM event_log.event e
             WHERE e.run_no = NEW.run_no AND e.run_seq <= NEW.up_to_seq AND e.payload IS NOT NULL) THEN
    RAISE EXCEPTION 'the run with number % is recorded as erased, and payloads of it are left', NEW.run_no
      USING ERRCODE = 'check_violation', SCHEMA = 'event_log', TABLE = 'erased_run';
  END IF;
  RETURN NULL;
END $$;
COMMENT ON FUNCTION event_log.refuse_half_erased() IS 'Trigger: an erasure that is recorded has taken place.';
CREATE CONSTRAINT TRIGGER erased_run_is_whole AFTER INSERT ON event_log.erased_run
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION event_log.refuse_half_erased();

CREATE TRIGGER erased_run_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON event_log.erased_run
  FOR EACH STATEMENT EXECUTE FUNCTION event_log.refuse_change();
CREATE TRIGGER erased_run_row_is_immutable BEFORE UPDATE OR DELETE ON event_log.erased_run
  FOR EACH ROW EXECUTE FUNCTION event_log.refuse_change();
ALTER TABLE event_log.erased_run ENABLE ALWAYS TRIGGER erased_run_is_whole;
ALTER TABLE event_log.erased_run ENABLE ALWAYS TRIGGER erased_run_is_append_only;
ALTER TABLE event_log.erased_run ENABLE ALWAYS TRIGGER erased_run_row_is_immutable;

ALTER TABLE event_log.dead_letter ADD COLUMN erased_at timestamptz;
COMMENT ON COLUMN event_log.dead_letter.erased_at IS
  'When its key, value, headers and detail were erased (runlog erase); NULL = they were not.';

-- ---------------------------------------------------------------- what the log lets through

-- As refuse_change(), but for the events that the transaction's own tombstones and erasures are of; of the latter nothing
-- but the payload changes, and it becomes NULL. The statement trigger refuses even a statement that meets no row, unless
-- the transaction has written such a record.
CREATE FUNCTION event_log.refuse_event_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    IF TG_LEVEL = 'STATEMENT' THEN
      IF EXISTS (SELECT FROM event_log.retired_run t WHERE t.xid = pg_current_xact_id()) THEN
        RETURN NULL;
      END IF;
    ELSIF EXISTS (SELECT FROM event_log.retired_run t WHERE t.run_no = OLD.run_no AND t.xid = pg_current_xact_id()) THEN
      RETURN OLD;
    END IF;
  ELSIF TG_OP = 'UPDATE' AND TG_LEVEL = 'STATEMENT' THEN
    IF EXISTS (SELECT FROM event_log.erased_run x WHERE x.xid = pg_current_xact_id()) THEN
      RETURN NULL;
    END IF;
  ELSIF TG_OP = 'UPDATE' THEN
    IF EXISTS (SELECT FROM event_log.erased_run x
               WHERE x.run_no = OLD.run_no AND x.xid = pg_current_xact_id() AND OLD.run_seq <= x.up_to_seq) THEN
      OLD.payload := NULL;
      IF NEW IS NOT DISTINCT FROM OLD THEN
        RETURN NEW;
      END IF;
    END IF;
  END IF;
  RAISE EXCEPTION '% of %.% is refused: the log is append-only', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
    USING ERRCODE = 'insufficient_privilege';
END $$;
COMMENT ON FUNCTION event_log.refuse_event_change() IS
  'Trigger: refuses UPDATE, DELETE and TRUNCATE of events, but for what the transaction''s own record of an act covers.';

DROP TRIGGER event_is_append_only ON event_log.event;
DROP TRIGGER event_row_is_immutable ON event_log.event;
CREATE TRIGGER event_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON event_log.event
  FOR EACH STATEMENT EXECUTE FUNCTION event_log.refuse_event_change();
CREATE TRIGGER event_row_is_immutable BEFORE UPDATE OR DELETE ON event_log.event
  FOR EACH ROW EXECUTE FUNCTION event_log.refuse_event_change();
ALTER TABLE event_log.event ENABLE ALWAYS TRIGGER event_is_append_only;
ALTER TABLE event_log.event ENABLE ALWAYS TRIGGER event_row_is_immutable;

-- ---------------------------------------------------------------- what the owner's functions see

SELECT event_log.secure_table(t) FROM unnest(ARRAY['event_log.retired_run', 'event_log.erased_run']::regclass[]) AS t;
CREATE POLICY acts_of_operators ON event_log.retired_run TO runlog_owner USING (true) WITH CHECK (true);
CREATE POLICY acts_of_operators ON event_log.erased_run TO runlog_owner USING (true) WITH CHECK (true);
CREATE POLICY acts_of_operators ON event_log.dead_letter TO runlog_owner USING (true) WITH CHECK (true);
CREATE POLICY acts_of_operators ON event_log.event TO runlog_owner USING (true) WITH CHECK (true);
CREATE POLICY acts_of_operators ON event_log.run TO runlog_owner USING (true) WITH CHECK (true);
CREATE POLICY acts_of_operators ON read_model.parked_run TO runlog_owner USING (true) WITH CHECK (true);

-- ---------------------------------------------------------------- sums that outlive the runs

-- What each act of retention took away from the runs that run_stats counts. The live version goes on with what it has
-- counted; one that is built anew from what is left of the log begins with these. A day's counts are its hours' sum.
CREATE TABLE read_model.retired_run_hourly (
  audit_id        bigint NOT NULL,
  tenant_id       text COLLATE "C" NOT NULL,
  hour            timestamptz NOT NULL,
  project_id      text COLLATE "C" NOT NULL,
  environment_id  text COLLATE "C" NOT NULL,
  plan_id         text COLLATE "C" NOT NULL,
  queued          bigint NOT NULL,
  started         bigint NOT NULL,
  completed       bigint NOT NULL,
  failed          bigint NOT NULL,
  cancelled       bigint NOT NULL,
  duration_ms_sum numeric NOT NULL,
  durations       bigint[] NOT NULL,
  last_event_seq  bigint NOT NULL,
  PRIMARY KEY (audit_id, tenant_id, hour, project_id, environment_id, plan_id)
);
COMMENT ON TABLE read_model.retired_run_hourly IS
  'run_hourly of the runs that each act of retention took out of the log: a rebuild of run_stats begins with it.';
COMMENT ON COLUMN read_model.retired_run_hourly.audit_id IS 'The act, as event_log.audit numbers it.';
COMMENT ON COLUMN read_model.retired_run_hourly.tenant_id IS 'The tenant that owned the runs.';
COMMENT ON COLUMN read_model.retired_run_hourly.hour IS 'As in run_hourly.';
COMMENT ON COLUMN read_model.retired_run_hourly.project_id IS 'As in run_hourly.';
COMMENT ON COLUMN read_model.retired_run_hourly.environment_id IS 'As in run_hourly.';
COMMENT ON COLUMN read_model.retired_run_hourly.plan_id IS 'As in run_hourly.';
COMMENT ON COLUMN read_model.retired_run_hourly.queued IS 'As in run_hourly.';
COMMENT ON COLUMN read_model.retired_run_hourly.started IS 'As in run_hourly.';
COMMENT ON COLUMN read_model.retired_run_hourly.completed IS 'As in run_hourly.';
COMMENT ON COLUMN read_model.retired_run_hourly.failed IS 'As in run_hourly.';
COMMENT ON COLUMN read_model.retired_run_hourly.cancelled IS 'As in run_hourly.';
COMMENT ON COLUMN read_model.retired_run_hourly.duration_ms_sum IS 'As in run_hourly.';
COMMENT ON COLUMN read_model.retired_run_hourly.durations IS 'As in run_hourly.';
COMMENT ON COLUMN read_model.retired_run_hourly.last_event_seq IS 'As in run_hourly.';
CREATE TABLE read_model.retired_step_daily (
  audit_id        bigint NOT NULL,
  tenant_id       text COLLATE "C" NOT NULL,
  day             timestamptz NOT NULL,
  plan_id         text COLLATE "C" NOT NULL,
  step_id         text COLLATE "C" NOT NULL,
  started         bigint NOT NULL,
  succeeded       bigint NOT NULL,
  failed          bigint NOT NULL,
  skipped         bigint NOT NULL,
  retries         bigint NOT NULL,
  duration_ms_sum numeric NOT NULL,
  durations       bigint[] NOT NULL,
  last_event_seq  bigint NOT NULL,
  PRIMARY KEY (audit_id, tenant_id, day, plan_id, step_id)
);
COMMENT ON TABLE read_model.retired_step_daily IS
  'step_daily of the runs that each act of retention took out of the log: a rebuild of run_stats begins with it.';
COMMENT ON COLUMN read_model.retired_step_daily.audit_id IS 'The act, as event_log.audit numbers it.';
COMMENT ON COLUMN read_model.retired_step_daily.tenant_id IS 'The tenant that owned the runs.';
COMMENT ON COLUMN read_model.retired_step_daily.day IS 'As in step_daily.';
COMMENT ON COLUMN read_model.retired_step_daily.plan_id IS 'As in step_daily.';
COMMENT ON COLUMN read_model.retired_step_daily.step_id IS 'As in step_daily.';
COMMENT ON COLUMN read_model.retired_step_daily.started IS 'As in step_daily.';
COMMENT ON COLUMN read_model.retired_step_daily.succeeded IS 'As in step_daily.';
COMMENT ON COLUMN read_model.retired_step_daily.failed IS 'As in step_daily.';
COMMENT ON COLUMN read_model.retired_step_daily.skipped IS 'As in step_daily.';
COMMENT ON COLUMN read_model.retired_step_daily.retries IS 'As in step_daily.';
COMMENT ON COLUMN read_model.retired_step_daily.duration_ms_sum IS 'As in step_daily.';
COMMENT ON COLUMN read_model.retired_step_daily.durations IS 'As in step_daily.';
COMMENT ON COLUMN read_model.retired_step_daily.last_event_seq IS 'As in step_daily.';
SELECT event_log.secure_table(t)
FROM unnest(ARRAY['read_model.retired_run_hourly', 'read_model.retired_step_daily']::regclass[]) AS t;
CREATE POLICY acts_of_operators ON read_model.retired_run_hourly TO runlog_owner USING (true) WITH CHECK (true);
CREATE POLICY acts_of_operators ON read_model.retired_step_daily TO runlog_owner USING (true) WITH CHECK (true);

-- Every rebuild of run_stats begins with what was retired.
ALTER FUNCTION read_model.begin_rebuild(text) RENAME TO make_next_version;
COMMENT ON FUNCTION read_model.make_next_version IS 'For begin_rebuild: the empty tables of a projection''s next version.';
CREATE FUNCTION read_model.begin_rebuild(of_projection text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  made integer := read_model.make_next_version(of_projection);
  target text := read_model.version_schema(of_projection, made);
BEGIN
  IF of_projection = 'run_stats' THEN
    EXECUTE format(
      'INSERT INTO %I.run_hourly (tenant_id, hour, project_id, environment_id, plan_id, queued, started, completed, failed,
                                  cancelled, duration_ms_sum, durations, last_event_seq)
       SELECT tenant_id, hour, project_id, environment_id, plan_id, sum(queued), sum(started), sum(completed), sum(failed),
              sum(cancelled), sum(duration_ms_sum), read_model.merge(durations), max(last_event_seq)
       FROM read_model.retired_run_hourly GROUP BY tenant_id, hour, project_id, environment_id, plan_id', target);
    EXECUTE format(
      'INSERT INTO %I.run_daily (tenant_id, day, project_id, environment_id, plan_id, queued, started, completed, failed,
                                 cancelled, duration_ms_sum, durations, last_event_seq)
       SELECT tenant_id, date_trunc(''day'', hour, ''UTC''), project_id, environment_id, plan_id, sum(queued), sum(started),
              sum(completed), sum(failed), sum(cancelled), sum(duration_ms_sum), read_model.merge(durations), max(last_event_seq)
       FROM read_model.retired_run_hourly
       GROUP BY tenant_id, date_trunc(''day'', hour, ''UTC''), project_id, environment_id, plan_id', target);
    EXECUTE format(
      'INSERT INTO %I.step_daily (tenant_id, day, plan_id, step_id, started, succeeded, failed, skipped, retries,
                                  duration_ms_sum, durations, last_event_seq)
       SELECT tenant_id, day, plan_id, step_id, sum(started), sum(succeeded), sum(failed), sum(skipped), sum(retries),
              sum(duration_ms_sum), read_model.merge(durations), max(last_event_seq)
       FROM read_model.retired_step_daily GROUP BY tenant_id, day, plan_id, step_id', target);
  END IF;
  RETURN made;
END $$;
COMMENT ON FUNCTION read_model.begin_rebuild IS
  'Makes the tables of a projection''s next version, which the projectors then fill from the log. Returns its number.';

-- ---------------------------------------------------------------- retention

-- What keeps these runs from being retired now; NULL = nothing. One rule, for the plan and for the act.
CREATE FUNCTION event_log.retirable(run_nos bigint[])
RETURNS TABLE (run_no bigint, head_seq bigint, last_persisted_at timestamptz, obstacle text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
  WITH of_streams AS MATERIALIZED (
    SELECT e.run_no, e.stream_id, max(e.source_offset) AS last_offset, max(e.run_seq) AS head_seq,
           max(e.persisted_at) AS last_persisted_at
    FROM event_log.event e
    WHERE e.run_no = ANY (run_nos)
    GROUP BY e.run_no, e.stream_id
  ), of_runs AS MATERIALIZED (
    SELECT s.run_no, max(s.head_seq) AS head_seq, max(s.last_persisted_at) AS last_persisted_at
    FROM of_streams s
    GROUP BY s.run_no
  )
  SELECT wanted.run_no, h.head_seq, h.last_persisted_at,
    CASE
      WHEN r.run_no IS NULL THEN 'there is no such run'
      WHEN EXISTS (SELECT FROM event_log.retired_run t WHERE t.run_no = wanted.run_no) THEN 'it is retired already'
      WHEN h.run_no IS NULL THEN 'it has no events'
      WHEN parked.projection IS NOT NULL THEN 'it is parked by ' || parked.projection
      WHEN behind.projection IS NOT NULL THEN behind.projection || ' has not applied all of its events'
      WHEN c.run_id IS NULL OR c.last_event_seq <> h.head_seq THEN 'run_status has not applied all of its events'
      WHEN c.status NOT IN ('COMPLETED', 'FAILED', 'CANCELLED') THEN 'it has not ended'
    END
  FROM (SELECT DISTINCT unnest(run_nos) AS run_no) wanted
  LEFT JOIN event_log.run r ON r.run_no = wanted.run_no
  LEFT JOIN of_runs h ON h.run_no = wanted.run_no
  LEFT JOIN read_model.run_current c ON c.tenant_id = r.tenant_id AND c.run_id = r.run_id
  LEFT JOIN LATERAL (
    SELECT p.projection
    FROM read_model.parked_run p JOIN read_model.projection_version v USING (projection, version)
    WHERE p.run_no = wanted.run_no AND v.state <> 'retired'
    LIMIT 1
  ) parked ON true
  -- A reader that has come past the run's last event in every stream has read all of it, and never does again.
  LEFT JOIN LATERAL (
    SELECT v.projection
    FROM read_model.projection_version v CROSS JOIN of_streams s
    WHERE v.state <> 'retired' AND s.run_no = wanted.run_no
      AND NOT EXISTS (SELECT FROM read_model.projection_checkpoint k
                      WHERE k.projection = v.projection AND k.version = v.version AND k.stream_id = s.stream_id
                        AND k.next_offset > s.last_offset)
    LIMIT 1
  ) behind ON true
$$;
COMMENT ON FUNCTION event_log.retirable IS 'Of runs: the last event, and what keeps the run from being retired; NULL = nothing.';

-- The rows of these runs, in every version of every projection. Sums over many runs stay as they are.
CREATE FUNCTION read_model.forget_runs(run_nos bigint[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  of_table regclass;
BEGIN
  FOR of_table IN
    SELECT c.oid
    FROM read_model.projection_version v
    JOIN pg_class c ON c.relnamespace = read_model.version_schema(v.projection, v.version)::regnamespace AND c.relkind = 'r'
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'run_id' AND NOT a.attisdropped
    ORDER BY v.projection, v.version, c.relname
  LOOP
    EXECUTE format('DELETE FROM %s t USING event_log.run r
                    WHERE r.run_no = ANY ($1) AND t.tenant_id = r.tenant_id AND t.run_id = r.run_id', of_table)
      USING run_nos;
  END LOOP;
  DELETE FROM read_model.parked_run p WHERE p.run_no = ANY (run_nos);
END $$;
COMMENT ON FUNCTION read_model.forget_runs IS 'For event_log.retire_runs: deletes the rows of runs in all versions.';

-- Takes runs out of the log and the read models, all or none, and returns the act's number in event_log.audit. To be called
-- at READ COMMITTED, with a short lock_timeout, and committed at once: nothing is appended meanwhile.
--   head_seqs: the last runSeq of each run, up to which the sums were computed
--   sums: {"run_hourly": [rows], "step_daily": [rows]} of exactly these runs; durations as text
-- Locks, in this order: the turn (one act at a time, and none while `runlog verify --chain` reads); event_log.stream, which
-- waits for every batch in flight, of whatever stream, and has the next ones wait: a batch that begins later finds the
-- tombstones; the versions of the projections, so that no rebuild begins. No row of the runs is locked by anybody then:
-- the projectors are past them.
CREATE FUNCTION event_log.retire_runs(run_nos bigint[], head_seqs bigint[], sums jsonb, by_operator text, why text)
RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  act bigint;
  refused record;
  ended bigint;
  retired bigint;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'runs are retired at READ COMMITTED only' USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  IF NOT pg_try_advisory_xact_lock(hashtextextended('runlog retention', 0)) THEN
    RAISE EXCEPTION 'the log is being verified, or another command retires runs' USING ERRCODE = 'lock_not_available';
  END IF;
  LOCK TABLE event_log.stream IN EXCLUSIVE MODE;
  LOCK TABLE read_model.projection_version IN SHARE MODE;
  SELECT v.projection INTO refused FROM read_model.projection_version v WHERE v.state = 'building' LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'a rebuild of % is under way', refused.projection
      USING ERRCODE = 'object_in_use', HINT = 'Let it end, or remove the version that is being built.';
  END IF;
  SELECT r.run_no, coalesce(r.obstacle, 'it has had another event') AS obstacle INTO refused
  FROM unnest(run_nos, head_seqs) AS wanted (run_no, head_seq)
  LEFT JOIN event_log.retirable(run_nos) r ON r.run_no = wanted.run_no
  WHERE r.obstacle IS NOT NULL OR r.head_seq IS DISTINCT FROM wanted.head_seq
  LIMIT 1;
  IF FOUND OR run_nos IS NULL OR cardinality(run_nos) = 0 OR cardinality(run_nos) IS DISTINCT FROM cardinality(head_seqs) THEN
    RAISE EXCEPTION 'the run with number % cannot be retired: %', refused.run_no, refused.obstacle
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;

  INSERT INTO event_log.audit (operator, action, subject, detail, reason)
  SELECT by_operator, 'run.retire',
         left(CASE WHEN count(*) = 1 THEN min(r.tenant_id || '/' || r.run_id)
                   WHEN count(DISTINCT r.tenant_id) = 1 THEN count(*) || ' runs of tenant ' || min(r.tenant_id)
                   ELSE count(*) || ' runs of ' || count(DISTINCT r.tenant_id) || ' tenants' END, 128),
         jsonb_build_object('runs', count(*), 'events', (SELECT sum(s) FROM unnest(head_seqs) s)), why
  FROM event_log.run r WHERE r.run_no = ANY (run_nos)
  RETURNING audit_id INTO act;
  INSERT INTO event_log.retired_run (run_no, audit_id)
  SELECT run_no, act FROM unnest(run_nos) AS run_no ORDER BY run_no;
  DELETE FROM event_log.event e WHERE e.run_no = ANY (run_nos);
  PERFORM read_model.forget_runs(run_nos);

  INSERT INTO read_model.retired_run_hourly
  SELECT act, x.tenant_id, x.hour, x.project_id, x.environment_id, x.plan_id, x.queued, x.started, x.completed, x.failed,
         x.cancelled, x.duration_ms_sum, x.durations::bigint[], x.last_event_seq
  FROM jsonb_to_recordset(sums -> 'run_hourly') AS x (
    tenant_id text, hour timestamptz, project_id text, environment_id text, plan_id text, queued bigint, started bigint,
    completed bigint, failed bigint, cancelled bigint, duration_ms_sum numeric, durations text, last_event_seq bigint);
  INSERT INTO read_model.retired_step_daily
  SELECT act, x.tenant_id, x.day, x.plan_id, x.step_id, x.started, x.succeeded, x.failed, x.skipped, x.retries,
         x.duration_ms_sum, x.durations::bigint[], x.last_event_seq
  FROM jsonb_to_recordset(sums -> 'step_daily') AS x (
    tenant_id text, day timestamptz, plan_id text, step_id text, started bigint, succeeded bigint, failed bigint,
    skipped bigint, retries bigint, duration_ms_sum numeric, durations text, last_event_seq bigint);
  -- Every run that has ended was counted once as an end.
  SELECT coalesce(sum(h.completed + h.failed + h.cancelled), 0) INTO ended
  FROM read_model.retired_run_hourly h WHERE h.audit_id = act;
  SELECT count(*) INTO retired FROM event_log.retired_run t WHERE t.audit_id = act AND t.xid = pg_current_xact_id();
  IF ended <> retired THEN
    RAISE EXCEPTION 'the sums are of % ended runs, and % are retired', ended, retired
      USING ERRCODE = 'data_exception';
  END IF;
  RETURN act;
END $$;
COMMENT ON FUNCTION event_log.retire_runs IS
  'Takes whole ended runs out of the log and the read models, with a tombstone of each; audited. For `runlog retire`.';

-- ---------------------------------------------------------------- erasure

-- Takes the payloads of all events of these runs away, and returns the act's number in event_log.audit. content_digest, and
-- with it the chain and the dedup, stays. The read models still have what they made of the payloads: the caller replaces
-- their rows in the same transaction (read_model.replace_rows), for which no rebuild may begin meanwhile.
-- Locks: the versions of the projections; the events.
CREATE FUNCTION event_log.erase_payloads(run_nos bigint[], by_operator text, why text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  act bigint;
BEGIN
  LOCK TABLE read_model.projection_version IN SHARE MODE;
  INSERT INTO event_log.audit (operator, action, subject, reason)
  SELECT by_operator, 'run.erase',
         left(CASE WHEN count(*) = 1 THEN min(r.tenant_id || '/' || r.run_id)
                   ELSE count(*) || ' runs of tenant ' || string_agg(DISTINCT r.tenant_id, ', ') END, 128), why
  FROM event_log.run r WHERE r.run_no = ANY (run_nos)
  RETURNING audit_id INTO act;
  INSERT INTO event_log.erased_run (run_no, audit_id)
  SELECT run_no, act FROM unnest(run_nos) AS run_no ORDER BY run_no;
  UPDATE event_log.event e SET payload = NULL
  FROM event_log.erased_run x
  WHERE x.audit_id = act AND x.run_no = ANY (run_nos)
    AND e.run_no = x.run_no AND e.run_seq <= x.up_to_seq AND e.payload IS NOT NULL;
  RETURN act;
END $$;
COMMENT ON FUNCTION event_log.erase_payloads IS
  'Makes the payloads of runs NULL; their digests stay. Audited. For `runlog erase`, which rewrites the read models with it.';

-- Takes away what the dead letters of a tenant, or of one of its runs, hold of the records; returns the act's number in
-- event_log.audit, and how many they were; no row = there was nothing to erase.
CREATE FUNCTION event_log.erase_dead_letters(of_tenant text, of_run text, by_operator text, why text)
RETURNS TABLE (audit_id bigint, dead_letters bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  act bigint;
  erased bigint;
BEGIN
  IF NOT EXISTS (SELECT FROM event_log.dead_letter d
                 WHERE d.tenant_id = of_tenant AND (of_run IS NULL OR d.run_id = of_run) AND d.erased_at IS NULL) THEN
    RETURN;
  END IF;
  INSERT INTO event_log.audit AS a (operator, action, subject, reason)
  VALUES (by_operator, 'dead_letter.erase', left(of_tenant || coalesce('/' || of_run, ''), 128), why)
  RETURNING a.audit_id INTO act;
  UPDATE event_log.dead_letter d
  SET key = NULL, value = NULL, headers = '[]', status = 'discarded', erased_at = clock_timestamp(),
      value_bytes = coalesce(d.value_bytes, octet_length(d.value)), value_digest = coalesce(d.value_digest, sha256(d.value)),
      detail = format('erased on request: event_log.audit %s', act)
  WHERE d.tenant_id = of_tenant AND (of_run IS NULL OR d.run_id = of_run) AND d.erased_at IS NULL;
  GET DIAGNOSTICS erased = ROW_COUNT;
  RETURN QUERY SELECT act, erased;
END $$;
COMMENT ON FUNCTION event_log.erase_dead_letters IS
  'Erases key, value, headers and detail of a tenant''s or a run''s dead letters; audited. For `runlog erase`.';

-- Replaces the rows of these runs in a table of a version: only of runs whose payloads this transaction has erased. Each new
-- row is the text of a row of that table.
CREATE FUNCTION read_model.replace_rows(of_projection text, of_version integer, of_table text, run_nos bigint[], new_rows text[])
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  target regclass;
  columns text;
  inserted bigint;
BEGIN
  SELECT c.oid, string_agg(format('%I', a.attname), ', ' ORDER BY a.attnum) FILTER (WHERE a.attgenerated = '') INTO target, columns
  FROM read_model.projection_version v
  JOIN pg_class c ON c.relnamespace = read_model.version_schema(v.projection, v.version)::regnamespace
                 AND c.relkind = 'r' AND c.relname = of_table
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  WHERE v.projection = of_projection AND v.version = of_version
  GROUP BY c.oid
  HAVING bool_or(a.attname = 'run_id');
  IF target IS NULL THEN
    RAISE EXCEPTION 'version % of % has no table % with rows of runs', of_version, of_projection, of_table
      USING ERRCODE = 'undefined_table';
  END IF;
  IF EXISTS (SELECT FROM unnest(run_nos) AS run_no
             WHERE NOT EXISTS (SELECT FROM event_log.erased_run x WHERE x.run_no = run_no.run_no AND x.xid = pg_current_xact_id())) THEN
    RAISE EXCEPTION 'rows are replaced only where the same transaction has erased the run''s payloads'
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  EXECUTE format('DELETE FROM %s t USING event_log.run r
                  WHERE r.run_no = ANY ($1) AND t.tenant_id = r.tenant_id AND t.run_id = r.run_id', target) USING run_nos;
  EXECUTE format('INSERT INTO %1$s (%2$s)
                  SELECT %3$s FROM (SELECT n::%1$s AS new FROM unnest($2) n) n
                  JOIN event_log.run r ON r.tenant_id = (new).tenant_id AND r.run_id = (new).run_id AND r.run_no = ANY ($1)',
                 target, columns, (SELECT string_agg('(new).' || c, ', ') FROM unnest(string_to_array(columns, ', ')) c))
    USING run_nos, new_rows;
  GET DIAGNOSTICS inserted = ROW_COUNT;
  IF inserted <> cardinality(new_rows) THEN
    RAISE EXCEPTION '% of % rows are of other runs', cardinality(new_rows) - inserted, cardinality(new_rows)
      USING ERRCODE = 'data_exception';
  END IF;
END $$;
COMMENT ON FUNCTION read_model.replace_rows IS 'For `runlog erase`: rows of runs whose payloads the same transaction has erased.';

-- ---------------------------------------------------------------- grants

GRANT SELECT ON event_log.retired_run TO runlog_ingest, runlog_projector, runlog_operator, runlog_backup;
GRANT SELECT ON event_log.erased_run TO runlog_operator, runlog_backup;
GRANT SELECT ON event_log.retired_events TO runlog_projector, runlog_operator, runlog_backup;
GRANT SELECT ON read_model.retired_run_hourly, read_model.retired_step_daily TO runlog_operator, runlog_backup;
REVOKE EXECUTE ON FUNCTION read_model.make_next_version(text) FROM runlog_operator;
REVOKE EXECUTE ON FUNCTION event_log.fill_tombstone(), event_log.refuse_half_retired(), event_log.refuse_event_change(),
  read_model.begin_rebuild(text), event_log.retirable(bigint[]), read_model.forget_runs(bigint[]),
  event_log.retire_runs(bigint[], bigint[], jsonb, text, text), event_log.fill_erasure(), event_log.refuse_half_erased(),
  event_log.erase_payloads(bigint[], text, text), event_log.erase_dead_letters(text, text, text, text),
  read_model.replace_rows(text, integer, text, bigint[], text[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION read_model.begin_rebuild(text), event_log.retirable(bigint[]),
  event_log.retire_runs(bigint[], bigint[], jsonb, text, text), event_log.erase_payloads(bigint[], text, text),
  event_log.erase_dead_letters(text, text, text, text), read_model.replace_rows(text, integer, text, bigint[], text[])
  TO runlog_operator;

RESET ROLE;
