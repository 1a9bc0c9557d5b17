-- The projection run_timeline: in which state each run was, from when to when.

SELECT read_model.add_projection('run_timeline');

-- A row is written when its interval begins and again when it ends, which changes indexed columns: a low
-- fillfactor would gain nothing.
CREATE TABLE run_timeline_1.run_state_interval (
  tenant_id          text COLLATE "C" NOT NULL,
  run_id             text COLLATE "C" NOT NULL,
  interval_no        bigint NOT NULL CHECK (interval_no >= 1),
  state              text COLLATE "C" NOT NULL
                     CHECK (state IN ('PENDING', 'RUNNING', 'PAUSED', 'COMPLETED', 'FAILED', 'CANCELLED')),
  started_at         timestamptz NOT NULL,
  ended_at           timestamptz,
  duration_ms        bigint CHECK (duration_ms >= 0),
  emitted_started_at timestamptz NOT NULL,
  emitted_ended_at   timestamptz,
  project_id         text COLLATE "C" NOT NULL,
  environment_id     text COLLATE "C" NOT NULL,
  plan_id            text COLLATE "C" NOT NULL,
  plan_version       text COLLATE "C" NOT NULL,
  last_event_seq     bigint NOT NULL,
  projected_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, run_id, interval_no),
  CONSTRAINT run_state_interval_end_is_whole
    CHECK ((ended_at IS NULL) = (duration_ms IS NULL) AND (ended_at IS NULL) = (emitted_ended_at IS NULL))
);
-- Who was in a state at a time: those that are in it still, and those that left it later. One index
-- answers both halves, since "ended_at IS NULL" is a place in it like any other.
CREATE INDEX run_state_interval_by_time ON run_timeline_1.run_state_interval (tenant_id, state, ended_at, started_at);
-- The longest first, read backwards.
CREATE INDEX run_state_interval_longest ON run_timeline_1.run_state_interval (tenant_id, plan_id, state, duration_ms)
  WHERE duration_ms IS NOT NULL;

COMMENT ON TABLE run_timeline_1.run_state_interval IS
  'The states that each run went through, one row for each stay in one. The first row is PENDING: from the run''s '
  'first RunQueued, or its first event where no RunQueued came before RunStarted, to RunStarted; 0 ms in a run that '
  'begins with RunStarted. Each later row begins with the event that ends the one before it. The row of COMPLETED, '
  'FAILED or CANCELLED is the last and has no end. Step events, unknown types and invalid transitions change nothing. '
  'Times are persisted_at of these events, unless the column is called emitted_. active_ms and paused_ms of run_current '
  'are the sums over the rows with an end, of RUNNING and of PAUSED, rounded down after adding.';
COMMENT ON COLUMN run_timeline_1.run_state_interval.tenant_id IS 'The tenant that owns the run.';
COMMENT ON COLUMN run_timeline_1.run_state_interval.run_id IS 'The run.';
COMMENT ON COLUMN run_timeline_1.run_state_interval.interval_no IS '1, 2, 3 ... within the run, in the order of its events.';
COMMENT ON COLUMN run_timeline_1.run_state_interval.state IS
  'PENDING, RUNNING or PAUSED; or COMPLETED, FAILED or CANCELLED on the run''s last row.';
COMMENT ON COLUMN run_timeline_1.run_state_interval.started_at IS
  'The event that led to the state; for PENDING the first RunQueued, or else the run''s first event.';
COMMENT ON COLUMN run_timeline_1.run_state_interval.ended_at IS
  'The event that led out of the state; NULL = the run is in it still. Before started_at where the two events came '
  'through partitions whose clocks differ.';
COMMENT ON COLUMN run_timeline_1.run_state_interval.duration_ms IS
  'ended_at - started_at in whole milliseconds, not below 0; NULL while there is no end.';
