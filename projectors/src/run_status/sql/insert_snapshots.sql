-- Stores the batch's snapshots, but none whose document is longer than $10 bytes as PostgreSQL writes it. It
-- may be longer than the text that it comes as: a number with an exponent has all of its digits. But no
-- number gets 64 times as long, so a short text need not be written out to know.
-- Locks: the rows inserted. Nobody else inserts them: their runs are locked by lock_runs.sql, or inserted by
-- this transaction.
INSERT INTO run_snapshot (
  tenant_id, run_id, run_seq, status, consistency, at_end, state, digest, persisted_at
)
SELECT tenant_id, run_id, run_seq, status, consistency, at_end, document, digest, persisted_at
FROM unnest(
  $1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::boolean[], $7::text[],
  $8::bytea[], $9::timestamptz[]
) AS new (
  tenant_id, run_id, run_seq, status, consistency, at_end, state, digest, persisted_at
)
-- OFFSET 0: read from its text once, however often it is named.
CROSS JOIN LATERAL (SELECT new.state::jsonb AS document OFFSET 0) state
WHERE 64 * octet_length(new.state)::bigint <= $10 OR octet_length(document::text) <= $10
