-- The projection run_stats: how many runs and step attempts started and ended in each hour and day, and how
-- long they took. Durations are kept as histograms, which add up over any set of rows.

-- A histogram is an array of counts. The subscript is the bucket: 0 to 15 hold these milliseconds, and from
-- there on each doubling is cut into 16 buckets of the same width, so that a bucket is never wider than 1/16
-- of the durations in it. The array begins at the lowest bucket in use and ends at the highest; a bucket
-- between them that holds nothing is NULL, which takes a bit. Without durations the array is empty.
-- The same rule in Rust: projectors/src/run_stats/histogram.rs.

CREATE FUNCTION read_model.bucket_start(bucket integer) RETURNS bigint
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN CASE WHEN bucket < 16 THEN bucket ELSE (16 + bucket % 16)::bigint << (bucket / 16 - 1) END;
COMMENT ON FUNCTION read_model.bucket_start IS
  'The shortest duration, in milliseconds, that a histogram counts in this bucket; the longest is 1 below the next one''s.';

CREATE FUNCTION read_model.merge(a bigint[], b bigint[]) RETURNS bigint[]
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
  bucket integer := array_lower(b, 1);
  n bigint;
BEGIN
  FOREACH n IN ARRAY b LOOP
    IF n IS NOT NULL THEN
      a[bucket] := coalesce(a[bucket], 0) + n;
    END IF;
    bucket := bucket + 1;
  END LOOP;
  RETURN a;
END $$;
COMMENT ON FUNCTION read_model.merge(bigint[], bigint[]) IS 'One histogram that counts what both of these count.';

CREATE AGGREGATE read_model.merge(bigint[]) (
  SFUNC = read_model.merge, STYPE = bigint[], INITCOND = '{}', COMBINEFUNC = read_model.merge, PARALLEL = SAFE
);
COMMENT ON AGGREGATE read_model.merge(bigint[]) IS
  'One histogram that counts what all of these count; exact, in any order. Empty where there is none.';

CREATE FUNCTION read_model.quantile(histogram bigint[], q double precision) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
  -- In decimal digits: 0.07 of 100 is the 7th, and not the 8th.
  rank numeric := greatest(ceil(q::numeric * (SELECT sum(count) FROM unnest(histogram) AS count)), 1);
  bucket integer := array_lower(histogram, 1);
  counted numeric := 0;
  n bigint;
BEGIN
  IF q NOT BETWEEN 0 AND 1 THEN
    RAISE EXCEPTION 'a quantile is between 0 and 1, not %', q USING ERRCODE = 'numeric_value_out_of_range';
  END IF;
  FOREACH n IN ARRAY histogram LOOP
    counted := counted + coalesce(n, 0);
    IF counted >= rank THEN
      RETURN (read_model.bucket_start(bucket) + read_model.bucket_start(bucket + 1) - 1) / 2;
    END IF;
    bucket := bucket + 1;
  END LOOP;
  RETURN NULL;
END $$;
COMMENT ON FUNCTION read_model.quantile IS
  'The duration, in milliseconds, that this share (0.95 = p95) of a histogram''s durations do not exceed: the one of rank '
  'ceil(q * count), as the middle of its bucket, which is at most 1/32 (3.2 %) off, and exact below 32 ms. '
  'NULL where the histogram is empty.';

CREATE FUNCTION read_model.buckets(histogram bigint[])
RETURNS TABLE (from_ms bigint, to_ms bigint, count bigint)
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
BEGIN ATOMIC
  SELECT read_model.bucket_start(bucket), read_model.bucket_start(bucket + 1) - 1, histogram[bucket]
  FROM generate_subscripts(histogram, 1) AS bucket
  WHERE histogram[bucket] IS NOT NULL
  ORDER BY bucket;
END;
COMMENT ON FUNCTION read_model.buckets IS
  'A histogram as rows: how many durations are from from_ms to to_ms, both included, in milliseconds.';

SELECT read_model.add_projection('run_stats');