COMMENT ON COLUMN run_timeline_1.run_state_interval.emitted_started_at IS 'The event of started_at, by the producer''s clock.';
COMMENT ON COLUMN run_timeline_1.run_state_interval.emitted_ended_at IS 'The event of ended_at, by the producer''s clock.';
COMMENT ON COLUMN run_timeline_1.run_state_interval.project_id IS 'The project, as the run''s first event says.';
COMMENT ON COLUMN run_timeline_1.run_state_interval.environment_id IS 'The environment, as the run''s first event says.';
COMMENT ON COLUMN run_timeline_1.run_state_interval.plan_id IS 'The plan that the run executes, as its first event says.';
COMMENT ON COLUMN run_timeline_1.run_state_interval.plan_version IS 'The plan''s version, as the run''s first event says.';
COMMENT ON COLUMN run_timeline_1.run_state_interval.last_event_seq IS 'run_seq of the event that last changed this row.';
COMMENT ON COLUMN run_timeline_1.run_state_interval.projected_at IS 'When this row was last written, by the database''s clock.';

-- Changed with every event of the run, and no indexed column with it: the low fillfactor keeps the
-- change HOT, beside the old version, without an index entry.
CREATE TABLE run_timeline_1.run_timeline_run (
  tenant_id          text COLLATE "C" NOT NULL,
  run_id             text COLLATE "C" NOT NULL,
  last_event_seq     bigint NOT NULL,
  is_queued          boolean NOT NULL,
  interval_no        bigint NOT NULL,
  state              text COLLATE "C" NOT NULL
                     CHECK (state IN ('PENDING', 'RUNNING', 'PAUSED', 'COMPLETED', 'FAILED', 'CANCELLED')),
  started_at         timestamptz NOT NULL,
  emitted_started_at timestamptz NOT NULL,
  project_id         text COLLATE "C" NOT NULL,
  environment_id     text COLLATE "C" NOT NULL,
  plan_id            text COLLATE "C" NOT NULL,
  plan_version       text COLLATE "C" NOT NULL,
  projected_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, run_id)
) WITH (fillfactor = 70);

COMMENT ON TABLE run_timeline_1.run_timeline_run IS
  'For the projection run_timeline itself: how far each run is applied, and its last row of run_state_interval. May change.';
COMMENT ON COLUMN run_timeline_1.run_timeline_run.tenant_id IS 'The tenant that owns the run.';
COMMENT ON COLUMN run_timeline_1.run_timeline_run.run_id IS 'The run.';
COMMENT ON COLUMN run_timeline_1.run_timeline_run.last_event_seq IS 'run_seq of the last event of the run, of whatever type.';
COMMENT ON COLUMN run_timeline_1.run_timeline_run.is_queued IS
  'Whether the run had a RunQueued while it was PENDING: a further one moves nothing.';
COMMENT ON COLUMN run_timeline_1.run_timeline_run.interval_no IS 'The run''s last interval.';
COMMENT ON COLUMN run_timeline_1.run_timeline_run.state IS 'state of the last interval.';
COMMENT ON COLUMN run_timeline_1.run_timeline_run.started_at IS 'started_at of the last interval.';
COMMENT ON COLUMN run_timeline_1.run_timeline_run.emitted_started_at IS 'emitted_started_at of the last interval.';
COMMENT ON COLUMN run_timeline_1.run_timeline_run.project_id IS 'The project, as the run''s first event says.';
COMMENT ON COLUMN run_timeline_1.run_timeline_run.environment_id IS 'The environment, as the run''s first event says.';
COMMENT ON COLUMN run_timeline_1.run_timeline_run.plan_id IS 'The plan that the run executes, as its first event says.';
COMMENT ON COLUMN run_timeline_1.run_timeline_run.plan_version IS 'The plan''s version, as the run''s first event says.';
COMMENT ON COLUMN run_timeline_1.run_timeline_run.projected_at IS 'When this row was last written, by the database''s clock.';

SELECT read_model.publish('run_timeline', 1);
