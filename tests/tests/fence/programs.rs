//! What the logins of programs and people on call try beyond what they are for, and what a login without any role tries.
//! The first see all tenants' rows; what counts is what they may not do with them.
//!
//! Called by the suite.

use crate::attempt::Attempt;

/// A flaw in ingest: history rewritten, the ledger forged, others' data read.
pub(crate) fn ingest() -> Vec<Attempt> {
    let a = Attempt::denied;
    let refused = Attempt::refused;
    [history(), people(), vec![
        a("run number of an event", &["UPDATE event_log.run SET run_no = DEFAULT"]).control(&["UPDATE event_log.run SET run_id = run_id"]),
        a("run's tenant", &["UPDATE event_log.run SET tenant_id = 'x' WHERE run_id = 'badger-run-1'"]),
        a("a run with a number of its own choice", &["INSERT INTO event_log.run (run_no, tenant_id, run_id) OVERRIDING SYSTEM VALUE VALUES (987654, 'x', 'y')"]),
        a("an upsert of an event", &["INSERT INTO event_log.event SELECT * FROM event_log.event ON CONFLICT (event_id) DO UPDATE SET payload = NULL"]),
        refused("an event twice", "23505", &["INSERT INTO event_log.event SELECT * FROM event_log.event LIMIT 1"]).for_nobody(),
        refused("an event of another run's place", "23505", &["INSERT INTO event_log.event SELECT run_no, 99, stream_id, source_offset, emitted_at, persisted_at, gen_random_uuid(), 1, 1, sha256('x'), content_digest, chain_digest, tenant_id, event_type, project_id, environment_id, plan_id, plan_version, step_id, payload FROM event_log.event LIMIT 1"]).for_nobody(),
        refused("a lower offset", "23514", &["UPDATE event_log.stream SET next_offset = next_offset - 1, appended = appended - 1 WHERE appended > 0"]),
        refused("an offset without account", "23514", &["UPDATE event_log.stream SET next_offset = next_offset + 1"]).for_nobody(),
        a("close a generation", &["UPDATE event_log.stream SET closed_at = now()"]),
        a("another group", &["UPDATE event_log.stream SET group_id = 'mine'"]),
        a("another topic", &["UPDATE event_log.stream SET topic = 'x' WHERE stream_id = {own_stream}"]),
        a("another start", &["UPDATE event_log.stream SET start_offset = 0"]),
        refused("a second open generation", "23505", &["INSERT INTO event_log.stream (topic, partition, generation, group_id, start_offset, next_offset) SELECT topic, partition, 2, group_id, 0, 0 FROM event_log.stream"]).for_nobody(),
        a("a stream that is closed from the start", &["INSERT INTO event_log.stream (topic, partition, group_id, start_offset, next_offset, closed_at) VALUES ('x', 0, 'g', 0, 0, now())"]),
        a("read dead letters' bytes", &["SELECT value FROM event_log.dead_letter"]),
        a("read dead letters' keys and headers", &["SELECT key, headers FROM event_log.dead_letter"]),
        a("bytes by RETURNING", &["INSERT INTO event_log.dead_letter (stream_id, source_offset, reason, detail, received_at) VALUES (987654, 1, 'x', 'x', now()) RETURNING value"]),
        a("bytes by a whole row", &["SELECT d FROM event_log.dead_letter d"]),
        a("settle a dead letter", &["UPDATE event_log.dead_letter SET status = 'discarded'"]),
        a("delete a dead letter", &["DELETE FROM event_log.dead_letter"]),
        a("read a read model", &["SELECT * FROM run_status_1.run_current"]),
        a("read by the public name", &["SELECT * FROM read_model.run_current"]),
        a("write a read model", &["DELETE FROM run_status_1.run_current"]),
        a("write checkpoints", &["UPDATE read_model.projection_checkpoint SET applied = 0"]),
        a("read the audit", &["SELECT * FROM event_log.audit"]),
        a("write the audit", &["INSERT INTO event_log.audit (operator, action, subject) VALUES ('x', 'x', 'x')"]),
        a("forget who has what in a stream", &["DELETE FROM event_log.stream_tenant"]),
        a("move who has what in a stream", &["UPDATE event_log.stream_tenant SET tenant_id = 'x' WHERE tenant_id = 'badger'"]),
        a("set a sequence back", &["SELECT setval('event_log.run_run_no_seq', 1)"]).control(&["SELECT setval('event_log.run_run_no_seq', 987654)"]),
        a("drop a version", &["SELECT read_model.drop_version('run_status', 2)"]),
    ]].concat()
}

