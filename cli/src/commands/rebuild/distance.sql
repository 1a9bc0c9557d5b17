-- How the versions $2 (live) and $3 (being built) of the projection $1 stand to each other.
WITH checkpoint AS (
  SELECT * FROM read_model.projection_checkpoints WHERE projection = $1
), apart AS (
  SELECT format('%s/%s', topic, partition) AS stream,
         greatest(coalesce(a.next_offset, 0) - coalesce(b.next_offset, 0), 0) AS offsets
  FROM (SELECT * FROM checkpoint WHERE version = $2) a
  FULL JOIN (SELECT * FROM checkpoint WHERE version = $3) b USING (topic, partition, generation)
  WHERE a.next_offset IS DISTINCT FROM b.next_offset
)
SELECT (SELECT count(*) = 2 FROM read_model.projection_version
        WHERE projection = $1 AND (version, state) IN (($2, 'live'), ($3, 'building'))) AS is_current,
       (SELECT count(*) FROM apart) AS streams,
       (SELECT coalesce(sum(offsets), 0)::bigint FROM apart) AS offsets,
       (SELECT stream FROM apart ORDER BY offsets DESC, stream LIMIT 1) AS farthest,
       (SELECT count(*) FROM read_model.projection_worker
        WHERE $1 = ANY (projections) AND expires_at > clock_timestamp()) AS workers