-- One row per run, changed with every event of it, as run_current is.
CREATE TABLE run_stats_1.run_stats_run (
  tenant_id          text COLLATE "C" NOT NULL,
  run_id             text COLLATE "C" NOT NULL,
  project_id         text COLLATE "C" NOT NULL,
  environment_id     text COLLATE "C" NOT NULL,
  plan_id            text COLLATE "C" NOT NULL,
  status             text COLLATE "C" NOT NULL
                     CHECK (status IN ('PENDING', 'RUNNING', 'PAUSED', 'COMPLETED', 'FAILED', 'CANCELLED')),
  is_queued          boolean NOT NULL,
  emitted_started_at timestamptz,
  last_event_seq     bigint NOT NULL,
  projected_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, run_id)
) WITH (fillfactor = 70);

COMMENT ON TABLE run_stats_1.run_stats_run IS
  'What run_stats needs to know of each run to count its next event. To look at runs, use run_current.';
COMMENT ON COLUMN run_stats_1.run_stats_run.tenant_id IS 'The tenant that owns the run.';
COMMENT ON COLUMN run_stats_1.run_stats_run.run_id IS 'The run''s id; unique within its tenant.';
COMMENT ON COLUMN run_stats_1.run_stats_run.project_id IS 'The project, as the run''s first event says.';
COMMENT ON COLUMN run_stats_1.run_stats_run.environment_id IS 'The environment, as the run''s first event says.';
COMMENT ON COLUMN run_stats_1.run_stats_run.plan_id IS 'The plan that the run executes, as its first event says.';
COMMENT ON COLUMN run_stats_1.run_stats_run.status IS 'PENDING, RUNNING, PAUSED, COMPLETED, FAILED or CANCELLED.';
COMMENT ON COLUMN run_stats_1.run_stats_run.is_queued IS 'Whether a RunQueued was counted: a second one is not.';
COMMENT ON COLUMN run_stats_1.run_stats_run.emitted_started_at IS 'RunStarted, by the producer''s clock.';
COMMENT ON COLUMN run_stats_1.run_stats_run.last_event_seq IS 'run_seq of the last event of the run, of whatever type.';
COMMENT ON COLUMN run_stats_1.run_stats_run.projected_at IS 'When this row was last written, by the database''s clock.';

CREATE TABLE run_stats_1.run_stats_attempt (
  tenant_id          text COLLATE "C" NOT NULL,
  run_id             text COLLATE "C" NOT NULL,
  step_id            text COLLATE "C" NOT NULL,
  logical_attempt_id integer NOT NULL,
  status             text COLLATE "C" NOT NULL CHECK (status IN ('RUNNING', 'SUCCESS', 'FAILED', 'SKIPPED')),
  emitted_started_at timestamptz,
  last_event_seq     bigint NOT NULL,
  projected_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, run_id, step_id, logical_attempt_id)
) WITH (fillfactor = 80);

COMMENT ON TABLE run_stats_1.run_stats_attempt IS
  'What run_stats needs to know of each attempt to count its next event. To look at attempts, use step_attempt.';
COMMENT ON COLUMN run_stats_1.run_stats_attempt.tenant_id IS 'The tenant that owns the run.';
COMMENT ON COLUMN run_stats_1.run_stats_attempt.run_id IS 'The run.';
COMMENT ON COLUMN run_stats_1.run_stats_attempt.step_id IS 'The step, as the plan names it.';
COMMENT ON COLUMN run_stats_1.run_stats_attempt.logical_attempt_id IS
  'The attempt as the plan counts it, from 1; a retry is the next one.';
COMMENT ON COLUMN run_stats_1.run_stats_attempt.status IS
  'RUNNING, SUCCESS, FAILED or SKIPPED. Kept for ever: the last three say that a later event is invalid.';
COMMENT ON COLUMN run_stats_1.run_stats_attempt.emitted_started_at IS
  'StepStarted, by the producer''s clock; NULL on a skipped attempt.';
COMMENT ON COLUMN run_stats_1.run_stats_attempt.last_event_seq IS 'run_seq of the attempt''s latest valid event.';
COMMENT ON COLUMN run_stats_1.run_stats_attempt.projected_at IS 'When this row was last written, by the database''s clock.';

