-- The canonical, append-only log of RunEvents, and the ledger of the Kafka offsets behind it.
-- Sources of the rules: docs/guarantees.md. Only crates/event-log reads and writes these tables.

CREATE SCHEMA event_log;
COMMENT ON SCHEMA event_log IS
  'The canonical, append-only log of RunEvents. For people: the views run_events, dead_letters, streams.';

-- One row per Kafka topic, partition and generation. The row of the open generation is the offset,
-- the fence and the ledger, so it is updated once per batch: a low fillfactor keeps that update HOT.
CREATE TABLE event_log.stream (
  stream_id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  topic              text COLLATE "C" NOT NULL,
  partition          integer NOT NULL CHECK (partition >= 0),
  generation         integer NOT NULL DEFAULT 1 CHECK (generation >= 1),
  group_id           text NOT NULL,
  start_offset       bigint NOT NULL CHECK (start_offset >= 0),
  next_offset        bigint NOT NULL,
  claim              uuid,
  owner              text,
  appended           bigint NOT NULL DEFAULT 0 CHECK (appended >= 0),
  duplicates         bigint NOT NULL DEFAULT 0 CHECK (duplicates >= 0),
  dead_lettered      bigint NOT NULL DEFAULT 0 CHECK (dead_lettered >= 0),
  skipped            bigint NOT NULL DEFAULT 0 CHECK (skipped >= 0),
  last_record_offset bigint,
  last_record_digest bytea CHECK (octet_length(last_record_digest) = 32),
  last_persisted_at  timestamptz,
  halted_reason      text,
  updated_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  closed_at          timestamptz,
  UNIQUE (topic, partition, generation),
  -- The ledger: every offset is appended, a duplicate, a dead letter, or skipped.
  CONSTRAINT stream_ledger_balances
    CHECK (next_offset - start_offset = appended + duplicates + dead_lettered + skipped)
) WITH (fillfactor = 10);

CREATE UNIQUE INDEX stream_one_open_generation ON event_log.stream (topic, partition)
  WHERE closed_at IS NULL;

COMMENT ON TABLE event_log.stream IS
  'One row per Kafka topic, partition and generation: the stored offset, the fence (claim) and the ledger.';
COMMENT ON COLUMN event_log.stream.stream_id IS 'Narrow key of the row; events and dead letters refer to it.';
COMMENT ON COLUMN event_log.stream.topic IS 'Kafka topic.';
COMMENT ON COLUMN event_log.stream.partition IS 'Kafka partition.';
COMMENT ON COLUMN event_log.stream.generation IS
  'Counts the readings of this partition: 1, and one more for each operator''s rewind or resume.';
COMMENT ON COLUMN event_log.stream.group_id IS 'The Kafka consumer group that may claim this partition.';
COMMENT ON COLUMN event_log.stream.start_offset IS 'The first Kafka offset this generation accounts for.';
COMMENT ON COLUMN event_log.stream.next_offset IS
  'The next Kafka offset to read. Every event of a lower offset is visible: the readers'' horizon.';
COMMENT ON COLUMN event_log.stream.claim IS 'Random token of the process that may append; another token is fenced.';
COMMENT ON COLUMN event_log.stream.owner IS 'Who holds the claim: host and process, for people.';
COMMENT ON COLUMN event_log.stream.appended IS 'Records appended as events.';
COMMENT ON COLUMN event_log.stream.duplicates IS 'Records that repeat an event of the log; nothing was inserted.';
COMMENT ON COLUMN event_log.stream.dead_lettered IS 'Records kept as dead letters.';
COMMENT ON COLUMN event_log.stream.skipped IS
  'Offsets that hold no record for a reader: control records, aborted transactions, compacted records.';
COMMENT ON COLUMN event_log.stream.last_record_offset IS 'Offset of the last record delivered.';
COMMENT ON COLUMN event_log.stream.last_record_digest IS
  'SHA-256 of that record''s timestamp, key and value: recognises a recreated topic.';
COMMENT ON COLUMN event_log.stream.last_persisted_at IS 'persisted_at of the last batch; later batches are not earlier.';
COMMENT ON COLUMN event_log.stream.halted_reason IS 'Why the partition waits for an operator; NULL = it does not.';
COMMENT ON COLUMN event_log.stream.updated_at IS 'When the row last changed.';
COMMENT ON COLUMN event_log.stream.closed_at IS 'When the next generation took over; NULL = this is the open one.';

