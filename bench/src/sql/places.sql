-- The places, from 0, of the columns that tell ingest's batches apart, among those of SELECT *. Locks: none.
SELECT max(place) FILTER (WHERE attname = 'stream_id'), max(place) FILTER (WHERE attname = 'persisted_at')
FROM (SELECT attname, row_number() OVER (ORDER BY attnum) - 1 AS place
      FROM pg_attribute
      WHERE attrelid = 'event_log.event'::regclass AND attnum > 0 AND NOT attisdropped) columns
