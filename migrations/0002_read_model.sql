-- The read models that runlog-projectors builds from the log, and how far each of them has come.
-- Everything here but the checkpoints can be dropped and built again. Only projectors/ writes these tables.

CREATE SCHEMA read_model;
COMMENT ON SCHEMA read_model IS
  'What the log amounts to, for people and dashboards: run_current, step_attempt, run_inconsistency. '
  'projection_checkpoints says how far each read model has come.';

-- One row per run, changed with every event of it. Most changes touch no indexed column, so the
-- low fillfactor keeps them HOT: beside the old version, without an index entry.
CREATE TABLE read_model.run_current (
  tenant_id          text COLLATE "C" NOT NULL,
  run_id             text COLLATE "C" NOT NULL,
  project_id         text COLLATE "C" NOT NULL,
  environment_id     text COLLATE "C" NOT NULL,
  plan_id            text COLLATE "C" NOT NULL,
  plan_version       text COLLATE "C" NOT NULL,
  status             text COLLATE "C" NOT NULL
                     CHECK (status IN ('PENDING', 'RUNNING', 'PAUSED', 'COMPLETED', 'FAILED', 'CANCELLED')),
  consistency        text COLLATE "C" NOT NULL CHECK (consistency IN ('CONSISTENT', 'INCONSISTENT')),
  last_event_seq     bigint NOT NULL,
  queued_at          timestamptz,
  started_at         timestamptz,
  ended_at           timestamptz,
  sort_at            timestamptz NOT NULL,
  emitted_started_at timestamptz,
  emitted_ended_at   timestamptz,
  queue_wait_ms      bigint,
  active_ms          bigint GENERATED ALWAYS AS (active_us / 1000) STORED,
  paused_ms          bigint GENERATED ALWAYS AS (paused_us / 1000) STORED,
  wall_ms            bigint,
  emitted_wall_ms    bigint,
  steps_running      integer NOT NULL DEFAULT 0,
  steps_succeeded    integer NOT NULL DEFAULT 0,
  steps_failed       integer NOT NULL DEFAULT 0,
  steps_skipped      integer NOT NULL DEFAULT 0,
  retries            integer NOT NULL DEFAULT 0,
  error              jsonb,
  projected_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  first_persisted_at timestamptz NOT NULL,
  interval_since     timestamptz,
  active_us          bigint NOT NULL DEFAULT 0,
  paused_us          bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (tenant_id, run_id)
) WITH (fillfactor = 70);
CREATE INDEX run_current_newest ON read_model.run_current (tenant_id, sort_at DESC, run_id);
CREATE INDEX run_current_by_status ON read_model.run_current (tenant_id, status, sort_at DESC, run_id);

COMMENT ON TABLE read_model.run_current IS
  'Each run as its events so far leave it. All times are persisted_at of the event that made the transition, '
  'unless the column is called emitted_.';
COMMENT ON COLUMN read_model.run_current.tenant_id IS 'The tenant that owns the run.';
COMMENT ON COLUMN read_model.run_current.run_id IS 'The run''s id; unique within its tenant.';
COMMENT ON COLUMN read_model.run_current.project_id IS 'The project, as the run''s first event says.';
COMMENT ON COLUMN read_model.run_current.environment_id IS 'The environment, as the run''s first event says.';
COMMENT ON COLUMN read_model.run_current.plan_id IS 'The plan that the run executes, as its first event says.';
COMMENT ON COLUMN read_model.run_current.plan_version IS 'The plan''s version, as the run''s first event says.';
COMMENT ON COLUMN read_model.run_current.status IS
  'PENDING, RUNNING, PAUSED, COMPLETED, FAILED or CANCELLED; the last three never change again.';
COMMENT ON COLUMN read_model.run_current.consistency IS
  'INCONSISTENT where an event asked for an invalid transition (see run_inconsistency), else CONSISTENT.';
COMMENT ON COLUMN read_model.run_current.last_event_seq IS 'run_seq of the last event of the run, of whatever type.';
COMMENT ON COLUMN read_model.run_current.queued_at IS 'The first RunQueued.';
COMMENT ON COLUMN read_model.run_current.started_at IS 'RunStarted.';
COMMENT ON COLUMN read_model.run_current.ended_at IS 'RunCompleted, RunFailed or RunCancelled.';
COMMENT ON COLUMN read_model.run_current.sort_at IS
  'What lists of runs are sorted by: started_at, else queued_at, else persisted_at of the first event.';