CREATE TABLE event_log.run (
  run_no    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  tenant_id text COLLATE "C" NOT NULL,
  run_id    text COLLATE "C" NOT NULL,
  UNIQUE (tenant_id, run_id)
);
COMMENT ON TABLE event_log.run IS 'Gives every run of every tenant a narrow number, which keeps the log''s indexes small.';
COMMENT ON COLUMN event_log.run.run_no IS 'The run''s number.';
COMMENT ON COLUMN event_log.run.tenant_id IS 'The tenant that owns the run.';
COMMENT ON COLUMN event_log.run.run_id IS 'The run''s id; unique within its tenant.';

-- Not partitioned: partitions by run would take away the global uniqueness of event_id.
-- No foreign keys: run_no and stream_id come from rows that the same transaction locked or inserted
-- and that cannot be deleted, so a check per inserted event would only cost.
CREATE TABLE event_log.event (
  run_no             bigint NOT NULL,
  run_seq            bigint NOT NULL CHECK (run_seq >= 1),
  stream_id          bigint NOT NULL,
  source_offset      bigint NOT NULL,
  emitted_at         timestamptz NOT NULL,
  persisted_at       timestamptz NOT NULL,
  event_id           uuid NOT NULL,
  engine_attempt_id  integer NOT NULL CHECK (engine_attempt_id >= 1),
  logical_attempt_id integer NOT NULL CHECK (logical_attempt_id >= 1),
  idempotency_key    bytea NOT NULL CHECK (octet_length(idempotency_key) = 32),
  content_digest     bytea NOT NULL CHECK (octet_length(content_digest) = 32),
  chain_digest       bytea NOT NULL CHECK (octet_length(chain_digest) = 32),
  tenant_id          text COLLATE "C" NOT NULL,
  event_type         text COLLATE "C" NOT NULL,
  project_id         text COLLATE "C" NOT NULL,
  environment_id     text COLLATE "C" NOT NULL,
  plan_id            text COLLATE "C" NOT NULL,
  plan_version       text COLLATE "C" NOT NULL,
  step_id            text COLLATE "C",
  payload            jsonb,
  PRIMARY KEY (run_no, run_seq),
  CONSTRAINT event_idempotency_key_unique UNIQUE (run_no, idempotency_key),
  CONSTRAINT event_id_unique UNIQUE (event_id),
  CONSTRAINT event_source_unique UNIQUE (stream_id, source_offset)
);
COMMENT ON TABLE event_log.event IS 'The events, append-only. Read them through the view event_log.run_events.';
COMMENT ON COLUMN event_log.event.run_no IS 'The run, as event_log.run numbers it.';
COMMENT ON COLUMN event_log.event.run_seq IS 'The event''s place in its run: 1, 2, 3 ... without holes, in append order.';
COMMENT ON COLUMN event_log.event.stream_id IS 'The topic, partition and generation it came through.';
COMMENT ON COLUMN event_log.event.source_offset IS 'Its Kafka offset.';
COMMENT ON COLUMN event_log.event.emitted_at IS 'The producer''s clock, kept but never used for order.';
COMMENT ON COLUMN event_log.event.persisted_at IS 'The database''s clock when it was appended: the authority for time.';
COMMENT ON COLUMN event_log.event.event_id IS 'The event''s identity; unique in the whole log.';
COMMENT ON COLUMN event_log.event.engine_attempt_id IS 'The engine''s own attempt counter, from 1.';
COMMENT ON COLUMN event_log.event.logical_attempt_id IS 'The attempt as the plan counts it, from 1.';
COMMENT ON COLUMN event_log.event.idempotency_key IS 'Unique per run; a second record with it is a duplicate or a conflict.';
COMMENT ON COLUMN event_log.event.content_digest IS
  'SHA-256 over the canonical JSON of what makes the content; decides duplicate or conflict.';
COMMENT ON COLUMN event_log.event.chain_digest IS
  'SHA-256 over the run''s previous chain_digest and this event: an edit of history breaks the chain.';
