-- Appends the batch's events. Refuses (by inserting nothing) a batch that would leave a hole: a
-- run's new run_seqs must follow each other, and the first must be 1 or follow one in the log.
-- Locks: waits for a concurrent insert of the same (run, seq), key or event id, then fails as unique.
WITH input AS MATERIALIZED (
  SELECT *
  FROM unnest(
    $3::bigint[], $4::bigint[], $5::bigint[], $6::timestamptz[], $7::uuid[], $8::integer[],
    $9::integer[], $10::bytea[], $11::bytea[], $12::bytea[], $13::text[], $14::text[],
    $15::text[], $16::text[], $17::text[], $18::text[], $19::text[], $20::text[]
  ) AS input (
    run_no, run_seq, source_offset, emitted_at, event_id, engine_attempt_id,
    logical_attempt_id, idempotency_key, content_digest, chain_digest, tenant_id, event_type,
    project_id, environment_id, plan_id, plan_version, step_id, payload
  )
), hole AS (
  SELECT
  FROM (
    SELECT run_no, min(run_seq) AS first, max(run_seq) AS last, count(*) AS events
    FROM input
    GROUP BY run_no
  ) new
  WHERE last - first + 1 <> events
    -- Not as NOT EXISTS, which may be planned as a scan of the whole log.
    OR first > 1 AND (
      SELECT e.run_seq FROM event_log.event e WHERE e.run_no = new.run_no AND e.run_seq = new.first - 1
    ) IS NULL
)
INSERT INTO event_log.event (
  run_no, run_seq, stream_id, source_offset, emitted_at, persisted_at, event_id, engine_attempt_id,
  logical_attempt_id, idempotency_key, content_digest, chain_digest, tenant_id, event_type,
  project_id, environment_id, plan_id, plan_version, step_id, payload
)
SELECT
  run_no, run_seq, $1, source_offset, emitted_at, $2, event_id, engine_attempt_id,
  logical_attempt_id, idempotency_key, content_digest, chain_digest, tenant_id, event_type,
  project_id, environment_id, plan_id, plan_version, step_id, payload::jsonb
FROM input
WHERE NOT EXISTS (SELECT FROM hole)
