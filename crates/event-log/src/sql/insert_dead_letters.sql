-- Keeps the refused records of the batch. Locks: none beyond the new rows.
INSERT INTO event_log.dead_letter
  (stream_id, source_offset, tenant_id, run_id, reason, detail, key, value, headers, received_at)
SELECT $1, source_offset, tenant_id, run_id, reason, detail, key, value, headers::jsonb, $2
FROM unnest(
  $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[], $9::bytea[], $10::text[]
) AS input (source_offset, tenant_id, run_id, reason, detail, key, value, headers)