/// A flaw in a projector: the log written, or more read than the log.
pub(crate) fn projector() -> Vec<Attempt> {
    let a = Attempt::denied;
    [history(), people(), vec![
        a("append an event", &["INSERT INTO event_log.event SELECT run_no, 99, stream_id, 987654, emitted_at, persisted_at, gen_random_uuid(), 1, 1, sha256('x'), content_digest, chain_digest, tenant_id, event_type, project_id, environment_id, plan_id, plan_version, step_id, payload FROM event_log.event LIMIT 1"]),
        a("add a run", &["INSERT INTO event_log.run (tenant_id, run_id) VALUES ('x', 'y')"]),
        a("lock a run", &["SELECT * FROM event_log.run FOR SHARE"]),
        a("lock a stream", &["SELECT * FROM event_log.stream FOR UPDATE"]),
        a("advance a stream", &["UPDATE event_log.stream SET skipped = skipped + 1, next_offset = next_offset + 1"]),
        a("halt a stream", &["UPDATE event_log.stream SET halted_reason = 'x'"]),
        a("read dead letters", &["SELECT * FROM event_log.dead_letter"]),
        a("read dead letters by the view", &["SELECT * FROM event_log.dead_letters"]),
        a("read the audit", &["SELECT * FROM event_log.audit"]),
        a("write the audit", &["INSERT INTO event_log.audit (operator, action, subject) VALUES ('x', 'x', 'x')"]),
        a("make a version live", &["UPDATE read_model.projection_version SET state = 'live'"]).control(&["UPDATE read_model.projection_version SET state = 'retired'"]),
        a("forget a version", &["DELETE FROM read_model.projection_version"]),
        a("publish a version", &["SELECT read_model.publish('run_status', 2)"]),
        a("begin a rebuild", &["SELECT read_model.begin_rebuild('run_status')"]).control(&["SELECT read_model.drop_version('run_status', 2)", "SELECT read_model.begin_rebuild('run_status')"]),
        a("drop a version", &["SELECT read_model.drop_version('run_status', 2)"]),
        a("empty a read model at once", &["TRUNCATE run_status_1.run_current"]),
        a("a column for a read model", &["ALTER TABLE run_status_1.run_current ADD COLUMN x text"]),
        a("a trigger on a read model", &["CREATE TRIGGER t BEFORE INSERT ON run_status_1.run_current FOR EACH ROW EXECUTE FUNCTION event_log.refuse_change()"]),
        a("a table in a version", &["CREATE TABLE run_status_1.mine (a text)"]),
        a("write through a public view", &["DELETE FROM read_model.run_current"]),
    ]].concat()
}