COMMENT ON COLUMN read_model.run_current.emitted_started_at IS 'RunStarted, by the producer''s clock.';
COMMENT ON COLUMN read_model.run_current.emitted_ended_at IS 'The terminal event, by the producer''s clock.';
COMMENT ON COLUMN read_model.run_current.queue_wait_ms IS 'started_at - queued_at in whole milliseconds; NULL unless both are known.';
COMMENT ON COLUMN read_model.run_current.active_ms IS
  'Whole milliseconds in RUNNING, over closed intervals only: an open one counts when it closes.';
COMMENT ON COLUMN read_model.run_current.paused_ms IS
  'Whole milliseconds in PAUSED, over closed intervals only: an open one counts when it closes.';
COMMENT ON COLUMN read_model.run_current.wall_ms IS 'ended_at - started_at in whole milliseconds; NULL unless both are known.';
COMMENT ON COLUMN read_model.run_current.emitted_wall_ms IS
  'emitted_ended_at - emitted_started_at in whole milliseconds, as it is: negative where the producer''s clock went back.';
COMMENT ON COLUMN read_model.run_current.steps_running IS 'Steps whose latest attempt is RUNNING.';
COMMENT ON COLUMN read_model.run_current.steps_succeeded IS 'Steps whose latest attempt is SUCCESS.';
COMMENT ON COLUMN read_model.run_current.steps_failed IS 'Steps whose latest attempt is FAILED.';
COMMENT ON COLUMN read_model.run_current.steps_skipped IS 'Steps whose latest attempt is SKIPPED.';
COMMENT ON COLUMN read_model.run_current.retries IS 'Attempts beyond the first, summed over the steps.';
COMMENT ON COLUMN read_model.run_current.error IS
  'error in the payload of RunFailed, any JSON (JSON null included); NULL where there is none.';
COMMENT ON COLUMN read_model.run_current.projected_at IS 'When this row was last written, by the database''s clock.';
COMMENT ON COLUMN read_model.run_current.first_persisted_at IS 'persisted_at of the run''s first event, of whatever type.';
COMMENT ON COLUMN read_model.run_current.interval_since IS
  'Since when the run is RUNNING or PAUSED without a break; NULL in any other status.';
COMMENT ON COLUMN read_model.run_current.active_us IS 'active_ms in microseconds: the sum that goes on.';
COMMENT ON COLUMN read_model.run_current.paused_us IS 'paused_ms in microseconds: the sum that goes on.';

CREATE TABLE read_model.step_attempt (
  tenant_id            text COLLATE "C" NOT NULL,
  run_id               text COLLATE "C" NOT NULL,
  step_id              text COLLATE "C" NOT NULL,
  logical_attempt_id   integer NOT NULL,
  engine_attempt_id    integer NOT NULL,
  status               text COLLATE "C" NOT NULL CHECK (status IN ('RUNNING', 'SUCCESS', 'FAILED', 'SKIPPED')),
  started_at           timestamptz,
  completed_at         timestamptz,
  duration_ms          bigint,
  emitted_started_at   timestamptz,
  emitted_completed_at timestamptz,
  error                jsonb,
  last_event_seq       bigint NOT NULL,
  projected_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, run_id, step_id, logical_attempt_id)
) WITH (fillfactor = 80);

COMMENT ON TABLE read_model.step_attempt IS
  'Each attempt of each step that has at least one valid event. Times are persisted_at of the event that made the '
  'transition, unless the column is called emitted_.';
COMMENT ON COLUMN read_model.step_attempt.tenant_id IS 'The tenant that owns the run.';
COMMENT ON COLUMN read_model.step_attempt.run_id IS 'The run.';
COMMENT ON COLUMN read_model.step_attempt.step_id IS 'The step, as the plan names it.';
COMMENT ON COLUMN read_model.step_attempt.logical_attempt_id IS 'The attempt as the plan counts it, from 1; a retry is the next one.';
COMMENT ON COLUMN read_model.step_attempt.engine_attempt_id IS 'The engine''s own attempt counter, of the attempt''s latest valid event.';
COMMENT ON COLUMN read_model.step_attempt.status IS 'RUNNING, SUCCESS, FAILED or SKIPPED; the last three never change again.';
COMMENT ON COLUMN read_model.step_attempt.started_at IS 'StepStarted; NULL on a skipped attempt.';
COMMENT ON COLUMN read_model.step_attempt.completed_at IS 'StepCompleted, StepFailed or StepSkipped.';
COMMENT ON COLUMN read_model.step_attempt.duration_ms IS 'completed_at - started_at in whole milliseconds; NULL unless both are known.';
COMMENT ON COLUMN read_model.step_attempt.emitted_started_at IS 'StepStarted, by the producer''s clock.';
COMMENT ON COLUMN read_model.step_attempt.emitted_completed_at IS 'The finishing event, by the producer''s clock.';
COMMENT ON COLUMN read_model.step_attempt.error IS
  'error in the payload of StepFailed, any JSON (JSON null included); NULL where there is none.';
