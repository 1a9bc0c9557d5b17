-- Keeps the refused records of the batch, and counts their bytes ($14, $15: by tenant). Locks: the new rows, and the
-- stream's rows of dead_letter_usage, which nobody else writes: others write those with `freed`.
WITH kept AS (
  INSERT INTO event_log.dead_letter
    (stream_id, source_offset, tenant_id, run_id, reason, detail, key, value, headers, received_at,
     value_bytes, value_digest, truncated)
  SELECT $1, source_offset, tenant_id, run_id, reason, detail, key, value, headers::jsonb, $2,
         value_bytes, value_digest, truncated
  FROM unnest(
    $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[], $9::bytea[], $10::text[],
    $11::bigint[], $12::bytea[], $13::boolean[]
  ) AS input (source_offset, tenant_id, run_id, reason, detail, key, value, headers,
              value_bytes, value_digest, truncated)
)
INSERT INTO event_log.dead_letter_usage AS usage (tenant_id, stream_id, freed, bytes)
SELECT tenant_id, $1, false, bytes FROM unnest($14::text[], $15::bigint[]) AS added (tenant_id, bytes)
ON CONFLICT (tenant_id, stream_id, freed) DO UPDATE SET bytes = usage.bytes + excluded.bytes