COMMENT ON COLUMN event_log.event.tenant_id IS 'The tenant that owns the run.';
COMMENT ON COLUMN event_log.event.event_type IS 'What happened, e.g. StepFailed.';
COMMENT ON COLUMN event_log.event.project_id IS 'The project.';
COMMENT ON COLUMN event_log.event.environment_id IS 'The environment.';
COMMENT ON COLUMN event_log.event.plan_id IS 'The plan that the run executes.';
COMMENT ON COLUMN event_log.event.plan_version IS 'The plan''s version.';
COMMENT ON COLUMN event_log.event.step_id IS 'The step; NULL on run events.';
COMMENT ON COLUMN event_log.event.payload IS 'What the producer attached, or NULL.';

CREATE TABLE event_log.dead_letter (
  dead_letter_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  stream_id      bigint NOT NULL,
  source_offset  bigint NOT NULL,
  tenant_id      text COLLATE "C",
  run_id         text COLLATE "C",
  reason         text COLLATE "C" NOT NULL,
  detail         text NOT NULL CHECK (octet_length(detail) <= 1024),
  key            bytea,
  value          bytea,
  headers        jsonb NOT NULL DEFAULT '[]',
  received_at    timestamptz NOT NULL,
  status         text COLLATE "C" NOT NULL DEFAULT 'pending'
                 CHECK (status IN ('pending', 'replayed', 'discarded')),
  CONSTRAINT dead_letter_source_unique UNIQUE (stream_id, source_offset)
);
CREATE INDEX dead_letter_pending ON event_log.dead_letter (reason) WHERE status = 'pending';
COMMENT ON TABLE event_log.dead_letter IS 'Records that could not be appended, with their bytes, reason and place.';
COMMENT ON COLUMN event_log.dead_letter.dead_letter_id IS 'The dead letter''s number.';
COMMENT ON COLUMN event_log.dead_letter.stream_id IS 'The topic, partition and generation it came through.';
COMMENT ON COLUMN event_log.dead_letter.source_offset IS 'Its Kafka offset.';
COMMENT ON COLUMN event_log.dead_letter.tenant_id IS 'The tenant, where the record names a valid one that its topic may speak for.';
COMMENT ON COLUMN event_log.dead_letter.run_id IS 'The run, where the record names a valid one.';
COMMENT ON COLUMN event_log.dead_letter.reason IS 'Why, as one of the documented reasons, e.g. invalid_json.';
COMMENT ON COLUMN event_log.dead_letter.detail IS 'What exactly is wrong; names the field.';
COMMENT ON COLUMN event_log.dead_letter.key IS 'The record''s key, as it was; NULL = none.';
COMMENT ON COLUMN event_log.dead_letter.value IS 'The record''s value, as it was; NULL = a tombstone.';
COMMENT ON COLUMN event_log.dead_letter.headers IS
  'The record''s headers in order: [{"name": base64, "value": base64 or null}, ...]. Names are bytes on the wire.';
COMMENT ON COLUMN event_log.dead_letter.received_at IS 'The database''s clock when it was kept.';
COMMENT ON COLUMN event_log.dead_letter.status IS 'pending, replayed (published again) or discarded (by an operator).';

-- Append-only, for every role, the owner and a replication session included. The statement triggers
-- refuse even a statement that meets no row; the row triggers hold where no statement is run
-- (logical replication).
CREATE FUNCTION event_log.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% of %.% is refused: the log is append-only', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
    USING ERRCODE = 'insufficient_privilege';
END $$;
COMMENT ON FUNCTION event_log.refuse_change() IS 'Trigger: refuses UPDATE, DELETE and TRUNCATE.';

CREATE TRIGGER event_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON event_log.event
  FOR EACH STATEMENT EXECUTE FUNCTION event_log.refuse_change();
CREATE TRIGGER event_row_is_immutable BEFORE UPDATE OR DELETE ON event_log.event
  FOR EACH ROW EXECUTE FUNCTION event_log.refuse_change();
ALTER TABLE event_log.event ENABLE ALWAYS TRIGGER event_is_append_only;
ALTER TABLE event_log.event ENABLE ALWAYS TRIGGER event_row_is_immutable;
CREATE TRIGGER run_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON event_log.run
  FOR EACH STATEMENT EXECUTE FUNCTION event_log.refuse_change();
CREATE TRIGGER run_row_is_immutable BEFORE UPDATE OR DELETE ON event_log.run
  FOR EACH ROW EXECUTE FUNCTION event_log.refuse_change();