/// A person on call: acts without audit, or in another's name.
pub(crate) fn operator() -> Vec<Attempt> {
    let a = Attempt::denied;
    [history(), vec![
        a("the audit in another's name", &["INSERT INTO event_log.audit (login, operator, action, subject) VALUES ('somebody', 'x', 'x', 'x')"]),
        a("the audit at another time", &["INSERT INTO event_log.audit (at, operator, action, subject) VALUES ('2020-01-01', 'x', 'x', 'x')"]),
        a("the audit's number", &["INSERT INTO event_log.audit (audit_id, operator, action, subject) OVERRIDING SYSTEM VALUE VALUES (1, 'x', 'x', 'x')"]).control(&["INSERT INTO event_log.audit (audit_id, operator, action, subject) OVERRIDING SYSTEM VALUE VALUES (987654, 'x', 'x', 'x')"]),
        a("grant a tenant without audit", &["INSERT INTO event_log.tenant_member (login, tenant_id) VALUES ('test_fence_none', 'badger')"]),
        a("grant in another's name", &["UPDATE event_log.tenant_member SET granted_by = 'x'"]),
        a("revoke without audit", &["DELETE FROM event_log.tenant_member"]),
        Attempt::refused("grant a tenant to no analyst", "55000", &["SELECT event_log.grant_tenant('test_runlog_operator', 'badger', 'x', 'x')"]).for_nobody(),
        Attempt::refused("grant a tenant to a role", "42704", &["SELECT event_log.grant_tenant('runlog_analyst', 'badger', 'x', 'x')"]).for_nobody(),
        Attempt::refused("grant a tenant without a name", "23514", &["SELECT event_log.grant_tenant('test_fence_none', '', 'x', 'x')"]).for_nobody(),
        Attempt::refused("grant a tenant as nobody", "23514", &["SELECT event_log.grant_tenant('test_fence_none', 'badger', '', 'x')"]).for_nobody(),
        a("append an event", &["INSERT INTO event_log.event SELECT run_no, 99, stream_id, 987654, emitted_at, persisted_at, gen_random_uuid(), 1, 1, sha256('x'), content_digest, chain_digest, tenant_id, event_type, project_id, environment_id, plan_id, plan_version, step_id, payload FROM event_log.event LIMIT 1"]),
        a("advance a stream", &["UPDATE event_log.stream SET skipped = skipped + 1, next_offset = next_offset + 1"]),
        a("take a claim", &["UPDATE event_log.stream SET claim = gen_random_uuid()"]),
        a("start a generation somewhere else", &["UPDATE event_log.stream SET start_offset = 0"]),
        a("close a generation without audit", &["UPDATE event_log.stream SET closed_at = now()"]),
        a("open a generation without audit", &["INSERT INTO event_log.stream (topic, partition, generation, group_id, start_offset, next_offset) VALUES ('x', 0, 2, 'g', 0, 0)"]),
        a("an audit of what was not done", &["INSERT INTO event_log.audit (operator, action, subject) VALUES ('x', 'x', 'x')"]),
            a("delete a stream", &["DELETE FROM event_log.stream"]),
        a("delete dead letters", &["DELETE FROM event_log.dead_letter"]),
        a("change a dead letter's bytes", &["UPDATE event_log.dead_letter SET value = NULL"]),
        a("write a read model", &["UPDATE run_status_1.run_current SET status = 'FAILED'"]),
        a("write a checkpoint", &["UPDATE read_model.projection_checkpoint SET applied = 0"]),
        a("let a parked run be forgotten", &["DELETE FROM read_model.parked_run"]),
        a("move a parked run to another tenant", &["UPDATE read_model.parked_run SET tenant_id = 'x'"]),
        a("make a version live by hand", &["UPDATE read_model.projection_version SET state = 'retired'"]),
        a("the migrations' function", &["SELECT read_model.secure_version('run_status_1')"]),
        Attempt::refused("drop what is no version", "P0001", &["SELECT read_model.drop_version('event_log; DROP SCHEMA event_log CASCADE; --', 1)"]).for_nobody(),
        Attempt::refused("drop the live version", "P0001", &["SELECT read_model.drop_version('run_status', 1)"]).for_nobody(),
        Attempt::refused("publish a schema that is no version", "P0001", &["SELECT read_model.publish('pg', 1)"]).for_nobody(),
        Attempt::refused("rebuild what is no projection", "P0001", &["SELECT read_model.begin_rebuild('event_log')"]).for_nobody(),
        a("SET ROLE runlog_owner", &["SET ROLE runlog_owner"]),
        a("read a file", &["SELECT pg_read_file('postgresql.conf', 0, 10)"]),
        a("switch row security off", &["ALTER TABLE event_log.run DISABLE ROW LEVEL SECURITY"]),
        a("disable a trigger", &["ALTER TABLE event_log.audit DISABLE TRIGGER ALL"]),
        a("make an analyst's login", &["CREATE ROLE fence_new LOGIN IN ROLE runlog_analyst"]),
    ]].concat()
}

/// A backup's login: anything but reading.
pub(crate) fn backup() -> Vec<Attempt> {
    let a = Attempt::denied;
    [
        history(),
        people(),
        vec![
            a(
                "append a run",
                &["INSERT INTO event_log.run (tenant_id, run_id) VALUES ('x', 'y')"],
            ),
            a(
                "write a read model",
                &["DELETE FROM run_status_1.run_current"],
            ),
            a(
                "write a checkpoint",
                &["UPDATE read_model.projection_checkpoint SET applied = 0"],
            ),
            a(
                "write the audit",
                &["INSERT INTO event_log.audit (operator, action, subject) VALUES ('x', 'x', 'x')"],
            ),
            a("lock rows", &["SELECT * FROM event_log.run FOR SHARE"]),
            a(
                "lock a table",
                &["LOCK TABLE event_log.event IN SHARE MODE"],
            ),
            a(
                "use up a sequence",
                &["SELECT nextval('event_log.run_run_no_seq')"],
            ),
            a(
                "COPY in",
                &["COPY event_log.run (tenant_id, run_id) FROM STDIN"],
            )
            .for_nobody(),
            a(
                "COPY to a file of the server",
                &["COPY event_log.run TO '/tmp/runlog-fence-test'"],
            )
            .for_nobody(),
            a(
                "drop a version",
                &["SELECT read_model.drop_version('run_status', 2)"],
            ),
            a(
                "a table in read_model",
                &["CREATE TABLE read_model.mine (a text)"],
            ),
            a(
                "row security off, which pg_dump does unless told otherwise",
                &["SET row_security = off", "SELECT * FROM event_log.run"],
            ),
        ],
    ]
    .concat()
}