COMMENT ON COLUMN read_model.step_attempt.last_event_seq IS 'run_seq of the attempt''s latest valid event.';
COMMENT ON COLUMN read_model.step_attempt.projected_at IS 'When this row was last written, by the database''s clock.';

CREATE TABLE read_model.run_inconsistency (
  tenant_id          text COLLATE "C" NOT NULL,
  run_id             text COLLATE "C" NOT NULL,
  event_id           uuid NOT NULL,
  event_type         text COLLATE "C" NOT NULL,
  run_seq            bigint NOT NULL,
  persisted_at       timestamptz NOT NULL,
  step_id            text COLLATE "C",
  logical_attempt_id integer,
  prior_state        text COLLATE "C" NOT NULL,
  attempted_state    text COLLATE "C" NOT NULL,
  code               text COLLATE "C" NOT NULL,
  project_id         text COLLATE "C" NOT NULL,
  environment_id     text COLLATE "C" NOT NULL,
  last_event_seq     bigint NOT NULL GENERATED ALWAYS AS (run_seq) STORED,
  projected_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, run_id, event_id)
);
CREATE INDEX run_inconsistency_newest ON read_model.run_inconsistency (tenant_id, persisted_at DESC, run_id);

COMMENT ON TABLE read_model.run_inconsistency IS
  'Alerts: each event that asked for a transition which the state machine does not know. It changed no state.';
COMMENT ON COLUMN read_model.run_inconsistency.tenant_id IS 'The tenant that owns the run.';
COMMENT ON COLUMN read_model.run_inconsistency.run_id IS 'The run.';
COMMENT ON COLUMN read_model.run_inconsistency.event_id IS 'The event''s identity in the log.';
COMMENT ON COLUMN read_model.run_inconsistency.event_type IS 'The event''s type, e.g. RunCompleted.';
COMMENT ON COLUMN read_model.run_inconsistency.run_seq IS 'The event''s place in its run.';
COMMENT ON COLUMN read_model.run_inconsistency.persisted_at IS 'When the log took the event.';
COMMENT ON COLUMN read_model.run_inconsistency.step_id IS 'The step of a step event; NULL on run events.';
COMMENT ON COLUMN read_model.run_inconsistency.logical_attempt_id IS 'The attempt of a step event; NULL on run events.';
COMMENT ON COLUMN read_model.run_inconsistency.prior_state IS 'The run''s or the attempt''s status before the event, and after it.';
COMMENT ON COLUMN read_model.run_inconsistency.attempted_state IS 'The status that the event asked for.';
COMMENT ON COLUMN read_model.run_inconsistency.code IS 'What kind of alert this is: INVALID_TRANSITION.';
COMMENT ON COLUMN read_model.run_inconsistency.project_id IS 'The project, as the event says.';
COMMENT ON COLUMN read_model.run_inconsistency.environment_id IS 'The environment, as the event says.';
COMMENT ON COLUMN read_model.run_inconsistency.last_event_seq IS 'The same as run_seq; every read model has this column.';
COMMENT ON COLUMN read_model.run_inconsistency.projected_at IS 'When this row was written, by the database''s clock.';

-- How far each projection has read each stream, and which process may take it further. Topic,
-- partition and generation are copied from the log, so that nobody needs the log to read this.
-- Changed with every batch, so a low fillfactor keeps the change HOT.
CREATE TABLE read_model.projection_checkpoint (
  projection       text COLLATE "C" NOT NULL,
  stream_id        bigint NOT NULL,
  topic            text COLLATE "C" NOT NULL,
  partition        integer NOT NULL,
  generation       integer NOT NULL,
  next_offset      bigint NOT NULL,
  applied          bigint NOT NULL DEFAULT 0 CHECK (applied >= 0),
  claim            uuid,
  owner            text,
  lease_expires_at timestamptz,
  finished_at      timestamptz,
  updated_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (projection, stream_id),
  UNIQUE (projection, topic, partition, generation),
  CONSTRAINT projection_checkpoint_lease_is_whole
    CHECK ((claim IS NULL) = (owner IS NULL) AND (claim IS NULL) = (lease_expires_at IS NULL))
) WITH (fillfactor = 10);

