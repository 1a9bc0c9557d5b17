-- Runs whose events a projection cannot apply: they wait, and the others go on.
CREATE TABLE read_model.parked_run (
  tenant_id   text COLLATE "C" NOT NULL,
  run_id      text COLLATE "C" NOT NULL,
  projection  text COLLATE "C" NOT NULL,
  version     integer NOT NULL,
  run_no      bigint NOT NULL,
  run_seq     bigint NOT NULL,
  error       text NOT NULL,
  parked_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  released_at timestamptz,
  PRIMARY KEY (projection, version, run_no),
  FOREIGN KEY (projection, version) REFERENCES read_model.projection_version ON DELETE CASCADE
);
CREATE INDEX parked_run_of_tenant ON read_model.parked_run (tenant_id, run_id);
COMMENT ON TABLE read_model.parked_run IS
  'Runs that a projection has set aside because one of their events cannot be applied: a bug, or a row that was changed '
  'by hand. Their rows stay as they are until `runlog runs release`.';
COMMENT ON COLUMN read_model.parked_run.tenant_id IS 'The tenant that owns the run.';
COMMENT ON COLUMN read_model.parked_run.run_id IS 'The run.';
COMMENT ON COLUMN read_model.parked_run.projection IS 'The projection that cannot apply it.';
COMMENT ON COLUMN read_model.parked_run.version IS 'The projection''s version.';
COMMENT ON COLUMN read_model.parked_run.run_no IS 'The run''s number in the log.';
COMMENT ON COLUMN read_model.parked_run.run_seq IS 'The event that could not be applied.';
COMMENT ON COLUMN read_model.parked_run.error IS 'Why not, as it was last tried.';
COMMENT ON COLUMN read_model.parked_run.parked_at IS 'Since when.';
COMMENT ON COLUMN read_model.parked_run.released_at IS 'When it was asked to be tried again; NULL = not since it last failed.';
