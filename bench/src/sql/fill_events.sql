-- Twenty events of each of the runs $1 to $2 of a filling of $4 events over $3 partitions, small and of no meaning, with all
-- constraints on. Event ids are of version 7 where $5, older than any of a load and rising; else of version 4. Locks: none
-- but the new rows.
INSERT INTO event_log.event (
  run_no, run_seq, stream_id, source_offset, emitted_at, persisted_at, event_id, engine_attempt_id,
  logical_attempt_id, idempotency_key, content_digest, chain_digest, tenant_id, event_type,
  project_id, environment_id, plan_id, plan_version, step_id, payload
)
SELECT
  n + 1, seq, s.stream_id, n / $3 * 20 + seq - 1, at.t, at.t,
  CASE WHEN $5
    THEN (lpad(to_hex(at.ms), 12, '0') || '7' || substr(random.hex, 1, 3) || 'a' || substr(random.hex, 4, 15))::uuid
    ELSE gen_random_uuid()
  END,
  1, seq, digest.sha, digest.sha, digest.sha, 'acme-retail', 'StepProgress', 'finance', 'prod', 'revenue', 'v12', NULL, NULL
FROM generate_series($1::bigint, $2::bigint) AS n
JOIN event_log.stream s ON s.topic = 'filling' AND s.partition = n % $3
CROSS JOIN generate_series(1, 20) AS seq
-- OFFSET 0: computed once, not in each place of use.
CROSS JOIN LATERAL (SELECT 1767225600000 - ($4::bigint - n * 20 - seq) / 10 AS ms,
                           timestamptz '2026-01-01T00:00:00Z' AS t OFFSET 0) at
CROSS JOIN LATERAL (SELECT md5((n * 20 + seq)::text) AS hex OFFSET 0) random
CROSS JOIN LATERAL (SELECT sha256(int8send(n * 20 + seq)) AS sha OFFSET 0) digest
ORDER BY n, seq
