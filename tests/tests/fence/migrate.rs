//! Migrations by logins that are no superusers, and of several databases of one cluster at once.
//!
//! A test suite of its own in this binary.

use runlog_tests::environment::{run_name, run_to_end, said};
use runlog_tests::roles::{Role, as_login, make_logins};
use runlog_tests::{Database, Environment};
use sqlx::{AssertSqlSafe, PgPool};
use std::process::Output;

async fn execute(pool: &PgPool, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(pool)
        .await
        .unwrap();
}

async fn migrate(environment: &Environment, url: &str) -> Output {
    let mut command = environment.program("runlog");
    command.arg("migrate").env("RUNLOG_DATABASE__URL", url);
    run_to_end(command).await.unwrap()
}

/// An empty database that a login of these attributes owns.
async fn owned(environment: &Environment, login: &str, attributes: &str) -> Database {
    let database = Database::empty(environment).await.unwrap();
    let name: String = sqlx::query_scalar("SELECT quote_ident(current_database())")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    execute(&database.pool, &format!("CREATE ROLE {login} LOGIN PASSWORD '{login}' {attributes}; ALTER DATABASE {name} OWNER TO {login}")).await;
    database
}

/// The roles are the cluster's and may be there; a login that can make them needs to be able to become the owner.
#[tokio::test(flavor = "multi_thread")]
async fn the_database_s_owner_migrates_as_a_member_of_runlog_owner_without_making_roles() {
    let environment = Environment::from_env().unwrap();
    drop(Database::migrated(&environment).await.unwrap());
    let login = format!("fence_{}_member", run_name());
    let database = owned(&environment, &login, "IN ROLE runlog_owner").await;
    let output = migrate(&environment, &as_login(&database.url, &login)).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_is_usable(&database).await;
    give_up(&database, &login).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_of_one_cluster_migrate_at_once_by_a_login_that_may_make_roles() {
    let environment = Environment::from_env().unwrap();
    drop(Database::migrated(&environment).await.unwrap());
    let login = format!("fence_{}_creator", run_name());
    let first = owned(&environment, &login, "CREATEROLE").await;
    // From version 16 on CREATEROLE is for roles that one has made, or may administer.
    execute(
        &first.pool,
        &format!("GRANT runlog_owner TO {login} WITH ADMIN OPTION"),
    )
    .await;
    execute(&first.pool, &format!("REVOKE runlog_owner FROM {login}; DO $$ BEGIN IF current_setting('server_version_num')::int >= 160000 THEN EXECUTE 'GRANT runlog_owner TO {login} WITH ADMIN OPTION, INHERIT FALSE, SET FALSE'; END IF; END $$")).await;
    let mut databases = vec![first];
    for _ in 0..3 {
        let database = Database::empty(&environment).await.unwrap();
        let name: String = sqlx::query_scalar("SELECT quote_ident(current_database())")
            .fetch_one(&database.pool)
            .await
            .unwrap();
        execute(
            &database.pool,
            &format!("ALTER DATABASE {name} OWNER TO {login}"),
        )
        .await;
        databases.push(database);
    }
    let mut running = tokio::task::JoinSet::new();
    for database in &databases {
        let (environment, url) = (environment.clone(), as_login(&database.url, &login));
        running.spawn(async move { migrate(&environment, &url).await });
    }
    for output in running.join_all().await {
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    }
    for database in &databases {
        assert_is_usable(database).await;
    }
    for database in &databases[1..] {
        execute(
            &database.pool,
            &format!("REASSIGN OWNED BY {login} TO CURRENT_USER; DROP OWNED BY {login}"),
        )
        .await;
    }
    give_up(&databases[0], &login).await;
}

/// The login of a role reads and a rebuild is made.
async fn assert_is_usable(database: &Database) {
    make_logins(&database.url).await.unwrap();
    let operator = PgPool::connect(&database.url_of(Role::Operator))
        .await
        .unwrap();
    let version: i32 = sqlx::query_scalar("SELECT read_model.begin_rebuild('run_status')")
        .fetch_one(&operator)
        .await
        .unwrap();
    assert_eq!(version, 2);
    let owner: Vec<String> = sqlx::query_scalar(include_str!("catalogue.sql"))
        .fetch_all(&database.pool)
        .await
        .unwrap();
    let faults: Vec<String> = owner
        .into_iter()
        .filter(|fault| !fault.starts_with("the role "))
        .collect();
    assert_eq!(faults, Vec::<String>::new());
    operator.close().await;
}

async fn give_up(database: &Database, login: &str) {
    execute(
        &database.pool,
        &format!(
            "REASSIGN OWNED BY {login} TO CURRENT_USER; DROP OWNED BY {login}; DROP ROLE {login}"
        ),
    )
    .await;
}