-- Rows that many runs share: the present hour's and day's change with nearly every batch, and no indexed
-- column does, so the low fillfactor keeps the changes HOT.
CREATE TABLE run_stats_1.run_hourly (
  tenant_id       text COLLATE "C" NOT NULL,
  hour            timestamptz NOT NULL,
  project_id      text COLLATE "C" NOT NULL,
  environment_id  text COLLATE "C" NOT NULL,
  plan_id         text COLLATE "C" NOT NULL,
  queued          bigint NOT NULL,
  started         bigint NOT NULL,
  completed       bigint NOT NULL,
  failed          bigint NOT NULL,
  cancelled       bigint NOT NULL,
  duration_ms_sum numeric NOT NULL,
  durations       bigint[] NOT NULL,
  last_event_seq  bigint NOT NULL,
  projected_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, hour, project_id, environment_id, plan_id)
) WITH (fillfactor = 50);
CREATE INDEX run_hourly_by_plan ON run_stats_1.run_hourly (tenant_id, plan_id, hour);

COMMENT ON TABLE run_stats_1.run_hourly IS
  'How many runs were queued, started and ended in each hour, by project, environment and plan. An event counts in the '
  'hour of its persisted_at. No row = nothing happened.';
COMMENT ON COLUMN run_stats_1.run_hourly.tenant_id IS 'The tenant that owns the runs.';
COMMENT ON COLUMN run_stats_1.run_hourly.hour IS 'The hour''s beginning; hours are UTC''s.';
COMMENT ON COLUMN run_stats_1.run_hourly.project_id IS 'The project, as the runs'' first events say.';
COMMENT ON COLUMN run_stats_1.run_hourly.environment_id IS 'The environment, as the runs'' first events say.';
COMMENT ON COLUMN run_stats_1.run_hourly.plan_id IS 'The plan that the runs execute, as their first events say.';
COMMENT ON COLUMN run_stats_1.run_hourly.queued IS 'Runs that were queued: the first RunQueued of each.';
COMMENT ON COLUMN run_stats_1.run_hourly.started IS 'Runs that started.';
COMMENT ON COLUMN run_stats_1.run_hourly.completed IS 'Runs that ended COMPLETED, whenever they started.';
COMMENT ON COLUMN run_stats_1.run_hourly.failed IS 'Runs that ended FAILED, whenever they started.';
COMMENT ON COLUMN run_stats_1.run_hourly.cancelled IS 'Runs that ended CANCELLED, whenever they started.';
COMMENT ON COLUMN run_stats_1.run_hourly.duration_ms_sum IS
  'Sum of the ended runs'' durations, in milliseconds: from start to end by the producer''s clock, one below 0 as 0. Their '
  'number is completed + failed + cancelled.';
COMMENT ON COLUMN run_stats_1.run_hourly.durations IS
  'The same durations as a histogram, for read_model.merge, quantile and buckets.';
COMMENT ON COLUMN run_stats_1.run_hourly.last_event_seq IS
  'The highest run_seq of the events that were counted here, whatever their runs; every read model has this column.';
COMMENT ON COLUMN run_stats_1.run_hourly.projected_at IS 'When this row was last written, by the database''s clock.';

CREATE TABLE run_stats_1.run_daily (
  tenant_id       text COLLATE "C" NOT NULL,
  day             timestamptz NOT NULL,
  project_id      text COLLATE "C" NOT NULL,
  environment_id  text COLLATE "C" NOT NULL,
  plan_id         text COLLATE "C" NOT NULL,
  queued          bigint NOT NULL,
  started         bigint NOT NULL,
  completed       bigint NOT NULL,
  failed          bigint NOT NULL,
  cancelled       bigint NOT NULL,
  duration_ms_sum numeric NOT NULL,
  durations       bigint[] NOT NULL,
  last_event_seq  bigint NOT NULL,
  projected_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, day, project_id, environment_id, plan_id)
) WITH (fillfactor = 50);
CREATE INDEX run_daily_by_plan ON run_stats_1.run_daily (tenant_id, plan_id, day);

COMMENT ON TABLE run_stats_1.run_daily IS
  'How many runs were queued, started and ended on each day, by project, environment and plan: run_hourly, summed up. An '
  'event counts on the day of its persisted_at. No row = nothing happened.';