COMMENT ON TABLE read_model.projection_checkpoint IS
  'One row per projection and stream: the offset it has come to, and the lease of the process that works on it.';
COMMENT ON COLUMN read_model.projection_checkpoint.projection IS 'The projection, e.g. run_status.';
COMMENT ON COLUMN read_model.projection_checkpoint.stream_id IS 'The stream, as event_log.stream numbers it.';
COMMENT ON COLUMN read_model.projection_checkpoint.topic IS 'The stream''s Kafka topic.';
COMMENT ON COLUMN read_model.projection_checkpoint.partition IS 'The stream''s Kafka partition.';
COMMENT ON COLUMN read_model.projection_checkpoint.generation IS
  'The stream''s generation; the next one is read when this one is finished.';
COMMENT ON COLUMN read_model.projection_checkpoint.next_offset IS 'Every event of a lower offset is in the read model.';
COMMENT ON COLUMN read_model.projection_checkpoint.applied IS
  'Events of the stream that were read; at the stream''s head it equals the ledger''s appended.';
COMMENT ON COLUMN read_model.projection_checkpoint.claim IS 'Random token of the lease; a process with another one is refused.';
COMMENT ON COLUMN read_model.projection_checkpoint.owner IS 'Who holds the lease: host and process; NULL = nobody.';
COMMENT ON COLUMN read_model.projection_checkpoint.lease_expires_at IS 'From then on any process may take the lease.';
COMMENT ON COLUMN read_model.projection_checkpoint.finished_at IS
  'When a closed generation was read to its end; NULL = there is or may be more.';
COMMENT ON COLUMN read_model.projection_checkpoint.updated_at IS 'When the checkpoint or its lease last changed.';

-- Which processes are there to share the work.
CREATE TABLE read_model.projection_worker (
  worker_id   uuid PRIMARY KEY,
  owner       text NOT NULL,
  projections text[] NOT NULL,
  expires_at  timestamptz NOT NULL
) WITH (fillfactor = 50);
COMMENT ON TABLE read_model.projection_worker IS
  'One row per running runlog-projectors: each takes its share of the streams. Rows of dead processes expire.';
COMMENT ON COLUMN read_model.projection_worker.worker_id IS 'Random; new with each start of a process.';
COMMENT ON COLUMN read_model.projection_worker.owner IS 'Host and process, for people.';
COMMENT ON COLUMN read_model.projection_worker.projections IS 'The projections that it runs.';
COMMENT ON COLUMN read_model.projection_worker.expires_at IS 'Renewed while the process is alive; in the past = it is gone.';

CREATE VIEW read_model.projection_checkpoints AS
SELECT projection, topic, partition, generation, next_offset, applied, owner, lease_expires_at,
       finished_at, updated_at
FROM read_model.projection_checkpoint;
COMMENT ON VIEW read_model.projection_checkpoints IS 'How far each projection has read each stream of the log.';
COMMENT ON COLUMN read_model.projection_checkpoints.projection IS 'The projection, e.g. run_status.';
COMMENT ON COLUMN read_model.projection_checkpoints.topic IS 'The Kafka topic.';
COMMENT ON COLUMN read_model.projection_checkpoints.partition IS 'The Kafka partition.';
COMMENT ON COLUMN read_model.projection_checkpoints.generation IS
  'The stream''s generation; the next one is read when this one is finished.';
COMMENT ON COLUMN read_model.projection_checkpoints.next_offset IS 'Every event of a lower Kafka offset is in the read model.';
COMMENT ON COLUMN read_model.projection_checkpoints.applied IS
  'Events of the stream that were read; at the stream''s head it equals the ledger''s appended.';
COMMENT ON COLUMN read_model.projection_checkpoints.owner IS 'Which process works on it; NULL = none.';
COMMENT ON COLUMN read_model.projection_checkpoints.lease_expires_at IS 'From then on another process may take over.';
COMMENT ON COLUMN read_model.projection_checkpoints.finished_at IS
  'When a closed generation was read to its end; NULL = there is or may be more.';
COMMENT ON COLUMN read_model.projection_checkpoints.updated_at IS 'When the checkpoint or its lease last changed.';
