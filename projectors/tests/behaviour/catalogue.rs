//! What the database says about itself.

use event_log::fault::sqlstate;

use crate::support::{Database, Log, Running, project, run, settings};

#[tokio::test]
async fn every_table_view_and_column_has_a_comment() {
    let database = Database::new().await;
    let missing: Vec<String> = sqlx::query_scalar(
        "SELECT c.oid::regclass::text || coalesce('.' || a.attname, '')
         FROM pg_class c
         JOIN pg_namespace n ON n.oid = c.relnamespace
         CROSS JOIN LATERAL (
           SELECT 0 AS attnum, NULL::name AS attname
           UNION ALL
           SELECT attnum, attname FROM pg_attribute
           WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
         ) a
         WHERE (n.nspname IN ('event_log', 'read_model')
                OR n.nspname IN (SELECT read_model.version_schema(projection, version)
                                 FROM read_model.projection_version))
           AND c.relkind IN ('r', 'p', 'v', 'm')
           AND col_description(c.oid, a.attnum) IS NULL
           AND NOT (a.attnum = 0 AND obj_description(c.oid, 'pg_class') IS NOT NULL)",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    assert!(missing.is_empty(), "without a comment: {missing:?}");
    let schemas = database
        .number(
            "SELECT count(*) FROM pg_namespace n JOIN read_model.projection_version v
               ON n.nspname = read_model.version_schema(v.projection, v.version)
             WHERE EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = n.oid)",
        )
        .await;
    let projections = runlog_projectors::projection::NAMES.len();
    assert_eq!(schemas, projections as i64, "a schema each was looked at");
}

#[tokio::test]
async fn every_function_for_people_has_a_comment() {
    let database = Database::new().await;
    let missing: Vec<String> = sqlx::query_scalar(
        "SELECT oid::regprocedure::text FROM pg_proc
         WHERE pronamespace = 'read_model'::regnamespace AND obj_description(oid, 'pg_proc') IS NULL",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    assert!(missing.is_empty(), "without a comment: {missing:?}");
}

#[tokio::test]
async fn every_read_model_of_a_tenant_starts_with_it_and_says_how_fresh_it_is() {
    let database = Database::new().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT c.table_name::text FROM information_schema.columns c
         JOIN information_schema.views v USING (table_schema, table_name)
         WHERE c.table_schema = 'read_model' AND c.column_name = 'tenant_id'",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    for known in [
        "run_current",
        "run_snapshot",
        "run_hourly",
        "run_daily",
        "step_daily",
    ] {
        assert!(tables.iter().any(|table| table == known), "no {known}");
    }
    for table in &tables {
        let columns: Vec<String> = sqlx::query_scalar(
            "SELECT column_name::text FROM information_schema.columns
             WHERE table_schema = 'read_model' AND table_name = $1 ORDER BY ordinal_position",
        )
        .bind(table)
        .fetch_all(&database.pool)
        .await
        .unwrap();
        assert_eq!(columns[0], "tenant_id", "{table}");
        for column in ["last_event_seq", "projected_at"] {
            assert!(
                columns.iter().any(|name| name == column),
                "{table} has no {column}"
            );
        }
    }
}

#[tokio::test]
async fn every_projection_of_this_build_has_a_live_version() {
    let database = Database::new().await;
    let live =
        "SELECT projection FROM read_model.projection_version WHERE state = 'live' ORDER BY 1";
    let live: Vec<String> = sqlx::query_scalar(live)
        .fetch_all(&database.pool)
        .await
        .unwrap();
    let mut names = runlog_projectors::projection::NAMES.to_vec();
    names.sort_unstable();
    assert_eq!(live, names);
}

/// A database as the migration left it that began to keep projections in versions.
async fn with_first_versions() -> Database {
    let database = Database::without_schema().await;
    for migration in [
        include_str!("../../../migrations/0001_event_log.sql"),
        include_str!("../../../migrations/0002_read_model.sql"),
        include_str!("../../../migrations/0003_halts_and_audit.sql"),
        include_str!("../../../migrations/0004_projection_versions.sql"),
    ] {
        database.execute(migration).await;
    }
    database
}

#[tokio::test]
async fn the_table_of_snapshots_is_made_in_every_version_and_the_view_shows_the_live_one() {
    let database = with_first_versions().await;
    for migration in [
        // One that was live, one that is, and one that is on its way.
        "SELECT read_model.begin_rebuild('run_status')",
        "SELECT read_model.publish('run_status', 2)",
        "SELECT read_model.begin_rebuild('run_status')",
        include_str!("../../../migrations/0008_run_snapshots.sql"),
        "INSERT INTO read_model.run_snapshot (tenant_id, run_id, run_seq, status, consistency, at_end, state,
                                              digest, persisted_at)
         VALUES ('acme', 'r', 1000, 'RUNNING', 'CONSISTENT', false, '{}', sha256(''), now())",
    ] {
        database.execute(migration).await;
    }
    for (table, rows) in [
        ("run_status_1", 0),
        ("run_status_2", 1),
        ("run_status_3", 0),
    ] {
        let count = format!("SELECT count(*) FROM {table}.run_snapshot");
        let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(count))
            .fetch_one(&database.pool)
            .await
            .unwrap();
        assert_eq!(count, rows, "{table}");
    }
    let states = "SELECT count(*) FROM read_model.projection_version
                  WHERE (version, state) IN ((1, 'retired'), (2, 'live'), (3, 'building'))";
    assert_eq!(database.number(states).await, 3);
}