/// A login without any role: it may connect, and that is all.
pub(crate) fn nobody() -> Vec<Attempt> {
    let a = Attempt::denied;
    vec![
        a(
            "the log by its view",
            &["SELECT * FROM event_log.run_events"],
        ),
        a("the log", &["SELECT tenant_id FROM event_log.event"]),
        a("runs", &["TABLE event_log.run"]),
        a("dead letters", &["SELECT * FROM event_log.dead_letters"]),
        a("topics", &["SELECT topic FROM event_log.stream"]),
        a("the membership", &["TABLE event_log.tenant_member"]),
        a("a read model", &["SELECT * FROM read_model.run_current"]),
        a(
            "a read model's table",
            &["SELECT * FROM run_status_1.run_current"],
        ),
        a(
            "a version being built",
            &["SELECT * FROM run_status_2.run_current"],
        ),
        a(
            "what was migrated",
            &["SELECT * FROM public._sqlx_migrations"],
        ),
        a(
            "the membership's function",
            &["SELECT event_log.my_tenants()"],
        ),
        a(
            "grant a tenant",
            &["SELECT event_log.grant_tenant('test_fence_nobody', 'badger', 'x', 'x')"],
        )
        .control(&["SELECT event_log.grant_tenant('test_fence_none', 'badger', 'x', 'x')"]),
        a(
            "a histogram's function",
            &["SELECT read_model.bucket_start(1)"],
        ),
        a("SET ROLE runlog_analyst", &["SET ROLE runlog_analyst"]),
        a("SET ROLE runlog_owner", &["SET ROLE runlog_owner"]),
        a(
            "GRANT an analyst's role to myself",
            &["GRANT runlog_analyst TO CURRENT_USER"],
        ),
        a(
            "append a run",
            &["INSERT INTO event_log.run (tenant_id, run_id) VALUES ('x', 'y')"],
        ),
        a("a schema", &["CREATE SCHEMA mine"]),
        a(
            "an object in public",
            &["CREATE TABLE public.mine (a text)"],
        ),
        a("COPY out", &["COPY event_log.run TO STDOUT"]),
        a(
            "lock a table",
            &["LOCK TABLE event_log.event IN ACCESS SHARE MODE"],
        ),
        a(
            "last number of a run",
            &[
                "SELECT pg_sequence_last_value((SELECT oid FROM pg_class WHERE relname = 'run_run_no_seq'))",
            ],
        ),
        Attempt::own(
            "most common values",
            &["SELECT most_common_vals FROM pg_stats"],
        ),
        Attempt::own(
            "what other sessions ask",
            &["SELECT query, application_name FROM pg_stat_activity WHERE pid <> pg_backend_pid()"],
        ),
    ]
}

