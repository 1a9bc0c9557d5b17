-- Writes the runs of the batch that had no row when it began, as the fold left them. A row that another
-- worker has made since is an error (23505), after which the batch begins again.
-- Locks: the rows inserted; waits for a concurrent insert of the same run. In key order (which the caller's
-- lists have, and a scan of them keeps), and when all other runs of the batch are locked: who waits here waits
-- for a batch that waits, if at all, for a run further on. So two batches cannot wait for each other.
INSERT INTO run_stats_run (
  tenant_id, run_id, project_id, environment_id, plan_id, status, is_queued, emitted_started_at,
  last_event_seq
)
SELECT *
FROM unnest(
  $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::boolean[],
  $8::timestamptz[], $9::bigint[]
)