#[tokio::test]
async fn a_version_that_is_behind_the_live_one_is_not_published() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    log.append(stream, "a", run("RunQueued")).await;
    project(&database, 2000).await;
    database
        .execute("SELECT read_model.begin_rebuild('run_status')")
        .await;
    let publish = async || {
        let published = sqlx::query("SELECT read_model.publish('run_status', 2)")
            .execute(&database.pool)
            .await;
        published.map(drop).map_err(|error| sqlstate(&error))
    };
    let behind = Err(Some("55000".to_owned()));
    assert_eq!(publish().await, behind, "it has read nothing");
    let read = "SELECT count(*) FROM read_model.run_current WHERE last_event_seq = 1";
    assert_eq!(database.number(read).await, 1);
    let build = async || {
        let running = Running::start(&database, "two", settings());
        database
            .holds("SELECT count(*) = 1 FROM read_model.projection_checkpoint WHERE version = 2 AND next_offset = 1")
            .await;
        running.stop().await;
    };
    build().await;
    database
        .execute("UPDATE read_model.projection_checkpoint SET next_offset = 0, applied = 0 WHERE version = 2")
        .await;
    assert_eq!(publish().await, behind);
    build().await;
    assert_eq!(publish().await, Ok(()));
    assert_eq!(database.number(read).await, 1);
}

/// The indexes and constraints of a version, as they are called and defined in its schema.
async fn indexes_and_constraints(database: &Database, schema: &str) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT replace(i.indexdef, ' ON ' || $1 || '.', ' ON ') FROM pg_indexes i WHERE i.schemaname = $1
         UNION ALL
         SELECT format('%s: %s %s', c.conrelid::regclass::text, c.conname, pg_get_constraintdef(c.oid))
         FROM pg_constraint c WHERE c.connamespace = to_regnamespace($1)
         ORDER BY 1",
    )
    .bind(schema)
    .fetch_all(&database.pool)
    .await
    .unwrap()
    .into_iter()
    .map(|line: String| line.replace(&format!("{schema}."), ""))
    .collect()
}

#[tokio::test]
async fn a_rebuilt_version_has_the_indexes_and_constraints_of_the_live_one_by_the_same_names() {
    let database = Database::new().await;
    for projection in runlog_projectors::projection::NAMES {
        sqlx::query("SELECT read_model.begin_rebuild($1)")
            .bind(projection)
            .execute(&database.pool)
            .await
            .unwrap();
        let first = indexes_and_constraints(&database, &format!("{projection}_1")).await;
        let second = indexes_and_constraints(&database, &format!("{projection}_2")).await;
        assert!(first.len() > 4, "{projection}: {first:?}");
        assert_eq!(second, first, "{projection}");
    }
}

#[tokio::test]
async fn versions_that_were_rebuilt_under_other_names_get_the_indexes_for_analysts_too() {
    let database = with_first_versions().await;
    for migration in [
        include_str!("../../../migrations/0005_run_timeline.sql"),
        "SELECT read_model.begin_rebuild('run_status')",
        "SELECT read_model.begin_rebuild('run_timeline')",
        include_str!("../../../migrations/0006_run_stats.sql"),
        include_str!("../../../migrations/0007_parked_runs.sql"),
        include_str!("../../../migrations/0008_run_snapshots.sql"),
        include_str!("../../../migrations/0009_analysts_indexes.sql"),
        // Where `runlog migrate` keeps what it did.
        "CREATE TABLE _sqlx_migrations ()",
        include_str!("../../../migrations/0010_roles_and_row_security.sql"),
        include_str!("../../../migrations/0011_dead_letters.sql"),
        include_str!("../../../migrations/0012_seals.sql"),
        include_str!("../../../migrations/0013_retention_and_erasure.sql"),
        include_str!("../../../migrations/0014_duration_class.sql"),
    ] {
        database.execute(migration).await;
    }
    for version in [1, 2] {
        let timeline = indexes_and_constraints(&database, &format!("run_timeline_{version}")).await;
        let has = |columns: &str| timeline.iter().any(|index| index.ends_with(columns));
        assert!(
            has("(tenant_id, state, duration_class, started_at)"),
            "{timeline:?}"
        );
        for old in [
            "(tenant_id, state, read_model.duration_class(duration_ms), started_at)",
            "(tenant_id, state, ended_at, started_at)",
        ] {
            assert!(!has(old), "{timeline:?}");
        }
        let status = indexes_and_constraints(&database, &format!("run_status_{version}")).await;
        assert!(
            status
                .iter()
                .any(|index| index.ends_with("(tenant_id, plan_id, sort_at DESC, run_id)")),
            "{status:?}"
        );
    }
}

#[tokio::test]
async fn a_rebuilt_version_may_be_read_by_whom_the_live_one_may() {
    let database = Database::new().await;
    database
        .execute(
            "GRANT USAGE ON SCHEMA run_status_1 TO PUBLIC; GRANT SELECT ON run_status_1.run_current TO PUBLIC;
             SELECT read_model.begin_rebuild('run_status')",
        )
        .await;
    let granted = "SELECT count(*) FROM (
           SELECT acl.* FROM pg_class c, aclexplode(c.relacl) acl WHERE c.relnamespace = 'run_status_2'::regnamespace
           UNION ALL
           SELECT acl.* FROM pg_namespace n, aclexplode(n.nspacl) acl WHERE n.nspname = 'run_status_2') grants
         WHERE grantee = 0";
    assert_eq!(database.number(granted).await, 2);
}
