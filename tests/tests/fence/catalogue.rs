//! What the catalogue says of roles, rights, policies and triggers: no fault, exactly the rights that are written down in
//! rights.txt, the same for a version that a rebuild makes, and a fault for each change that would open the fence.
//!
//! A test suite of its own in this binary.

use runlog_tests::{Database, Environment};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, PgTransaction};

const EXPECTED: &str = include_str!("rights.txt");

async fn faults(connection: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(include_str!("catalogue.sql"))
        .fetch_all(connection)
        .await
        .unwrap()
}

async fn rights(connection: &mut PgConnection) -> Vec<String> {
    sqlx::query_scalar(include_str!("rights.sql"))
        .fetch_all(connection)
        .await
        .unwrap()
}

async fn migrated() -> Database {
    Database::migrated(&Environment::from_env().unwrap())
        .await
        .unwrap()
}

/// Lines of the one that the other has not, with a sign before them.
fn missing(sign: &str, of: &[String], in_other: &[String]) -> Vec<String> {
    of.iter()
        .filter(|line| !in_other.contains(line))
        .map(|line| format!("{sign} {line}"))
        .collect()
}

fn differences(expected: &[String], found: &[String]) -> Vec<String> {
    [missing("-", expected, found), missing("+", found, expected)].concat()
}

