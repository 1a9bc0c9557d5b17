-- One dead letter with its bytes and its headers decoded. $1 number, $2 tenant or null. No locks.
SELECT d.dead_letter_id, d.topic, d.partition, d.source_offset, d.tenant_id, d.run_id,
       d.reason, d.detail, d.received_at, d.status, d.truncated, d.value_bytes,
       d.key, d.value, d.value_digest,
       ARRAY(SELECT decode(h.header ->> 'name', 'base64')
             FROM jsonb_array_elements(d.headers) WITH ORDINALITY AS h (header, place)
             ORDER BY h.place) AS header_names,
       ARRAY(SELECT decode(h.header ->> 'value', 'base64')
             FROM jsonb_array_elements(d.headers) WITH ORDINALITY AS h (header, place)
             ORDER BY h.place) AS header_values
FROM event_log.dead_letters d
WHERE d.dead_letter_id = $1
  AND ($2::text IS NULL OR d.tenant_id = $2)
