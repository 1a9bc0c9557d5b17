-- The claims of streams and of checkpoints that are held, and how many there will be: each of $1 partitions has one of its
-- own and one of each projection. Locks: none.
SELECT (SELECT count(claim) FROM event_log.stream) + (SELECT count(claim) FROM read_model.projection_checkpoint),
       $1::bigint * (1 + (SELECT count(*) FROM read_model.projection_version WHERE state = 'live'))