/// What no role but an audited function of the owner may do to history.
fn history() -> Vec<Attempt> {
    let a = Attempt::denied;
    vec![
        a(
            "UPDATE events",
            &["UPDATE event_log.event SET payload = NULL"],
        ),
        a(
            "UPDATE an event's digest",
            &[
                "UPDATE event_log.event SET content_digest = sha256('x'), chain_digest = sha256('x')",
            ],
        ),
        a("DELETE events", &["DELETE FROM event_log.event"]),
        a(
            "DELETE a run's last event",
            &[
                "DELETE FROM event_log.event e USING event_log.run r WHERE r.run_no = e.run_no AND r.run_id = 'badger-run-1'",
            ],
        ),
        a(
            "MERGE away events",
            &[
                "MERGE INTO event_log.event e USING event_log.run r ON r.run_no = e.run_no WHEN MATCHED THEN DELETE",
            ],
        ),
        a("TRUNCATE events", &["TRUNCATE event_log.event"]),
        a("DELETE runs", &["DELETE FROM event_log.run"]),
        a(
            "TRUNCATE runs and what is beside them",
            &["TRUNCATE event_log.run, event_log.stream CASCADE"],
        ),
        a("DELETE streams", &["DELETE FROM event_log.stream"]),
        a(
            "UPDATE the audit",
            &["UPDATE event_log.audit SET operator = 'x'"],
        ),
        a("DELETE the audit", &["DELETE FROM event_log.audit"]),
        a("TRUNCATE the audit", &["TRUNCATE event_log.audit"]),
        a(
            "disable the triggers",
            &["ALTER TABLE event_log.event DISABLE TRIGGER ALL"],
        ),
        a(
            "be a replica, for which triggers do not fire",
            &["SET session_replication_role = replica"],
        ),
        a("drop the log", &["DROP TABLE event_log.event CASCADE"]),
        a(
            "drop a trigger",
            &["DROP TRIGGER event_row_is_immutable ON event_log.event"],
        ),
        a(
            "drop a constraint",
            &["ALTER TABLE event_log.event DROP CONSTRAINT event_id_unique"],
        ),
        a(
            "empty a column",
            &["ALTER TABLE event_log.event ALTER COLUMN payload TYPE text USING NULL"],
        )
        .control(&["ALTER TABLE event_log.event ALTER COLUMN event_type TYPE varchar(100)"])
        .for_nobody(),
    ]
}

/// The membership, which is for operators.
fn people() -> Vec<Attempt> {
    let a = Attempt::denied;
    vec![
        a(
            "grant a tenant",
            &["SELECT event_log.grant_tenant('test_fence_none', 'badger', 'x', 'x')"],
        ),
        a(
            "revoke a tenant",
            &["SELECT event_log.revoke_tenant('test_fence_one', 'aardvark', 'x', 'x')"],
        ),
        a(
            "write the membership",
            &[
                "INSERT INTO event_log.tenant_member (login, tenant_id) VALUES ('test_fence_none', 'badger')",
            ],
        ),
        a("SET ROLE runlog_owner", &["SET ROLE runlog_owner"]),
        a("SET ROLE runlog_operator", &["SET ROLE runlog_operator"]),
        a(
            "a policy for everybody",
            &["CREATE POLICY p ON event_log.run USING (true)"],
        ),
    ]
}

/// The owner itself, and a superuser that says it is a replica: `before` makes the session what it is.
pub(crate) fn immutable(before: &str) -> Vec<Attempt> {
    let a = |what: &str, statement: &str| {
        Attempt::denied(what, &[before, statement]).control(&[statement])
    };
    vec![
        a("UPDATE events", "UPDATE event_log.event SET payload = NULL"),
        a("DELETE events", "DELETE FROM event_log.event"),
        a(
            "DELETE no event at all",
            "DELETE FROM event_log.event WHERE run_no = {own_no}",
        ),
        a("TRUNCATE events", "TRUNCATE event_log.event"),
        a(
            "MERGE away events",
            "MERGE INTO event_log.event e USING event_log.run r ON r.run_no = e.run_no WHEN MATCHED THEN DELETE",
        ),
        a(
            "UPDATE in a CTE",
            "WITH gone AS (DELETE FROM event_log.event RETURNING *) SELECT count(*) FROM gone",
        ),
        a(
            "UPDATE runs",
            "UPDATE event_log.run SET run_id = run_id || 'x'",
        ),
        a("DELETE runs", "DELETE FROM event_log.run"),
        a("TRUNCATE runs", "TRUNCATE event_log.run"),
        a("DELETE streams", "DELETE FROM event_log.stream"),
        a("TRUNCATE streams", "TRUNCATE event_log.stream"),
        a(
            "UPDATE the audit",
            "UPDATE event_log.audit SET operator = 'x'",
        ),
        a("DELETE the audit", "DELETE FROM event_log.audit"),
        a("TRUNCATE the audit", "TRUNCATE event_log.audit"),
        a(
            "TRUNCATE everything with its sequences",
            "TRUNCATE event_log.event, event_log.run, event_log.audit RESTART IDENTITY CASCADE",
        ),
    ]
}

/// What the owner sees of tenants' rows that none of its functions acts on: nothing, since FORCE holds for it, too.
pub(crate) fn owner_sees() -> Vec<Attempt> {
    let statement = "TABLE event_log.stream_tenant";
    let attempt = Attempt::own(
        "event_log.stream_tenant as its owner",
        &["SET LOCAL ROLE runlog_owner", statement],
    );
    vec![attempt.control(&[statement])]
}