fn expected() -> Vec<String> {
    EXPECTED.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_catalogue_has_no_fault_and_no_right_that_is_not_written_down() {
    let environment = Environment::from_env().unwrap();
    let database = migrated().await;
    let mut connection = database.pool.acquire().await.unwrap();
    let found = rights(&mut connection).await;
    let file = environment.scratch.join("rights.txt");
    std::fs::write(&file, found.join("\n") + "\n").unwrap();
    assert_eq!(faults(&mut connection).await, Vec::<String>::new());
    let differences = differences(&expected(), &found);
    assert!(
        differences.is_empty(),
        "rights, policies or triggers are others than rights.txt says. Where each of these is meant:\n\
         cp {} tests/tests/fence/rights.txt\n{}",
        file.display(),
        differences.join("\n")
    );
}

#[tokio::test]
async fn a_version_that_a_rebuild_makes_has_the_same_fence() {
    let database = migrated().await;
    let mut connection = database.pool.acquire().await.unwrap();
    let projections: Vec<(String, i32)> = sqlx::query_as(
        "SELECT projection, read_model.begin_rebuild(projection) FROM read_model.projection_version WHERE state = 'live'",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    assert!(projections.len() >= 3, "{projections:?}");
    assert_eq!(faults(&mut connection).await, Vec::<String>::new());
    let all = rights(&mut connection).await;
    for (projection, version) in projections {
        let of = |schema: String| -> Vec<String> {
            let lines = all.iter().filter(|line| line.contains(&schema));
            let mut lines: Vec<String> =
                lines.map(|line| line.replace(&schema, "VERSION")).collect();
            lines.sort();
            lines
        };
        let (first, next) = (
            of(format!("{projection}_1")),
            of(format!("{projection}_{version}")),
        );
        assert!(first.len() > 10, "{projection}: {first:#?}");
        assert_eq!(
            differences(&first, &next),
            Vec::<String>::new(),
            "{projection}"
        );
    }
}

/// A change, and a part of the fault or of the line of rights that it must lead to.
const MUTATIONS: [(&str, &str); 26] = [
    (
        "DROP POLICY own_tenants ON event_log.event",
        "event_log.event has a tenant_id, and no policy own_tenants",
    ),
    (
        "DROP POLICY every_tenant ON event_log.run",
        "event_log.run has row-level security and no policy for the programs",
    ),
    (
        "DROP POLICY own_streams ON event_log.stream",
        "event_log.stream shows analysts no streams",
    ),
    (
        "ALTER POLICY own_tenants ON run_status_1.run_current USING (true)",
        "run_status_1.run_current has a tenant_id, and no policy",
    ),
    (
        "ALTER POLICY own_tenants ON event_log.run USING (tenant_id = ANY (event_log.my_tenants()))",
        "event_log.run has a tenant_id, and no policy",
    ),
    (
        "ALTER POLICY own_tenants ON event_log.run USING (tenant_id = current_setting('app.tenant'))",
        "event_log.run has a tenant_id, and no policy",
    ),
    (
        "ALTER POLICY own_tenants ON event_log.run TO PUBLIC",
        "event_log.run has a tenant_id, and no policy",
    ),
    (
        "ALTER POLICY own_streams ON event_log.stream USING (true)",
        "event_log.stream has a further policy",
    ),
    (
        "CREATE POLICY mine ON event_log.event FOR SELECT USING (true)",
        "event_log.event has a further policy",
    ),
    (
        "ALTER TABLE event_log.event DISABLE ROW LEVEL SECURITY",
        "event_log.event has a tenant_id, and no row-level security",
    ),
    (
        "ALTER TABLE event_log.stream NO FORCE ROW LEVEL SECURITY",
        "event_log.stream has a tenant_id, and no row-level security",
    ),
    (
        "CREATE TABLE read_model.mine (tenant_id text); ALTER TABLE read_model.mine OWNER TO runlog_owner",
        "read_model.mine has a tenant_id, and no row-level",
    ),
    (
        "CREATE SCHEMA mine CREATE TABLE mine (tenant_id text)",
        "mine.mine has a tenant_id, and no row-level security",
    ),
    (
        "CREATE TABLE event_log.mine (a text)",
        "event_log.mine belongs to",
    ),
    (
        "CREATE VIEW event_log.mine AS TABLE event_log.run",
        "the view event_log.mine reads with its owner's rights",
    ),
    (
        "CREATE MATERIALIZED VIEW read_model.mine AS TABLE event_log.run",
        "read_model.mine is of a kind",
    ),
    (
        "CREATE TABLE read_model.mine () INHERITS (event_log.run)",
        "read_model.mine is a child",
    ),
    (
        "CREATE FUNCTION event_log.mine() RETURNS int LANGUAGE sql RETURN 1",
        "event_log.mine() may be executed by everybody",
    ),
    (
        "ALTER FUNCTION event_log.my_tenants() RESET search_path",
        "event_log.my_tenants() runs with its owner's rights, and not",
    ),
    (
        "DROP TRIGGER event_row_is_immutable ON event_log.event",
        "- trigger event_row_is_immutable on event_log.event",
    ),
    (
        "DROP TRIGGER audit_is_append_only ON event_log.audit",
        "- trigger audit_is_append_only on event_log.audit",
    ),
    (
        "ALTER TABLE event_log.event ENABLE TRIGGER event_is_append_only",
        "the trigger event_is_append_only of event_log.event is not",
    ),
    (
        "ALTER TABLE event_log.run DISABLE TRIGGER run_row_is_immutable",
        "the trigger run_row_is_immutable of event_log.run is not",
    ),
    (
        "GRANT UPDATE (payload) ON event_log.event TO runlog_ingest",
        "+ runlog_ingest: UPDATE on event_log.event (payload)",
    ),
    (
        "GRANT SELECT ON event_log.run TO PUBLIC",
        "everybody has SELECT on event_log.run",
    ),
    (
        "GRANT EXECUTE ON FUNCTION read_model.drop_version TO runlog_projector",
        "+ runlog_projector: EXECUTE on read_model.drop_version",
    ),
];

#[tokio::test]
async fn whatever_opens_the_fence_is_a_fault() {
    let database = migrated().await;
    let mut connection = database.pool.acquire().await.unwrap();
    for (mutation, expected_fault) in MUTATIONS {
        let mut transaction: PgTransaction<'_> = connection.begin().await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(mutation))
            .execute(&mut *transaction)
            .await
            .unwrap();
        let mut found = faults(&mut transaction).await;
        found.extend(differences(&expected(), &rights(&mut transaction).await));
        assert!(
            found.iter().any(|fault| fault.contains(expected_fault)),
            "{mutation}: not {expected_fault:?}, but {found:#?}"
        );
        transaction.rollback().await.unwrap();
    }
    // And a table of a migration that is as it should be is none.
    let mut transaction = connection.begin().await.unwrap();
    sqlx::raw_sql(
        "SET LOCAL ROLE runlog_owner; CREATE TABLE read_model.mine (tenant_id text COLLATE \"C\" NOT NULL);
         SELECT event_log.secure_table('read_model.mine')",
    )
    .execute(&mut *transaction)
    .await
    .unwrap();
    assert_eq!(faults(&mut transaction).await, Vec::<String>::new());
    transaction.rollback().await.unwrap();
}
