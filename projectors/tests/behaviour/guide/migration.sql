SET LOCAL ROLE runlog_owner;
SELECT read_model.add_projection('run_last_event');
CREATE TABLE run_last_event_1.run_last_event (
  tenant_id      text COLLATE "C" NOT NULL,
  run_id         text COLLATE "C" NOT NULL,
  last_event_seq bigint NOT NULL,
  event_type     text COLLATE "C" NOT NULL,
  persisted_at   timestamptz NOT NULL,
  projected_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (tenant_id, run_id)
);
CREATE INDEX run_last_event_newest ON run_last_event_1.run_last_event (tenant_id, persisted_at DESC, run_id);
COMMENT ON TABLE run_last_event_1.run_last_event IS 'The last event of each run.';
COMMENT ON COLUMN run_last_event_1.run_last_event.tenant_id IS 'The tenant that owns the run.';
COMMENT ON COLUMN run_last_event_1.run_last_event.run_id IS 'The run.';
COMMENT ON COLUMN run_last_event_1.run_last_event.last_event_seq IS 'The event''s place in its run.';
COMMENT ON COLUMN run_last_event_1.run_last_event.event_type IS 'What happened, e.g. StepFailed.';
COMMENT ON COLUMN run_last_event_1.run_last_event.persisted_at IS 'When the log took the event.';
COMMENT ON COLUMN run_last_event_1.run_last_event.projected_at IS 'When this row was last written, by the database''s clock.';
SELECT read_model.publish('run_last_event', 1);
RESET ROLE;
