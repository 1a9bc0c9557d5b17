-- Appends the batch's events. Refuses (by inserting nothing) a batch that does not continue its runs: a
-- run's new run_seqs must follow each other, and the first must be 1 or follow an event of the log that
-- has the chain digest which the new chain was computed from ($21 runs, $22 digests before the batch).
-- The rows come straight from the arrays, two of which are read once more for this: a CTE would copy every row.
-- Locks: waits for a concurrent insert of the same (run, seq), key or event id, then fails as unique.
INSERT INTO event_log.event (
  run_no, run_seq, stream_id, source_offset, emitted_at, persisted_at, event_id, engine_attempt_id,
  logical_attempt_id, idempotency_key, content_digest, chain_digest, tenant_id, event_type,
  project_id, environment_id, plan_id, plan_version, step_id, payload
)
SELECT
  run_no, run_seq, $1, source_offset, emitted_at, $2, event_id, engine_attempt_id,
  logical_attempt_id, idempotency_key, content_digest, chain_digest, tenant_id, event_type,
  project_id, environment_id, plan_id, plan_version, step_id, payload::jsonb
FROM unnest(
  $3::bigint[], $4::bigint[], $5::bigint[], $6::timestamptz[], $7::uuid[], $8::integer[],
  $9::integer[], $10::bytea[], $11::bytea[], $12::bytea[], $13::text[], $14::text[],
  $15::text[], $16::text[], $17::text[], $18::text[], $19::text[], $20::text[]
) AS input (
  run_no, run_seq, source_offset, emitted_at, event_id, engine_attempt_id,
  logical_attempt_id, idempotency_key, content_digest, chain_digest, tenant_id, event_type,
  project_id, environment_id, plan_id, plan_version, step_id, payload
)
WHERE NOT EXISTS (
  SELECT
  FROM (
    SELECT run_no, min(run_seq) AS first, max(run_seq) AS last, count(*) AS events
    FROM unnest($3::bigint[], $4::bigint[]) AS place (run_no, run_seq)
    GROUP BY run_no
  ) new
  LEFT JOIN unnest($21::bigint[], $22::bytea[]) AS before (run_no, chain_digest) USING (run_no)
  WHERE last - first + 1 <> events
    -- Not as NOT EXISTS, which may be planned as a scan of the whole log. No such event: NULL.
    OR first > 1 AND (
      SELECT e.chain_digest = before.chain_digest
      FROM event_log.event e
      WHERE e.run_no = new.run_no AND e.run_seq = new.first - 1
    ) IS NOT TRUE
)
