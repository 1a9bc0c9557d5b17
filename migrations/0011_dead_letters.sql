-- Quotas of dead letters' bytes: what was cut says so, and what the pending ones take is counted.
-- Sources of the rules: docs/operations.md (Dead letters). Only crates/event-log reads and writes these tables.

SET LOCAL ROLE runlog_owner;

-- Only adds, and rewrites and reads no row, however large the table is: columns without a default, checks that hold
-- for new rows. `truncated` IS NULL = kept before there were quotas: whole, and not counted.
ALTER TABLE event_log.dead_letter
  ADD COLUMN value_bytes  bigint,
  ADD COLUMN value_digest bytea,
  ADD COLUMN truncated    boolean,
  ADD CONSTRAINT dead_letter_value_digest CHECK (octet_length(value_digest) = 32) NOT VALID;
COMMENT ON COLUMN event_log.dead_letter.value_bytes IS
  'Bytes of the value as the record had it; NULL = a tombstone, or kept before there were quotas.';
COMMENT ON COLUMN event_log.dead_letter.value_digest IS
  'SHA-256 of the value as the record had it; NULL = a tombstone, or kept before there were quotas.';
COMMENT ON COLUMN event_log.dead_letter.truncated IS
  'Whether only the first bytes of key, headers or value are kept; NULL = kept before there were quotas, whole and not counted in dead_letter_usage.';

CREATE OR REPLACE VIEW event_log.dead_letters WITH (security_invoker = true) AS
SELECT d.dead_letter_id, s.topic, s.partition, d.source_offset, d.tenant_id, d.run_id,
       d.reason, d.detail, d.key, d.value, d.headers, d.received_at, d.status,
       coalesce(d.truncated, false) AS truncated,
       coalesce(d.value_bytes, octet_length(d.value)) AS value_bytes,
       coalesce(d.value_digest, sha256(d.value)) AS value_digest
FROM event_log.dead_letter d
LEFT JOIN event_log.stream s USING (stream_id);
COMMENT ON COLUMN event_log.dead_letters.key IS 'The record''s key, or its first bytes; NULL = none.';
COMMENT ON COLUMN event_log.dead_letters.value IS 'The record''s value, or its first bytes; NULL = a tombstone.';
COMMENT ON COLUMN event_log.dead_letters.headers IS
  'The record''s headers, or the first of them, in order: [{"name": base64, "value": base64 or null}, ...]. Names are bytes on the wire.';
COMMENT ON COLUMN event_log.dead_letters.truncated IS
  'Whether only the first bytes of key, headers or value are kept, because the tenant (or the topic, where no tenant is known) had reached its quota.';
COMMENT ON COLUMN event_log.dead_letters.value_bytes IS 'Bytes of the value as the record had it; NULL = a tombstone.';
COMMENT ON COLUMN event_log.dead_letters.value_digest IS 'SHA-256 of the value as the record had it; NULL = a tombstone.';

CREATE FUNCTION event_log.dead_letter_bytes(key bytea, value bytea, headers jsonb) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN coalesce(octet_length(key), 0)::bigint + coalesce(octet_length(value), 0) + octet_length(headers::text) - 2;
COMMENT ON FUNCTION event_log.dead_letter_bytes(bytea, bytea, jsonb) IS
  'What a dead letter counts in its quota: key, value and the text of its headers without the brackets. Reads no large value, only its length.';

-- Two rows for a tenant in a stream, so that nobody waits for ingest and ingest for nobody: one that only the owner of
-- the stream writes, under the lock of the stream row, and one that only others write. Updated with every batch that
-- has dead letters: the low fillfactor keeps that HOT.
CREATE TABLE event_log.dead_letter_usage (
  tenant_id text COLLATE "C",
  stream_id bigint NOT NULL,
  freed     boolean NOT NULL,
  bytes     bigint NOT NULL,
  CONSTRAINT dead_letter_usage_unique UNIQUE NULLS NOT DISTINCT (tenant_id, stream_id, freed)
) WITH (fillfactor = 50);
COMMENT ON TABLE event_log.dead_letter_usage IS
  'Bytes of pending dead letters: the sum over a tenant''s rows, or over those without a tenant of a topic''s streams, is what its quota bounds.';
