//! What an analyst tries: reading what is another tenant's, by every door that SQL has.
//!
//! Called by the suite, for an analyst of one tenant, of two and of none.

use crate::attempt::Attempt;

/// All of them.
pub(crate) fn attempts() -> Vec<Attempt> {
    [
        reading(),
        computing(),
        asking(),
        pretending(),
        changing(),
        outside(),
        catalogue(),
    ]
    .concat()
}

/// SELECT in its forms.
pub(crate) fn reading() -> Vec<Attempt> {
    let a = Attempt::own;
    vec![
        a("events of everybody by the view", &["SELECT * FROM event_log.run_events"]),
        a("events by the columns granted", &["SELECT tenant_id, run_no, event_id, payload FROM event_log.event"]),
        a("runs, whole", &["TABLE event_log.run"]),
        a("a row as one value", &["SELECT r FROM event_log.run AS r"]),
        a("rows as JSON", &["SELECT row_to_json(r), to_jsonb(r) FROM event_log.run_events AS r"]),
        a("dead letters by the view", &["SELECT * FROM event_log.dead_letters"]),
        a("dead letters of nobody", &["SELECT * FROM event_log.dead_letters WHERE tenant_id IS NULL"]),
        a("bytes of dead letters as text", &["SELECT convert_from(value, 'LATIN1'), encode(value, 'escape') FROM event_log.dead_letter"]),
        a("topics", &["SELECT topic, partition FROM event_log.stream"]),
        a("who has something in which stream", &["TABLE event_log.stream_tenant"]),
        a("tenants that are not mine", &["SELECT DISTINCT tenant_id FROM event_log.event WHERE tenant_id <> '{own_tenant}'"])
            .control(&["SELECT DISTINCT tenant_id FROM event_log.event WHERE tenant_id <> '{own_tenant}'"]),
        a("runs joined to events by number", &["SELECT r.*, e.event_id, e.payload FROM event_log.run r JOIN event_log.event e ON e.run_no = r.run_no"]),
        a("events without a run of mine", &["SELECT e.run_no, e.event_id, r FROM event_log.event e LEFT JOIN event_log.run r USING (run_no)"]),
        a("numbers generated, looked up one by one", &[
            "SELECT n, r.run_id, r.tenant_id FROM generate_series(1, 40) AS n CROSS JOIN LATERAL (SELECT * FROM event_log.run WHERE run_no = n) AS r"]),
        a("offsets of a stream, outer joined", &[
            "SELECT o, e.event_id FROM generate_series(0, 40) AS o JOIN event_log.event e ON e.stream_id = {foreign_stream} AND e.source_offset = o"]),
        a("a recursive query from my run to the next numbers", &[
            "WITH RECURSIVE next AS (SELECT run_no, run_id FROM event_log.run WHERE run_no = {own_no}
             UNION SELECT r.run_no, r.run_id FROM next n JOIN event_log.run r ON r.run_no BETWEEN n.run_no - 30 AND n.run_no + 30)
             SELECT * FROM next"]),
        a("a materialised CTE", &["WITH all_runs AS MATERIALIZED (SELECT * FROM event_log.run_events) SELECT * FROM all_runs WHERE tenant_id > ''"]),
        a("a union with myself", &["SELECT run_id FROM event_log.run UNION ALL SELECT run_id FROM event_log.run_events EXCEPT SELECT ''"]),
        a("aggregates over everything", &["SELECT count(*), min(run_id), max(run_id), string_agg(run_id, ',') FROM event_log.run"]),
        a("grouping sets by tenant", &["SELECT tenant_id, count(*) FROM event_log.event GROUP BY ROLLUP (tenant_id)"]),
        a("window functions over the edge", &[
            "SELECT run_id, lag(run_id) OVER w, lead(run_id) OVER w, first_value(tenant_id) OVER w FROM event_log.run WINDOW w AS (ORDER BY run_no)"]),
        a("a sample of pages", &["SELECT * FROM event_log.run TABLESAMPLE SYSTEM (100)"]),
        a("rows by their physical place", &["SELECT ctid, xmin, tableoid, run_id FROM event_log.run WHERE ctid >= '(0,1)'"]),
        a("a cursor, backwards", &["DECLARE c SCROLL CURSOR FOR SELECT * FROM event_log.run", "FETCH LAST FROM c", "FETCH BACKWARD ALL FROM c", "MOVE FIRST FROM c", "FETCH ALL FROM c"]),
        a("a cursor that outlives its transaction", &["BEGIN", "DECLARE c CURSOR WITH HOLD FOR SELECT * FROM event_log.run_events", "COMMIT", "FETCH ALL FROM c"]).outside(),
        a("parallel workers", &[
            "SET LOCAL max_parallel_workers_per_gather = 4", "SET LOCAL parallel_setup_cost = 0", "SET LOCAL parallel_tuple_cost = 0",
            "SET LOCAL min_parallel_table_scan_size = 0", "SELECT tenant_id, run_id FROM event_log.run"]),
        a("a plan without indexes", &["SET LOCAL enable_indexscan = off", "SET LOCAL enable_bitmapscan = off", "SELECT * FROM event_log.run_events"]),
        a("a plan with indexes only", &["SET LOCAL enable_seqscan = off", "SELECT tenant_id, run_id FROM event_log.run ORDER BY tenant_id"]),
        a("the live read models", &["SELECT * FROM read_model.run_current", "SELECT * FROM read_model.step_attempt", "SELECT * FROM read_model.run_inconsistency"]),
        a("snapshots and intervals", &["SELECT * FROM read_model.run_snapshot", "SELECT * FROM read_model.run_state_interval"]),
        a("sums", &["SELECT * FROM read_model.run_hourly", "SELECT * FROM read_model.run_daily", "SELECT * FROM read_model.step_daily"]),
        a("the tables behind the views", &["SELECT * FROM run_status_1.run_current", "SELECT * FROM run_timeline_1.run_state_interval", "SELECT * FROM run_stats_1.run_daily"]),
        a("a version that is being built", &["SELECT * FROM run_status_2.run_current", "SELECT * FROM run_timeline_2.run_state_interval", "SELECT * FROM run_stats_2.run_daily"]),
        a("a projection's own notes", &["SELECT * FROM run_timeline_1.run_timeline_run", "SELECT * FROM run_stats_1.run_stats_run", "SELECT * FROM run_stats_2.run_stats_attempt"]),
        a("histograms merged over tenants", &["SELECT count(*), read_model.merge(durations), read_model.quantile(read_model.merge(durations), 0.5) FROM read_model.step_daily"]),
        a("the product's function, for another tenant", &[
            "SELECT * FROM read_model.runs_in_state('{foreign_tenant}', 'COMPLETED', now())"])
            .control(&["SELECT * FROM read_model.run_state_interval"]),
        a("SELECT FROM two relations at once", &["SELECT c.*, e.payload FROM read_model.run_current c FULL JOIN event_log.run_events e USING (run_id)"]),
    ]
}

/// Functions, operators, casts and types of one's own, and errors that carry values.
fn computing() -> Vec<Attempt> {
    let own = Attempt::own;
    let error = Attempt::own_or_error;
    const TELL: &str = "CREATE FUNCTION pg_temp.tell(anyelement) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS
        $$ BEGIN RAISE NOTICE 'saw %', $1; RETURN true; END $$";
    vec![
        own("a cheap function of mine in WHERE", &[TELL, "SELECT run_id FROM event_log.run WHERE pg_temp.tell(run_id)"]),
        own("the same on a view", &[TELL, "SELECT 1 FROM event_log.run_events WHERE pg_temp.tell(payload)"]),
        own("the same before a condition that is never true", &[TELL, "SELECT 1 FROM event_log.dead_letter WHERE pg_temp.tell(value) AND tenant_id = 'x'"])
            .control(&[TELL, "SELECT 1 FROM event_log.dead_letter WHERE pg_temp.tell(value)"]),
        own("the same in a join", &[TELL, "SELECT 1 FROM event_log.run r JOIN event_log.event e ON pg_temp.tell(r.run_id || e.event_id) LIMIT 400"]),
        own("the same in ORDER BY", &[TELL, "SELECT 1 FROM event_log.run ORDER BY pg_temp.tell(run_id)"]),
        own("the same in an aggregate's FILTER", &[TELL, "SELECT count(*) FILTER (WHERE pg_temp.tell(tenant_id)) FROM event_log.event"]),
        own("the same on a read model", &[TELL, "SELECT 1 FROM read_model.run_current WHERE pg_temp.tell(error)"]),
        own("the same, said to be stable and parallel", &[
            "CREATE FUNCTION pg_temp.tell(text) RETURNS boolean LANGUAGE plpgsql STABLE PARALLEL SAFE COST 0.0000001 AS
             $$ BEGIN RAISE NOTICE 'saw %', $1; RETURN true; END $$", "SELECT 1 FROM event_log.run WHERE pg_temp.tell(run_id)"]),
        Attempt::denied("a function of mine, said to be leakproof", &[
            "CREATE FUNCTION pg_temp.tell(text) RETURNS boolean LANGUAGE plpgsql LEAKPROOF COST 0.0000001 AS $$ BEGIN RETURN true; END $$"]),
        own("a function that writes rows down", &[
            "CREATE TEMP TABLE seen (v text)",
            "CREATE FUNCTION pg_temp.note(text) RETURNS boolean LANGUAGE sql COST 0.0000001 AS $$ INSERT INTO pg_temp.seen VALUES ($1); SELECT true $$",
            "SELECT count(*) FROM event_log.run_events WHERE pg_temp.note(run_id)", "TABLE pg_temp.seen"]),
        own("an operator of mine", &[
            "CREATE FUNCTION pg_temp.same(text, text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN RAISE NOTICE 'saw % %', $1, $2; RETURN true; END $$",
            "CREATE OPERATOR pg_temp.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_temp.same, RESTRICT = eqsel, JOIN = eqjoinsel)",
            "SELECT 1 FROM event_log.run WHERE run_id OPERATOR(pg_temp.===) 'x'"]),
        own("an operator of mine that is called =", &[
            "CREATE FUNCTION pg_temp.eq(text, text[]) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN RAISE NOTICE 'saw %', $1; RETURN true; END $$",
            "CREATE FUNCTION pg_temp.eq(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'saw %', $1; RETURN true; END $$",
            "CREATE OPERATOR pg_temp.= (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_temp.eq)",
            "SET LOCAL search_path = pg_temp, pg_catalog", "SELECT tenant_id FROM event_log.run"]),
        own("an aggregate of mine", &[
            "CREATE FUNCTION pg_temp.add(text, text) RETURNS text LANGUAGE sql AS $$ SELECT coalesce($1, '') || $2 $$",
            "CREATE AGGREGATE pg_temp.everything(text) (SFUNC = pg_temp.add, STYPE = text)", "SELECT pg_temp.everything(run_id) FROM event_log.run"]),
        own("a cast of mine", &[
            "CREATE TYPE pg_temp.seen AS (v text)",
            "CREATE FUNCTION pg_temp.see(text) RETURNS pg_temp.seen LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN RAISE NOTICE 'saw %', $1; RETURN ROW($1); END $$",
            "CREATE CAST (text AS pg_temp.seen) WITH FUNCTION pg_temp.see(text)",
            "SELECT 1 FROM event_log.run WHERE (run_id::pg_temp.seen).v <> ''"]),
        own("a domain with a check", &[
            "CREATE FUNCTION pg_temp.seen(text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'saw %', $1; RETURN true; END $$",
            "CREATE DOMAIN pg_temp.watched AS text CHECK (pg_temp.seen(VALUE))", "SELECT 1 FROM event_log.run WHERE run_id::pg_temp.watched <> ''"]),
        error("a cast that fails with the value", &["SELECT 1 FROM event_log.event WHERE payload::text::integer = 1 AND tenant_id > '{own_tenant}'"]),
        error("a cast of a run's id", &["SELECT 1 FROM event_log.run WHERE run_id::integer = 1 AND tenant_id = '{foreign_tenant}'"]),
        error("a cast in a read model", &["SELECT 1 FROM read_model.run_current WHERE plan_id::uuid IS NOT NULL AND tenant_id = '{foreign_tenant}'"]),
        error("a cast of another tenant's dead letter", &["SELECT 1 FROM event_log.dead_letters WHERE convert_from(value, 'UTF8')::integer = 1 AND tenant_id = '{foreign_tenant}'"]),
        Attempt::as_absent("division by zero where the row is there", &["SELECT 1 / (CASE WHEN tenant_id = '{some_tenant}' THEN 0 ELSE 1 END) FROM event_log.event"]),
        Attempt::as_absent("division by zero in WHERE", &["SELECT 1 FROM event_log.run WHERE run_id = '{some_run}' AND 1 / (run_no - run_no) = 1"]),
        Attempt::as_absent("a regular expression that is not one", &["SELECT 1 FROM event_log.run WHERE run_id = '{some_run}' AND 'x' ~ repeat('(', length(run_id))"]),
        Attempt::as_absent("a subquery with too many rows", &["SELECT (SELECT e.event_id FROM event_log.event e WHERE e.tenant_id = '{some_tenant}')"]),
        error("XML of a query", &["SELECT query_to_xml('SELECT tenant_id, run_id FROM event_log.run', true, false, '')"]),
        error("XML of a table", &["SELECT table_to_xml('event_log.run', true, false, '')"]),
        error("XML of a read model", &["SELECT table_to_xml('run_status_1.run_current', true, false, '')"]),
        own("statistics of words of a query", &["SELECT * FROM ts_stat('SELECT to_tsvector(run_id) FROM event_log.run')"]),
        own("EXECUTE in a block of code", &[
            "DO $$ DECLARE r record; BEGIN FOR r IN EXECUTE 'SELECT * FROM event_log.run_events' LOOP RAISE NOTICE '%', r; END LOOP; END $$"]),
        own("a SECURITY DEFINER function of mine", &[
            "CREATE FUNCTION pg_temp.f() RETURNS SETOF event_log.run LANGUAGE sql SECURITY DEFINER AS 'SELECT * FROM event_log.run'", "SELECT * FROM pg_temp.f()"]),
        own("a view of mine", &["CREATE TEMP VIEW v AS SELECT * FROM event_log.run_events", "SELECT * FROM pg_temp.v"]),
        own("a view of mine with the rights of who asks", &["CREATE TEMP VIEW v WITH (security_invoker) AS SELECT * FROM event_log.run", "SELECT * FROM pg_temp.v"]),
        own("a view of mine with a rule", &[
            "CREATE TEMP TABLE t AS SELECT * FROM event_log.run WITH NO DATA",
            "CREATE RULE \"_RETURN\" AS ON SELECT TO pg_temp.t DO INSTEAD SELECT * FROM event_log.run", "SELECT * FROM pg_temp.t"]).control(&["TABLE event_log.run"]),
        own("a temporary copy", &["CREATE TEMP TABLE t AS SELECT * FROM event_log.run_events", "TABLE pg_temp.t"]),
        own("a temporary table that inherits nothing", &["CREATE TEMP TABLE t (LIKE event_log.run INCLUDING ALL)", "INSERT INTO pg_temp.t OVERRIDING SYSTEM VALUE SELECT * FROM event_log.run", "TABLE pg_temp.t"]),
        own("a trigger on my copy", &[
            "CREATE TEMP TABLE t AS SELECT * FROM event_log.run WITH NO DATA",
            "CREATE FUNCTION pg_temp.see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE '%', NEW; RETURN NEW; END $$",
            "CREATE TRIGGER see BEFORE INSERT ON pg_temp.t FOR EACH ROW EXECUTE FUNCTION pg_temp.see()",
            "INSERT INTO pg_temp.t SELECT * FROM event_log.run"]),
        own("my function of the policy's name", &[
            "CREATE FUNCTION pg_temp.my_tenants() RETURNS text[] LANGUAGE sql AS $$ SELECT '{badger}'::text[] $$",
            "SET LOCAL search_path = pg_temp, event_log", "SELECT * FROM event_log.run"]).control(&["TABLE event_log.run"]),
        own("my table of the membership's name", &[
            "CREATE TEMP TABLE tenant_member (login text, tenant_id text)", "INSERT INTO pg_temp.tenant_member VALUES (session_user, '{foreign_tenant}')",
            "SET LOCAL search_path = pg_temp, event_log", "SELECT event_log.my_tenants(), * FROM event_log.run"]).control(&["TABLE event_log.run"]),
        own("my array_agg in the membership's function", &[
            "CREATE FUNCTION pg_temp.array_agg(text) RETURNS text[] LANGUAGE sql AS $$ SELECT '{badger}'::text[] $$",
            "SET LOCAL search_path = pg_temp, pg_catalog", "SELECT * FROM event_log.run"]).control(&["TABLE event_log.run"]),
    ]
}

/// Questions whose answer is yes or no.
fn asking() -> Vec<Attempt> {
    let a = Attempt::as_absent;
    vec![
        a(
            "is there the tenant",
            &["SELECT count(*) FROM event_log.event WHERE tenant_id = '{some_tenant}'"],
        ),
        a(
            "is there the run",
            &["SELECT EXISTS (SELECT FROM event_log.run WHERE run_id = '{some_run}')"],
        ),
        a(
            "is there the run of the tenant",
            &[
                "SELECT * FROM event_log.run_events WHERE tenant_id = '{some_tenant}' AND run_id = '{some_run}'",
            ],
        ),
        a(
            "is there the event",
            &["SELECT * FROM event_log.run_events WHERE event_id = '{some_event}'"],
        ),
        a(
            "is there the key",
            &[
                "SELECT count(*) FROM event_log.event WHERE idempotency_key = decode('{some_key}', 'hex')",
            ],
        ),
        a(
            "is there the number",
            &[
                "SELECT count(*) FROM event_log.event WHERE run_no = {some_no}",
                "SELECT count(*) FROM event_log.run WHERE run_no = {some_no}",
            ],
        ),
        a(
            "is there the place in Kafka",
            &[
                "SELECT count(*) FROM event_log.event WHERE stream_id = {some_stream} AND source_offset = {some_offset}",
            ],
        ),
        a(
            "is there the topic",
            &["SELECT count(*) FROM event_log.stream WHERE topic = '{some_topic}'"],
        ),
        a(
            "is there the stream",
            &[
                "SELECT count(*) FROM event_log.stream WHERE stream_id = {some_stream}",
                "SELECT count(*) FROM event_log.stream_tenant WHERE stream_id = {some_stream}",
            ],
        ),
        a(
            "is there the dead letter",
            &["SELECT count(*) FROM event_log.dead_letters WHERE dead_letter_id = {some_dead}"],
        ),
        a(
            "is there a dead letter of the topic",
            &["SELECT count(*) FROM event_log.dead_letters WHERE topic = '{some_topic}'"],
        ),
        a(
            "is there the run in a read model",
            &[
                "SELECT count(*) FROM read_model.run_current WHERE run_id = '{some_run}' OR tenant_id = '{some_tenant}'",
            ],
        ),
        a(
            "is there a step",
            &[
                "SELECT count(*) FROM read_model.step_attempt WHERE tenant_id = '{some_tenant}' AND step_id LIKE '%step'",
            ],
        ),
        a(
            "is there a day",
            &["SELECT sum(started) FROM read_model.run_daily WHERE tenant_id = '{some_tenant}'"],
        ),
        a(
            "which runs were in a state",
            &[
                "SELECT count(*) FROM read_model.runs_in_state('{some_tenant}', 'PENDING', '-infinity') UNION ALL SELECT count(*) FROM read_model.run_state_interval WHERE tenant_id = '{some_tenant}'",
            ],
        ),
        a(
            "how often a row is there, in a prepared statement",
            &[
                "SET LOCAL plan_cache_mode = force_generic_plan",
                "PREPARE p (text) AS SELECT count(*) FROM event_log.run WHERE tenant_id = $1",
                "EXECUTE p ('{own_tenant}')",
                "EXECUTE p ('{some_tenant}')",
            ],
        ),
        a(
            "how long a list is",
            &[
                "SELECT array_length(ARRAY(SELECT run_no FROM event_log.run WHERE run_id LIKE '{some_tenant}%'), 1)",
            ],
        ),
        // Their primary keys begin with the tenant. The keys of event and dead_letter do not: docs/security.md.
        a(
            "EXPLAIN ANALYZE of a run by its key",
            &[
                "SET LOCAL enable_seqscan = off",
                "EXPLAIN (ANALYZE, BUFFERS OFF, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT FROM event_log.run WHERE tenant_id = '{some_tenant}' AND run_id = '{some_run}'",
            ],
        )
        .control(&["SELECT count(*) FROM event_log.run WHERE tenant_id = '{some_tenant}' AND run_id = '{some_run}'"]),
        a(
            "EXPLAIN ANALYZE of a read model by its key",
            &[
                "SET LOCAL enable_seqscan = off",
                "EXPLAIN (ANALYZE, BUFFERS OFF, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT FROM read_model.run_current WHERE tenant_id = '{some_tenant}' AND run_id = '{some_run}'",
            ],
        )
        .control(&["SELECT count(*) FROM read_model.run_current WHERE tenant_id = '{some_tenant}' AND run_id = '{some_run}'"]),
        a(
            "a conflict in my copy",
            &[
                "CREATE TEMP TABLE t (run_id text UNIQUE)",
                "INSERT INTO pg_temp.t VALUES ('{some_run}')",
                "INSERT INTO pg_temp.t SELECT run_id FROM event_log.run WHERE run_id = '{some_run}'",
            ],
        ),
    ]
}

/// Being somebody else.
fn pretending() -> Vec<Attempt> {
    let a = Attempt::denied;
    let own = Attempt::own;
    vec![
        a("SET ROLE runlog_owner", &["SET ROLE runlog_owner"]),
        a("SET ROLE runlog_operator", &["SET ROLE runlog_operator"]),
        a("SET ROLE runlog_backup", &["SET ROLE runlog_backup"]),
        a("SET LOCAL ROLE runlog_projector", &["SET LOCAL ROLE runlog_projector"]),
        a("SET ROLE of an operator's login", &["SET ROLE test_runlog_operator"]),
        a("SET ROLE of another analyst's login", &["SET ROLE test_fence_nobody"]),
        a("SET SESSION AUTHORIZATION", &["SET SESSION AUTHORIZATION test_runlog_operator"]),
        a("set_config of role", &["SELECT set_config('role', 'runlog_operator', true)"]),
        a("set_config of session_authorization", &["SELECT set_config('session_authorization', 'test_runlog_operator', false)"]),
        a("role in a function's settings", &["CREATE FUNCTION pg_temp.f() RETURNS text LANGUAGE sql SET role = 'runlog_operator' AS 'SELECT current_user'", "SELECT pg_temp.f()"]),
        a("session_replication_role", &["SET session_replication_role = replica"]),
        a("row_security off", &["SET row_security = off", "SELECT * FROM event_log.run"]).control(&["SET row_security = off", "SELECT * FROM event_log.run"]),
        a("row_security off, read models", &["SELECT set_config('row_security', 'off', true)", "SELECT * FROM read_model.run_current"]),
        a("row_security off for a function of mine", &["CREATE FUNCTION pg_temp.f() RETURNS bigint LANGUAGE sql SET row_security = off AS 'SELECT count(*) FROM event_log.run'", "SELECT pg_temp.f()"]),
        own("SET ROLE runlog_analyst", &["SET ROLE runlog_analyst", "SELECT session_user, * FROM event_log.run"]).control(&["TABLE event_log.run"]),
        own("SET ROLE and a plan made before it", &["PREPARE p AS SELECT * FROM event_log.run", "EXECUTE p", "SET ROLE runlog_analyst", "EXECUTE p", "RESET ROLE", "EXECUTE p"]),
        own("RESET SESSION AUTHORIZATION", &["RESET SESSION AUTHORIZATION", "RESET ROLE", "RESET ALL", "SELECT * FROM event_log.run"]),
        own("settings with promising names", &[
            "SET app.tenant_id = '{foreign_tenant}'", "SET event_log.my_tenants = '{foreign_tenant}'", "SET runlog.tenants = '{foreign_tenant}'",
            "SELECT * FROM event_log.run"]).control(&["SELECT * FROM event_log.run"]),
        own("application_name of the product", &["SET application_name = 'runlog-ingest'", "SELECT * FROM event_log.run"]),
        a("GRANT an operator's role to myself", &["GRANT runlog_operator TO CURRENT_USER"]).control(&["GRANT runlog_operator TO test_fence_nobody"]),
        a("GRANT BYPASSRLS to myself", &["ALTER ROLE CURRENT_USER BYPASSRLS"]),
        a("become a superuser", &["ALTER ROLE CURRENT_USER SUPERUSER"]),
        a("make a login", &["CREATE ROLE fence_new LOGIN IN ROLE runlog_operator"]),
        a("another login's password", &["ALTER ROLE test_runlog_operator PASSWORD 'x'"]),
        a("another login's settings", &["ALTER ROLE test_runlog_operator SET search_path = pg_temp"]),
        a("the database's settings", &["DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET row_security = off', current_database()); END $$"]),
        a("grant_tenant to myself", &["SELECT event_log.grant_tenant(session_user::text, '{foreign_tenant}', 'me', 'why not')"])
            .control(&["SELECT event_log.grant_tenant('test_fence_none', '{foreign_tenant}', 'me', 'why not')"]),
        a("revoke_tenant from somebody", &["SELECT event_log.revoke_tenant('test_fence_one', '{own_tenant}', 'me', 'why not')"]),
        a("read the membership", &["SELECT * FROM event_log.tenant_member"]),
        a("write the membership", &["INSERT INTO event_log.tenant_member (login, tenant_id) VALUES (session_user, '{foreign_tenant}')"]),
        a("change the membership", &["UPDATE event_log.tenant_member SET tenant_id = tenant_id || '{foreign_tenant}'"]),
        a("delete from the membership", &["DELETE FROM event_log.tenant_member"]),
        a("claim a topic", &["INSERT INTO event_log.stream_tenant VALUES (987654, '{own_tenant}')"]),
    ]
}

/// Changing rows and objects.
fn changing() -> Vec<Attempt> {
    let a = Attempt::denied;
    vec![
        a("UPDATE an event", &["UPDATE event_log.event SET payload = NULL"]),
        a("DELETE events", &["DELETE FROM event_log.event"]),
        Attempt::refused("DELETE by a view", "55000", &["DELETE FROM event_log.dead_letters"]).for_nobody(),
        a("DELETE by a view of one table", &["DELETE FROM read_model.run_current"]),
        a("TRUNCATE", &["TRUNCATE event_log.event"]),
        a("INSERT a run, RETURNING", &["INSERT INTO event_log.run (tenant_id, run_id) VALUES ('{own_tenant}', 'mine') RETURNING *"]),
        a("INSERT that conflicts with another tenant's run", &["INSERT INTO event_log.run (tenant_id, run_id) VALUES ('{foreign_tenant}', '{foreign_run}') ON CONFLICT DO NOTHING RETURNING *"])
            .control(&["INSERT INTO event_log.run (tenant_id, run_id) VALUES ('{foreign_tenant}', 'x') RETURNING *"]),
        a("UPDATE a read model", &["UPDATE run_status_1.run_current SET tenant_id = '{own_tenant}' WHERE run_id = '{foreign_run}'"]),
        a("UPDATE a read model by its view", &["UPDATE read_model.run_current SET status = 'FAILED'"]),
        a("MERGE into a read model", &["MERGE INTO run_status_1.run_current c USING event_log.run r ON (r.tenant_id, r.run_id) = (c.tenant_id, c.run_id) WHEN MATCHED THEN DELETE"]),
        a("lock rows", &["SELECT * FROM event_log.run FOR UPDATE"]),
        a("lock rows for share", &["SELECT stream_id FROM event_log.stream FOR SHARE"]),
        a("lock a table", &["LOCK TABLE event_log.run IN ROW SHARE MODE"]),
        a("lock a table alone", &["LOCK TABLE run_status_1.run_current IN ACCESS EXCLUSIVE MODE"]),
        a("switch row security off", &["ALTER TABLE event_log.run DISABLE ROW LEVEL SECURITY"]),
        a("drop a policy", &["DROP POLICY own_tenants ON event_log.event"]),
        a("change a policy", &["ALTER POLICY own_tenants ON event_log.event USING (true)"]),
        a("add a policy", &["CREATE POLICY everything ON event_log.run FOR SELECT USING (true)"]),
        a("disable a trigger", &["ALTER TABLE event_log.event DISABLE TRIGGER event_is_append_only"]),
        a("a trigger of mine on the log", &[
            "CREATE FUNCTION pg_temp.t() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
            "CREATE TRIGGER t BEFORE INSERT ON event_log.run FOR EACH ROW EXECUTE FUNCTION pg_temp.t()"])
            .control(&["CREATE FUNCTION event_log.t() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$", "CREATE TRIGGER t BEFORE INSERT ON event_log.run FOR EACH ROW EXECUTE FUNCTION event_log.t()"]),
        a("a rule of mine on the log", &["CREATE RULE r AS ON INSERT TO event_log.run DO ALSO NOTIFY x"]),
        a("an index with a function of mine", &[
            "CREATE FUNCTION pg_temp.f(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE NOTICE '%', $1; RETURN $1; END $$",
            "CREATE INDEX ON event_log.run (pg_temp.f(run_id))"]).control(&["CREATE INDEX ON event_log.run (lower(run_id))"]),
        a("statistics of mine on the log", &["CREATE STATISTICS pg_temp.s ON tenant_id, event_type FROM event_log.event"]).control(&["CREATE STATISTICS event_log.s ON tenant_id, event_type FROM event_log.event"]),
        a("a child of a table", &["CREATE TEMP TABLE t () INHERITS (event_log.run)"]),
        a("a foreign key to a table", &["CREATE TEMP TABLE t (n bigint)", "CREATE TABLE read_model.t (n bigint REFERENCES event_log.run)"]),
        a("an object in event_log", &["CREATE TABLE event_log.mine (a text)"]),
        a("a function in read_model", &["CREATE FUNCTION read_model.quantile(text) RETURNS text LANGUAGE sql AS 'SELECT 1'"]).control(&["CREATE FUNCTION read_model.quantile(text) RETURNS text LANGUAGE sql AS 'SELECT $1'"]),
        a("an object in a version", &["CREATE VIEW run_status_1.v AS SELECT 1"]),
        a("an object in public", &["CREATE TABLE public.mine (a text)"]),
        a("a schema", &["CREATE SCHEMA mine"]),
        a("replace a view", &["CREATE OR REPLACE VIEW event_log.dead_letters AS SELECT 1"]).control(&["CREATE OR REPLACE VIEW event_log.mine AS SELECT 1"]),
        a("a view without security_invoker", &["ALTER VIEW event_log.run_events SET (security_invoker = false)"]),
        a("replace the membership's function", &["CREATE OR REPLACE FUNCTION event_log.my_tenants() RETURNS text[] LANGUAGE sql AS $$ SELECT '{badger}'::text[] $$"]),
        a("own a table", &["ALTER TABLE event_log.run OWNER TO CURRENT_USER"]),
        a("drop what the owner owns", &["DROP OWNED BY runlog_owner"]).for_nobody(),
        a("reassign what the owner owns", &["REASSIGN OWNED BY runlog_owner TO CURRENT_USER"]).for_nobody(),
        a("default privileges of the owner", &["ALTER DEFAULT PRIVILEGES FOR ROLE runlog_owner GRANT SELECT ON TABLES TO PUBLIC"]),
        a("GRANT on a table that I may not read", &["GRANT SELECT ON event_log.tenant_member TO PUBLIC"]),
        a("drop the audit", &["DROP TABLE event_log.audit"]),
        a("begin a rebuild", &["SELECT read_model.begin_rebuild('run_status')"]).control(&["SELECT read_model.drop_version('run_status', 2)", "SELECT read_model.begin_rebuild('run_status')"]),
        a("publish a version", &["SELECT read_model.publish('run_status', 2)"]),
        a("drop a version", &["SELECT read_model.drop_version('run_status', 2)"]),
        a("the migrations' function", &["SELECT event_log.secure_table('event_log.audit')"]).for_nobody(),
        a("change what was migrated", &["DELETE FROM _sqlx_migrations"]),
    ]
}

/// Files, programs, other servers, other sessions.
fn outside() -> Vec<Attempt> {
    let a = Attempt::denied;
    let own = Attempt::own;
    vec![
        own("COPY a table out", &["COPY event_log.run TO STDOUT"]),
        own("COPY a query out", &["COPY (SELECT * FROM event_log.run_events) TO STDOUT WITH (FORMAT csv)"]),
        own("COPY a read model out", &["COPY run_status_1.run_current TO STDOUT"]),
        a("COPY the membership out", &["COPY event_log.tenant_member TO STDOUT"]),
        a("COPY a hidden column out", &["COPY event_log.event (chain_digest) TO STDOUT"]),
        a("COPY in", &["COPY event_log.run (tenant_id, run_id) FROM STDIN"]).for_nobody(),
        a("COPY to a file", &["COPY (SELECT 1) TO '/tmp/runlog-fence-test'"]).for_nobody(),
        a("COPY from a file", &["CREATE TEMP TABLE t (v text)", "COPY pg_temp.t FROM '/etc/hostname'"]),
        a("COPY to a program", &["COPY (SELECT 1) TO PROGRAM 'cat >/dev/null'"]),
        a("COPY from a program", &["CREATE TEMP TABLE t (v text)", "COPY pg_temp.t FROM PROGRAM 'echo x'"]),
        a("read a file", &["SELECT pg_read_file('postgresql.conf', 0, 10)"]),
        a("read a file as bytes", &["SELECT pg_read_binary_file('PG_VERSION')"]),
        a("list files", &["SELECT pg_ls_dir('.')"]),
        a("read a large object from a file", &["SELECT lo_import('/etc/hostname')"]),
        a("write a large object to a file", &["SELECT lo_export(1, '/tmp/runlog-fence-test')"]).for_nobody(),
        a("an extension: dblink", &["CREATE EXTENSION dblink"]),
        a("an extension: postgres_fdw", &["CREATE EXTENSION postgres_fdw"]),
        a("an extension: pageinspect", &["CREATE EXTENSION pageinspect"]),
        a("a foreign data wrapper", &["CREATE FOREIGN DATA WRAPPER w"]),
        a("an event trigger", &["CREATE FUNCTION pg_temp.t() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$", "CREATE EVENT TRIGGER t ON ddl_command_start EXECUTE FUNCTION pg_temp.t()"]),
        a("a publication", &["CREATE PUBLICATION p FOR TABLE event_log.event"]),
        a("a subscription", &["CREATE SUBSCRIPTION s CONNECTION 'host=x' PUBLICATION p WITH (connect = false)"]),
        a("a replication slot", &["SELECT pg_create_logical_replication_slot('fence', 'test_decoding')"]).for_nobody(),
        a("the server's settings", &["ALTER SYSTEM SET row_security = off"]).for_nobody().outside(),
        a("the hidden setting of the configuration file", &["SHOW hba_file"]),
        a("end another session", &["SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres' AND pid <> pg_backend_pid()"]).for_nobody(),
        a("a function in C", &["CREATE FUNCTION pg_temp.c() RETURNS int LANGUAGE c AS 'libc.so.6', 'getpid'"]).for_nobody(),
        a("a base type", &["CREATE TYPE pg_temp.t (INPUT = textin, OUTPUT = textout)"]).for_nobody(),
        a("a database of mine", &["CREATE DATABASE mine"]).for_nobody().outside(),
    ]
}

/// The system's catalogue and statistics.
fn catalogue() -> Vec<Attempt> {
    let own = Attempt::own;
    let a = Attempt::denied;
    vec![
        own("most common values", &["SELECT tablename, attname, most_common_vals, histogram_bounds FROM pg_stats WHERE schemaname LIKE 'event%' OR schemaname LIKE 'run%' OR schemaname = 'read_model'"]),
        own("most common values of several columns", &["SELECT * FROM pg_stats_ext"]).control(&["SELECT most_common_vals FROM pg_stats WHERE schemaname = 'event_log'"]),
        a("statistics as they are stored", &["SELECT stavalues1 FROM pg_statistic"]),
        own("what other sessions ask", &["SELECT query FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename <> session_user"]),
        own("names of sessions", &["SELECT application_name, client_hostname, query FROM pg_stat_activity WHERE usename <> session_user"]),
        a("passwords", &["SELECT rolpassword FROM pg_authid"]),
        a("passwords in use", &["SELECT * FROM pg_user_mapping"]),
        own("locks of others", &["SELECT l.*, l.relation::regclass FROM pg_locks l"]),
        own("names of objects", &["SELECT relname, relacl, reloptions FROM pg_class", "SELECT nspname FROM pg_namespace"]).for_nobody(),
        own("texts of functions, policies and views", &["SELECT prosrc FROM pg_proc WHERE pronamespace::regnamespace::text ~ 'event_log|read_model'", "SELECT * FROM pg_policies", "SELECT definition FROM pg_views WHERE schemaname = 'event_log'"]).for_nobody(),
        own("comments", &["SELECT description FROM pg_description WHERE classoid = 'pg_class'::regclass"]).for_nobody(),
        own("sequences of others", &["SELECT schemaname, sequencename, last_value FROM pg_sequences"]),
        a("next number of a run", &["SELECT nextval(pg_get_serial_sequence('event_log.run', 'run_no'))"]),
        a("last number of a run", &["SELECT last_value FROM event_log.run_run_no_seq"]),
        a("last number, by its function", &["SELECT pg_sequence_last_value('event_log.run_run_no_seq'::regclass)"]),
        a("the ledger", &["SELECT * FROM event_log.streams"]),
        a("the ledger's hidden columns", &["SELECT next_offset, appended, owner, claim FROM event_log.stream"]),
        a("a hidden column in WHERE", &["SELECT stream_id FROM event_log.stream WHERE next_offset > 0"]),
        a("a hidden column in ORDER BY", &["SELECT run_no FROM event_log.event ORDER BY chain_digest"]),
        a("a hidden column by a whole row", &["SELECT e FROM event_log.event e"]),
        a("a hidden column by a whole row in a function", &["SELECT to_jsonb(s) FROM event_log.stream s"]),
        a("a hidden column by NATURAL JOIN", &["SELECT count(*) FROM event_log.stream a NATURAL JOIN event_log.stream b"]),
        a("the audit", &["SELECT * FROM event_log.audit"]),
        a("checkpoints", &["SELECT * FROM read_model.projection_checkpoints"]),
        a("checkpoints' table", &["SELECT topic FROM read_model.projection_checkpoint"]),
        a("workers", &["SELECT * FROM read_model.projection_worker"]),
        a("versions", &["SELECT * FROM read_model.projection_version"]),
        a("runs that are set aside", &["SELECT * FROM read_model.parked_run"]),
        own("EXPLAIN with all it says", &["EXPLAIN (ANALYZE, VERBOSE, SETTINGS, TIMING OFF, SUMMARY OFF) SELECT * FROM event_log.run_events"]),
        own("channels", &["LISTEN event_log", "LISTEN runlog", "SELECT pg_notify('runlog', 'x')", "SELECT * FROM pg_listening_channels()"]).for_nobody(),
        own("large objects", &["SELECT * FROM pg_largeobject_metadata"]).for_nobody(),
        own("prepared transactions", &["SELECT * FROM pg_prepared_xacts"]).for_nobody(),
        own("a column's whole definition", &["SELECT * FROM information_schema.columns WHERE table_schema = 'event_log'", "SELECT * FROM information_schema.applicable_roles"]),
    ]
}
