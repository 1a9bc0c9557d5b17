-- Notes tenants that have something in the stream. Locks: none beyond the new rows; the stream's row is locked, so nobody
-- else adds to this stream.
INSERT INTO event_log.stream_tenant (stream_id, tenant_id)
SELECT $1, tenant_id
FROM unnest($2::text[]) AS input (tenant_id)
ON CONFLICT DO NOTHING