COMMENT ON COLUMN event_log.dead_letter_usage.tenant_id IS 'The dead letters'' tenant; NULL = none is known, they count for their topic.';
COMMENT ON COLUMN event_log.dead_letter_usage.stream_id IS 'The topic, partition and generation that they came through.';
COMMENT ON COLUMN event_log.dead_letter_usage.freed IS
  'false: what ingest has kept, never less. true: what was given back since (replayed, discarded, erased, deleted), below 0.';
COMMENT ON COLUMN event_log.dead_letter_usage.bytes IS 'The bytes, as dead_letter_bytes counts them.';

SELECT event_log.secure_table('event_log.dead_letter_usage');
CREATE POLICY functions_of_the_owner ON event_log.dead_letter_usage TO runlog_owner USING (true) WITH CHECK (true);

GRANT SELECT, INSERT, UPDATE (bytes) ON event_log.dead_letter_usage TO runlog_ingest;
GRANT SELECT ON event_log.dead_letter_usage TO runlog_operator, runlog_backup;
GRANT SELECT (value_bytes, value_digest, truncated) ON event_log.dead_letter TO runlog_analyst;

-- Whatever changes or deletes dead letters, the bytes of those that are pending stay counted right.
-- A function of the owner: who may change letters needs no rights on the counters.
CREATE FUNCTION event_log.recount_dead_letters() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  IF TG_OP = 'DELETE' THEN
    INSERT INTO event_log.dead_letter_usage AS usage (tenant_id, stream_id, freed, bytes)
    SELECT tenant_id, stream_id, true, -sum(event_log.dead_letter_bytes(key, value, headers))
    FROM before WHERE status = 'pending' AND truncated IS NOT NULL
    GROUP BY tenant_id, stream_id ORDER BY tenant_id, stream_id
    ON CONFLICT (tenant_id, stream_id, freed) DO UPDATE SET bytes = usage.bytes + excluded.bytes;
  ELSE
    INSERT INTO event_log.dead_letter_usage AS usage (tenant_id, stream_id, freed, bytes)
    SELECT tenant_id, stream_id, true, sum(bytes)
    FROM (SELECT tenant_id, stream_id, -event_log.dead_letter_bytes(key, value, headers) AS bytes
          FROM before WHERE status = 'pending' AND truncated IS NOT NULL
          UNION ALL
          SELECT tenant_id, stream_id, event_log.dead_letter_bytes(key, value, headers)
          FROM after WHERE status = 'pending' AND truncated IS NOT NULL) changed
    GROUP BY tenant_id, stream_id HAVING sum(bytes) <> 0 ORDER BY tenant_id, stream_id
    ON CONFLICT (tenant_id, stream_id, freed) DO UPDATE SET bytes = usage.bytes + excluded.bytes;
  END IF;
  RETURN NULL;
END $$;
COMMENT ON FUNCTION event_log.recount_dead_letters() IS
  'Trigger: gives the bytes of dead letters that are no longer pending, emptied or deleted back to the quota. Locks: rows of dead_letter_usage that ingest never writes.';
CREATE TRIGGER dead_letter_changed AFTER UPDATE ON event_log.dead_letter
  REFERENCING OLD TABLE AS before NEW TABLE AS after
  FOR EACH STATEMENT EXECUTE FUNCTION event_log.recount_dead_letters();
CREATE TRIGGER dead_letter_deleted AFTER DELETE ON event_log.dead_letter
  REFERENCING OLD TABLE AS before
  FOR EACH STATEMENT EXECUTE FUNCTION event_log.recount_dead_letters();
ALTER TABLE event_log.dead_letter ENABLE ALWAYS TRIGGER dead_letter_changed;
ALTER TABLE event_log.dead_letter ENABLE ALWAYS TRIGGER dead_letter_deleted;

RESET ROLE;
