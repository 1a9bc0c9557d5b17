-- Writes the runs of the batch that had no row when it began, as the fold left them. A row that another
-- worker has made since is an error (23505), after which the batch begins again.
-- Locks: the rows inserted; waits for a concurrent insert of the same run. In key order (which the caller's
-- lists have, and a scan of them keeps), and when all other runs of the batch are locked: who waits here waits
-- for a batch that waits, if at all, for a run further on. So two batches cannot wait for each other.
INSERT INTO run_timeline_run (
  tenant_id, run_id, last_event_seq, is_queued, interval_no, state, started_at, emitted_started_at,
  project_id, environment_id, plan_id, plan_version
)
SELECT *
FROM unnest(
  $1::text[], $2::text[], $3::bigint[], $4::boolean[], $5::bigint[], $6::text[], $7::timestamptz[],
  $8::timestamptz[], $9::text[], $10::text[], $11::text[], $12::text[]
)
