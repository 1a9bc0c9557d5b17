-- Seals: what the log was at the end of each day, for comparing later and for keeping outside.
-- Sources of the rules: docs/operations.md (Seal the log). Only crates/event-log reads and writes these tables.

SET LOCAL ROLE runlog_owner;

CREATE TABLE event_log.seal (
  day       date PRIMARY KEY,
  runs      bigint NOT NULL CHECK (runs >= 0),
  events    bigint NOT NULL CHECK (events >= runs),
  root      bytea NOT NULL CHECK (octet_length(root) = 32),
  -- Unique: the chain of seals cannot fork.
  previous  bytea NOT NULL UNIQUE CHECK (octet_length(previous) = 32),
  digest    bytea NOT NULL CHECK (octet_length(digest) = 32),
  version   smallint NOT NULL CHECK (version >= 1),
  sealed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  login     text COLLATE "C" NOT NULL DEFAULT session_user
);
COMMENT ON TABLE event_log.seal IS
  'One row per day that was sealed, append-only, without a day left out. Written by seal_day (runlog audit seal).';
COMMENT ON COLUMN event_log.seal.day IS 'The day, UTC, by persisted_at.';
COMMENT ON COLUMN event_log.seal.runs IS 'Runs that got events on that day: the leaves of the tree.';
COMMENT ON COLUMN event_log.seal.events IS 'Events of that day.';
COMMENT ON COLUMN event_log.seal.root IS 'The root of the Merkle tree (RFC 9162) over the day''s leaves in ascending order.';
COMMENT ON COLUMN event_log.seal.previous IS 'The digest of the seal of the day before; zeros on the first.';
COMMENT ON COLUMN event_log.seal.digest IS 'SHA-256 over day, runs, events, root and previous: what to keep outside.';
COMMENT ON COLUMN event_log.seal.version IS 'How leaves and digests are computed: 1.';
COMMENT ON COLUMN event_log.seal.sealed_at IS 'The database''s clock when it was stored.';
COMMENT ON COLUMN event_log.seal.login IS 'The database login that stored it (session_user).';

-- No names of tenants or runs: nothing here is a tenant's.
CREATE TABLE event_log.sealed_head (
  day     date NOT NULL,
  run_no  bigint NOT NULL,
  run_seq bigint NOT NULL CHECK (run_seq >= 1),
  events  bigint NOT NULL CHECK (events >= 1),
  leaf    bytea NOT NULL CHECK (octet_length(leaf) = 32),
  PRIMARY KEY (day, run_no)
);
COMMENT ON TABLE event_log.sealed_head IS
  'The leaves of each seal, append-only: they tell which run differs from what was sealed, and prove one run to an outsider.';
COMMENT ON COLUMN event_log.sealed_head.day IS 'The day of the seal.';
COMMENT ON COLUMN event_log.sealed_head.run_no IS 'The run, as event_log.run numbers it.';
COMMENT ON COLUMN event_log.sealed_head.run_seq IS 'The highest runSeq among the run''s events of that day.';
COMMENT ON COLUMN event_log.sealed_head.events IS 'How many events of that day the run has.';
COMMENT ON COLUMN event_log.sealed_head.leaf IS
  'SHA-256 over tenant, run, run_seq, events and the chain_digest of that event: the leaf of the Merkle tree.';

CREATE TRIGGER seal_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON event_log.seal
  FOR EACH STATEMENT EXECUTE FUNCTION event_log.refuse_change();
CREATE TRIGGER seal_row_is_immutable BEFORE UPDATE OR DELETE ON event_log.seal
  FOR EACH ROW EXECUTE FUNCTION event_log.refuse_change();
ALTER TABLE event_log.seal ENABLE ALWAYS TRIGGER seal_is_append_only;
ALTER TABLE event_log.seal ENABLE ALWAYS TRIGGER seal_row_is_immutable;
CREATE TRIGGER sealed_head_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON event_log.sealed_head
  FOR EACH STATEMENT EXECUTE FUNCTION event_log.refuse_change();
CREATE TRIGGER sealed_head_row_is_immutable BEFORE UPDATE OR DELETE ON event_log.sealed_head
  FOR EACH ROW EXECUTE FUNCTION event_log.refuse_change();
ALTER TABLE event_log.sealed_head ENABLE ALWAYS TRIGGER sealed_head_is_append_only;
ALTER TABLE event_log.sealed_head ENABLE ALWAYS TRIGGER sealed_head_row_is_immutable;

-- The seal first, and then its leaves in the same transaction, some at a time: a day may have millions of them.
CREATE FUNCTION event_log.seal_day(
  of_day date, of_runs bigint, of_events bigint, of_root bytea, of_previous bytea, of_digest bytea, of_version smallint,
  by_operator text
) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  last event_log.seal;
  act bigint;
BEGIN
  -- Two who seal the same day: the second one waits here, and finds the first one's seal.
  LOCK TABLE event_log.seal IN SHARE ROW EXCLUSIVE MODE;
  SELECT * INTO last FROM event_log.seal s ORDER BY s.day DESC LIMIT 1;
  IF of_day <> coalesce(last.day + 1, of_day)
     OR of_previous <> coalesce(last.digest, decode(repeat('00', 32), 'hex')) THEN
    RAISE EXCEPTION 'the seal of % does not follow the last seal, that of %', of_day, coalesce(last.day::text, 'no day')
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  IF clock_timestamp() < (of_day + 1)::timestamp AT TIME ZONE 'UTC' THEN
    RAISE EXCEPTION 'the day % is not over', of_day USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  INSERT INTO event_log.seal (day, runs, events, root, previous, digest, version)
  VALUES (of_day, of_runs, of_events, of_root, of_previous, of_digest, of_version);
  INSERT INTO event_log.audit (operator, action, subject, detail)
  VALUES (by_operator, 'audit.seal', to_char(of_day, 'YYYY-MM-DD'),
          jsonb_build_object('runs', of_runs, 'events', of_events, 'digest', encode(of_digest, 'hex')))
  RETURNING audit_id INTO act;
  RETURN act;
END $$;
COMMENT ON FUNCTION event_log.seal_day IS
  'Stores the seal of the day after the last one; audited. Its leaves follow in the same transaction, by seal_heads.';

CREATE FUNCTION event_log.seal_heads(
  of_day date, run_nos bigint[], run_seqs bigint[], counts bigint[], leaves bytea[]
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM event_log.seal s WHERE s.day = of_day AND s.xmin = pg_current_xact_id()::xid) THEN
    RAISE EXCEPTION 'leaves of % are stored with their seal, or not at all', of_day
      USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  INSERT INTO event_log.sealed_head (day, run_no, run_seq, events, leaf)
  SELECT of_day, h.run_no, h.run_seq, h.events, h.leaf
  FROM unnest(run_nos, run_seqs, counts, leaves) AS h (run_no, run_seq, events, leaf);
END $$;
COMMENT ON FUNCTION event_log.seal_heads IS 'Stores leaves of the seal that the same transaction has stored.';

GRANT SELECT ON event_log.seal, event_log.sealed_head TO runlog_operator, runlog_backup;
GRANT EXECUTE ON FUNCTION
  event_log.seal_day(date, bigint, bigint, bytea, bytea, bytea, smallint, text),
  event_log.seal_heads(date, bigint[], bigint[], bigint[], bytea[]) TO runlog_operator;

RESET ROLE;
