-- What tells the reasons of a halt apart, and who did what about it.
-- Sources of the rules: docs/operations.md (Halts). Only crates/event-log reads and writes these tables.

-- Only adds: programs of the version before go on with it. They store a halt without its code.
ALTER TABLE event_log.stream
  ADD COLUMN topic_id    uuid,
  ADD COLUMN halted_code text COLLATE "C" CHECK (octet_length(halted_code) BETWEEN 1 AND 64),
  ADD COLUMN halted_at   timestamptz;
COMMENT ON COLUMN event_log.stream.topic_id IS
  'The topic''s own id in Kafka (KIP-516): a topic that was deleted and made again has another. NULL = not known yet.';
COMMENT ON COLUMN event_log.stream.halted_code IS
  'Why the partition waits for an operator, in one word; NULL = it does not, or an older version halted it.';
COMMENT ON COLUMN event_log.stream.halted_at IS 'Since when the partition waits for an operator.';

CREATE OR REPLACE VIEW event_log.streams AS
SELECT topic, partition, generation, group_id, start_offset, next_offset,
       appended, duplicates, dead_lettered, skipped, owner, halted_reason, updated_at, closed_at,
       halted_code, halted_at, topic_id
FROM event_log.stream;
COMMENT ON COLUMN event_log.streams.halted_code IS
  'Why the partition waits for an operator, in one word, e.g. expired; NULL = it does not.';
COMMENT ON COLUMN event_log.streams.halted_at IS 'Since when the partition waits for an operator.';
COMMENT ON COLUMN event_log.streams.topic_id IS 'The topic''s own id in Kafka (KIP-516); NULL = not known yet.';

-- One row per act of an operator, written in the transaction of the act.
CREATE TABLE event_log.audit (
  audit_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  login    text COLLATE "C" NOT NULL DEFAULT session_user,
  operator text NOT NULL CHECK (octet_length(operator) BETWEEN 1 AND 256),
  action   text COLLATE "C" NOT NULL CHECK (octet_length(action) BETWEEN 1 AND 64),
  subject  text COLLATE "C" NOT NULL CHECK (octet_length(subject) BETWEEN 1 AND 512),
  detail   jsonb NOT NULL DEFAULT '{}',
  reason   text CHECK (octet_length(reason) <= 1024)
);
COMMENT ON TABLE event_log.audit IS
  'What operators did, append-only: one row per act, written in the transaction of the act.';
COMMENT ON COLUMN event_log.audit.audit_id IS 'The row''s number.';
COMMENT ON COLUMN event_log.audit.at IS 'The database''s clock.';
COMMENT ON COLUMN event_log.audit.login IS 'The database login that did it (session_user).';
COMMENT ON COLUMN event_log.audit.operator IS 'Who did it, as the command says: user and host.';
COMMENT ON COLUMN event_log.audit.action IS 'What was done, e.g. stream.resume.';
COMMENT ON COLUMN event_log.audit.subject IS 'What it was done to, e.g. run-events/1.';
COMMENT ON COLUMN event_log.audit.detail IS 'The particulars: what was there before, and what is there now.';
COMMENT ON COLUMN event_log.audit.reason IS 'Why, in the operator''s words.';

CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON event_log.audit
  FOR EACH STATEMENT EXECUTE FUNCTION event_log.refuse_change();
CREATE TRIGGER audit_row_is_immutable BEFORE UPDATE OR DELETE ON event_log.audit
  FOR EACH ROW EXECUTE FUNCTION event_log.refuse_change();
ALTER TABLE event_log.audit ENABLE ALWAYS TRIGGER audit_is_append_only;
ALTER TABLE event_log.audit ENABLE ALWAYS TRIGGER audit_row_is_immutable;
