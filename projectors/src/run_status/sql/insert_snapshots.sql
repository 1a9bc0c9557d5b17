-- Stores the batch's snapshots, but none whose document is longer than $10 bytes. Returns all snapshots
-- that the runs which got one have now.
-- Locks: the rows inserted. Nobody else inserts them: their runs are locked by lock_runs.sql.
WITH stored AS (
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
  WHERE octet_length(document::text) <= $10
  ON CONFLICT (tenant_id, run_id, run_seq) DO UPDATE
  SET status = excluded.status,
      consistency = excluded.consistency,
      at_end = excluded.at_end,
      state = excluded.state,
      digest = excluded.digest,
      persisted_at = excluded.persisted_at,
      projected_at = clock_timestamp()
  RETURNING tenant_id, run_id, run_seq, at_end
)
SELECT tenant_id, run_id, run_seq, at_end FROM stored
UNION
SELECT s.tenant_id, s.run_id, s.run_seq, s.at_end
FROM (SELECT DISTINCT tenant_id, run_id FROM stored) runs
JOIN run_snapshot s ON s.tenant_id = runs.tenant_id AND s.run_id = runs.run_id