COMMENT ON COLUMN run_stats_1.run_daily.tenant_id IS 'The tenant that owns the runs.';
COMMENT ON COLUMN run_stats_1.run_daily.day IS 'The day''s beginning; days are UTC''s.';
COMMENT ON COLUMN run_stats_1.run_daily.project_id IS 'The project, as the runs'' first events say.';
COMMENT ON COLUMN run_stats_1.run_daily.environment_id IS 'The environment, as the runs'' first events say.';
COMMENT ON COLUMN run_stats_1.run_daily.plan_id IS 'The plan that the runs execute, as their first events say.';
COMMENT ON COLUMN run_stats_1.run_daily.queued IS 'Runs that were queued: the first RunQueued of each.';
COMMENT ON COLUMN run_stats_1.run_daily.started IS 'Runs that started.';
COMMENT ON COLUMN run_stats_1.run_daily.completed IS 'Runs that ended COMPLETED, whenever they started.';
COMMENT ON COLUMN run_stats_1.run_daily.failed IS 'Runs that ended FAILED, whenever they started.';
COMMENT ON COLUMN run_stats_1.run_daily.cancelled IS 'Runs that ended CANCELLED, whenever they started.';
COMMENT ON COLUMN run_stats_1.run_daily.duration_ms_sum IS
  'Sum of the ended runs'' durations, in milliseconds: from start to end by the producer''s clock, one below 0 as 0. Their '
  'number is completed + failed + cancelled.';
COMMENT ON COLUMN run_stats_1.run_daily.durations IS
  'The same durations as a histogram, for read_model.merge, quantile and buckets.';
COMMENT ON COLUMN run_stats_1.run_daily.last_event_seq IS
  'The highest run_seq of the events that were counted here, whatever their runs; every read model has this column.';
COMMENT ON COLUMN run_stats_1.run_daily.projected_at IS 'When this row was last written, by the database''s clock.';

CREATE TABLE run_stats_1.step_daily (
  tenant_id       text COLLATE "C" NOT NULL,
  day             timestamptz NOT NULL,
  plan_id         text COLLATE "C" NOT NULL,
  step_id         text COLLATE "C" NOT NULL,
  started         bigint NOT NULL,
  succeeded       bigint NOT NULL,
  failed          bigint NOT NULL,
  skipped         bigint NOT NULL,
  retries         bigint NOT NULL,
  duration_ms_sum numeric NOT NULL,
  durations       bigint[] NOT NULL,
  last_event_seq  bigint NOT NULL,
  projected_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, day, plan_id, step_id)
) WITH (fillfactor = 50);
CREATE INDEX step_daily_by_step ON run_stats_1.step_daily (tenant_id, plan_id, step_id, day);

COMMENT ON TABLE run_stats_1.step_daily IS
  'How many attempts of each step of each plan started and finished on each day. An event counts on the day of its '
  'persisted_at. No row = nothing happened.';
COMMENT ON COLUMN run_stats_1.step_daily.tenant_id IS 'The tenant that owns the runs.';
COMMENT ON COLUMN run_stats_1.step_daily.day IS 'The day''s beginning; days are UTC''s.';
COMMENT ON COLUMN run_stats_1.step_daily.plan_id IS 'The plan that the runs execute, as their first events say.';
COMMENT ON COLUMN run_stats_1.step_daily.step_id IS 'The step, as the plan names it.';
COMMENT ON COLUMN run_stats_1.step_daily.started IS 'Attempts that started.';
COMMENT ON COLUMN run_stats_1.step_daily.succeeded IS 'Attempts that finished as SUCCESS, whenever they started.';
COMMENT ON COLUMN run_stats_1.step_daily.failed IS 'Attempts that finished as FAILED, whenever they started.';
COMMENT ON COLUMN run_stats_1.step_daily.skipped IS 'Attempts that were skipped.';
COMMENT ON COLUMN run_stats_1.step_daily.retries IS
  'Attempts that started or were skipped where the run had another attempt of the step before.';
COMMENT ON COLUMN run_stats_1.step_daily.duration_ms_sum IS
  'Sum of the finished attempts'' durations, in milliseconds: from start to end by the producer''s clock, one below 0 as 0. '
  'Their number is succeeded + failed; a skipped attempt has none.';
COMMENT ON COLUMN run_stats_1.step_daily.durations IS
  'The same durations as a histogram, for read_model.merge, quantile and buckets.';
COMMENT ON COLUMN run_stats_1.step_daily.last_event_seq IS
  'The highest run_seq of the events that were counted here, whatever their runs; every read model has this column.';
COMMENT ON COLUMN run_stats_1.step_daily.projected_at IS 'When this row was last written, by the database''s clock.';

SELECT read_model.publish('run_stats', 1);