ALTER TABLE event_log.run ENABLE ALWAYS TRIGGER run_is_append_only;
ALTER TABLE event_log.run ENABLE ALWAYS TRIGGER run_row_is_immutable;
CREATE TRIGGER stream_is_never_deleted BEFORE DELETE OR TRUNCATE ON event_log.stream
  FOR EACH STATEMENT EXECUTE FUNCTION event_log.refuse_change();
ALTER TABLE event_log.stream ENABLE ALWAYS TRIGGER stream_is_never_deleted;

-- A stored offset never falls, and a generation's identity never changes.
CREATE FUNCTION event_log.refuse_stream_rewrite() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.next_offset < OLD.next_offset THEN
    RAISE EXCEPTION 'next_offset of %/% generation % may not fall from % to %',
      OLD.topic, OLD.partition, OLD.generation, OLD.next_offset, NEW.next_offset
      USING ERRCODE = 'check_violation', SCHEMA = 'event_log', TABLE = 'stream',
            HINT = 'To read a partition again, open a new generation.';
  END IF;
  IF (NEW.stream_id, NEW.topic, NEW.partition, NEW.generation, NEW.start_offset)
     IS DISTINCT FROM (OLD.stream_id, OLD.topic, OLD.partition, OLD.generation, OLD.start_offset) THEN
    RAISE EXCEPTION 'the identity of %/% generation % may not change', OLD.topic, OLD.partition, OLD.generation
      USING ERRCODE = 'check_violation', SCHEMA = 'event_log', TABLE = 'stream';
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION event_log.refuse_stream_rewrite() IS
  'Trigger: next_offset never falls, and a generation''s topic, partition and start stay what they are.';
CREATE TRIGGER stream_only_advances BEFORE UPDATE ON event_log.stream
  FOR EACH ROW EXECUTE FUNCTION event_log.refuse_stream_rewrite();
ALTER TABLE event_log.stream ENABLE ALWAYS TRIGGER stream_only_advances;

-- Views for people.
CREATE VIEW event_log.run_events AS
SELECT r.tenant_id, r.run_id, e.run_seq, e.event_id, e.event_type,
       encode(e.idempotency_key, 'hex') AS idempotency_key,
       e.project_id, e.environment_id, e.plan_id, e.plan_version,
       e.engine_attempt_id, e.logical_attempt_id, e.step_id,
       e.emitted_at, e.persisted_at, e.payload,
       s.topic, s.partition, e.source_offset
FROM event_log.event e
JOIN event_log.run r USING (run_no)
JOIN event_log.stream s USING (stream_id);
COMMENT ON VIEW event_log.run_events IS 'Every event of the log with its run and its Kafka position.';
COMMENT ON COLUMN event_log.run_events.tenant_id IS 'The tenant that owns the run.';
COMMENT ON COLUMN event_log.run_events.run_id IS 'The run''s id; unique within its tenant.';
COMMENT ON COLUMN event_log.run_events.run_seq IS 'The event''s place in its run: 1, 2, 3 ... The only order there is.';
COMMENT ON COLUMN event_log.run_events.event_id IS 'The event''s identity; unique in the whole log.';
COMMENT ON COLUMN event_log.run_events.event_type IS 'What happened, e.g. StepFailed.';
COMMENT ON COLUMN event_log.run_events.idempotency_key IS 'The key, 64 lower-case hex digits; unique per run.';
COMMENT ON COLUMN event_log.run_events.project_id IS 'The project.';
COMMENT ON COLUMN event_log.run_events.environment_id IS 'The environment.';
COMMENT ON COLUMN event_log.run_events.plan_id IS 'The plan that the run executes.';
COMMENT ON COLUMN event_log.run_events.plan_version IS 'The plan''s version.';
COMMENT ON COLUMN event_log.run_events.engine_attempt_id IS 'The engine''s own attempt counter, from 1.';
COMMENT ON COLUMN event_log.run_events.logical_attempt_id IS 'The attempt as the plan counts it, from 1.';
COMMENT ON COLUMN event_log.run_events.step_id IS 'The step; NULL on run events.';
COMMENT ON COLUMN event_log.run_events.emitted_at IS 'The producer''s clock, kept but never used for order.';
COMMENT ON COLUMN event_log.run_events.persisted_at IS 'The database''s clock when it was appended: the authority for time.';
COMMENT ON COLUMN event_log.run_events.payload IS 'What the producer attached, or NULL.';
COMMENT ON COLUMN event_log.run_events.topic IS 'The Kafka topic it came from.';
COMMENT ON COLUMN event_log.run_events.partition IS 'The Kafka partition it came from.';
COMMENT ON COLUMN event_log.run_events.source_offset IS 'Its Kafka offset.';

CREATE VIEW event_log.dead_letters AS
SELECT d.dead_letter_id, s.topic, s.partition, d.source_offset, d.tenant_id, d.run_id,
       d.reason, d.detail, d.key, d.value, d.headers, d.received_at, d.status
FROM event_log.dead_letter d
JOIN event_log.stream s USING (stream_id);
COMMENT ON VIEW event_log.dead_letters IS 'Records that could not be appended, with their bytes, reason and place.';
COMMENT ON COLUMN event_log.dead_letters.dead_letter_id IS 'The dead letter''s number.';
COMMENT ON COLUMN event_log.dead_letters.topic IS 'The Kafka topic it came from.';
COMMENT ON COLUMN event_log.dead_letters.partition IS 'The Kafka partition it came from.';
COMMENT ON COLUMN event_log.dead_letters.source_offset IS 'Its Kafka offset.';
COMMENT ON COLUMN event_log.dead_letters.tenant_id IS 'The tenant, where the record names a valid one that its topic may speak for.';
COMMENT ON COLUMN event_log.dead_letters.run_id IS 'The run, where the record names a valid one.';
COMMENT ON COLUMN event_log.dead_letters.reason IS 'Why, as one of the documented reasons, e.g. invalid_json.';
COMMENT ON COLUMN event_log.dead_letters.detail IS 'What exactly is wrong; names the field.';
COMMENT ON COLUMN event_log.dead_letters.key IS 'The record''s key, as it was; NULL = none.';
COMMENT ON COLUMN event_log.dead_letters.value IS 'The record''s value, as it was; NULL = a tombstone.';
COMMENT ON COLUMN event_log.dead_letters.headers IS
  'The record''s headers in order: [{"name": base64, "value": base64 or null}, ...]. Names are bytes on the wire.';
COMMENT ON COLUMN event_log.dead_letters.received_at IS 'The database''s clock when it was kept.';
COMMENT ON COLUMN event_log.dead_letters.status IS 'pending, replayed (published again) or discarded (by an operator).';

CREATE VIEW event_log.streams AS
SELECT topic, partition, generation, group_id, start_offset, next_offset,
       appended, duplicates, dead_lettered, skipped, owner, halted_reason, updated_at, closed_at
FROM event_log.stream;
COMMENT ON VIEW event_log.streams IS
  'The ledger, for operators: next_offset - start_offset = appended + duplicates + dead_lettered + skipped.';
COMMENT ON COLUMN event_log.streams.topic IS 'Kafka topic.';
COMMENT ON COLUMN event_log.streams.partition IS 'Kafka partition.';
COMMENT ON COLUMN event_log.streams.generation IS
  'Counts the readings of this partition: 1, and one more for each operator''s rewind or resume.';
COMMENT ON COLUMN event_log.streams.group_id IS 'The Kafka consumer group that may claim this partition.';
COMMENT ON COLUMN event_log.streams.start_offset IS 'The first Kafka offset this generation accounts for.';
COMMENT ON COLUMN event_log.streams.next_offset IS 'The next Kafka offset to read; everything below it is visible.';
COMMENT ON COLUMN event_log.streams.appended IS 'Records appended as events.';
COMMENT ON COLUMN event_log.streams.duplicates IS 'Records that repeat an event of the log; nothing was inserted.';
COMMENT ON COLUMN event_log.streams.dead_lettered IS 'Records kept as dead letters.';
COMMENT ON COLUMN event_log.streams.skipped IS
  'Offsets that hold no record for a reader: control records, aborted transactions, compacted records.';
COMMENT ON COLUMN event_log.streams.owner IS 'Who holds the claim: host and process, for people.';
COMMENT ON COLUMN event_log.streams.halted_reason IS 'Why the partition waits for an operator; NULL = it does not.';
COMMENT ON COLUMN event_log.streams.updated_at IS 'When the row last changed.';
COMMENT ON COLUMN event_log.streams.closed_at IS 'When the next generation took over; NULL = this is the open one.';
