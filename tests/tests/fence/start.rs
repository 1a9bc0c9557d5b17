//! A process whose login may do more than it should, or less, does not start, and says what; for development it may.
//!
//! A test suite of its own in this binary.

use std::time::Duration;

use anyhow::ensure;
use runlog_tests::environment::run_name;
use runlog_tests::roles::{Role, as_login};
use runlog_tests::{Pipeline, Process, wait_until};
use sqlx::AssertSqlSafe;

const SOON: Duration = Duration::from_secs(30);

/// How a login differs from what it should be, and what of that is said. {role} = the right one, {other} = the other
/// program's, {login} = it, {database} = its database.
const LOGINS: [(&str, &str, &str); 17] = [
    (
        "superuser",
        "CREATE ROLE {login} LOGIN SUPERUSER",
        "is a superuser",
    ),
    (
        "bypass",
        "CREATE ROLE {login} LOGIN BYPASSRLS IN ROLE {role}",
        "BYPASSRLS",
    ),
    (
        "createrole",
        "CREATE ROLE {login} LOGIN CREATEROLE IN ROLE {role}",
        "CREATEROLE",
    ),
    (
        "replication",
        "CREATE ROLE {login} LOGIN REPLICATION IN ROLE {role}",
        "REPLICATION",
    ),
    (
        "owner",
        "CREATE ROLE {login} LOGIN IN ROLE {role}, runlog_owner",
        "is a member of runlog_owner",
    ),
    (
        "noinherit",
        "CREATE ROLE {login} LOGIN NOINHERIT IN ROLE {role}, runlog_owner",
        "is not a member of {role}",
    ),
    (
        "two",
        "CREATE ROLE {login} LOGIN IN ROLE {role}, {other}",
        "is a member of {other}",
    ),
    (
        "reader",
        "CREATE ROLE {login} LOGIN IN ROLE {role}, pg_read_all_data",
        "is a member of pg_read_all_data",
    ),
    (
        "update",
        "CREATE ROLE {login} LOGIN IN ROLE {role}; GRANT UPDATE (payload) ON event_log.event TO {login}",
        "may UPDATE on event_log.event",
    ),
    (
        "truncate",
        "CREATE ROLE {login} LOGIN IN ROLE {role}; GRANT TRUNCATE ON event_log.run TO {login}",
        "may TRUNCATE on event_log.run",
    ),
    (
        "bytes",
        "CREATE ROLE {login} LOGIN IN ROLE {role}; GRANT SELECT (value) ON event_log.dead_letter TO {login}",
        "may SELECT on event_log.dead_letter",
    ),
    (
        "member",
        "CREATE ROLE {login} LOGIN IN ROLE {role}; GRANT INSERT ON event_log.tenant_member TO {login}",
        "may INSERT on event_log.tenant_member",
    ),
    (
        "execute",
        "CREATE ROLE {login} LOGIN IN ROLE {role}; GRANT EXECUTE ON FUNCTION read_model.drop_version TO {login}",
        "may execute read_model.drop_version",
    ),
    (
        "create",
        "CREATE ROLE {login} LOGIN IN ROLE {role}; GRANT CREATE ON SCHEMA read_model TO {login}",
        "may make objects in the schema read_model",
    ),
    (
        "database",
        "CREATE ROLE {login} LOGIN IN ROLE {role}; ALTER DATABASE {database} OWNER TO {login}",
        "owns the database",
    ),
    (
        "norole",
        "CREATE ROLE {login} LOGIN",
        "is not a member of {role}",
    ),
    (
        "another",
        "CREATE ROLE {login} LOGIN IN ROLE {other}",
        "is not a member of {role}",
    ),
];

struct Deployment {
    pipeline: Pipeline,
    program: &'static str,
    role: Role,
    other: Role,
}

impl Deployment {
    fn login(&self, name: &str) -> String {
        format!("fence_{}_{}_{name}", run_name(), self.role.name())
    }

    async fn run(&self, statement: &str) {
        let statement = AssertSqlSafe(statement.to_owned());
        sqlx::raw_sql(statement)
            .execute(&self.pipeline.database.pool)
            .await
            .unwrap();
    }

    async fn database(&self) -> String {
        let name = "SELECT quote_ident(current_database())";
        sqlx::query_scalar(name)
            .fetch_one(&self.pipeline.database.pool)
            .await
            .unwrap()
    }

    fn start(&self, login: &str, allowed: bool) -> Process {
        let mut command = self.pipeline.program(self.program);
        command.env(
            "RUNLOG_DATABASE__URL",
            as_login(&self.pipeline.database.url, login),
        );
        if allowed {
            command.env("RUNLOG_DATABASE__ALLOW_POWERFUL_LOGIN", "true");
        }
        Process::spawn(&self.pipeline.environment, self.program, command).unwrap()
    }

    fn filled(&self, text: &str, login: &str, database: &str) -> String {
        text.replace("{login}", login)
            .replace("{role}", self.role.name())
            .replace("{other}", self.other.name())
            .replace("{database}", database)
    }

    /// Each login is refused; those that may more may start for development.
    async fn try_all(&self) {
        let database = self.database().await;
        for (name, statement, said) in LOGINS {
            let login = self.login(name);
            self.run(&self.filled(statement, &login, &database)).await;
            self.run(&format!("ALTER ROLE {login} PASSWORD '{login}'"))
                .await;
            let mut process = self.start(&login, false);
            let status = process.wait_exit(SOON).await.unwrap();
            let written = process.written().unwrap();
            let said = self.filled(said, &login, &database);
            assert_eq!(status.code(), Some(1), "{name}: {written}");
            assert!(
                written.contains(&said) && written.contains(&login),
                "{name}: not {said:?}, but {written}"
            );
        }
        for name in ["superuser", "update"] {
            self.starts_with_a_warning(&self.login(name)).await;
        }
        self.run(&format!("ALTER DATABASE {database} OWNER TO CURRENT_USER"))
            .await;
        for (name, ..) in LOGINS {
            let login = self.login(name);
            self.run(&format!("DROP OWNED BY {login}; DROP ROLE {login}"))
                .await;
        }
    }

    async fn starts_with_a_warning(&self, login: &str) {
        let mut process = self.start(login, true);
        process.wait_ready().await.unwrap();
        wait_until("the warning", SOON, async || {
            let written = process.written()?;
            ensure!(
                written.contains("allow_powerful_login") && written.contains("WARN"),
                "{written}"
            );
            Ok(())
        })
        .await
        .unwrap();
        assert_eq!(process.terminate().await.unwrap().code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ingest_starts_only_with_a_login_that_may_what_it_is_for() {
    let pipeline = Pipeline::fresh(1).await.unwrap();
    Deployment {
        pipeline,
        program: "runlog-ingest",
        role: Role::Ingest,
        other: Role::Projector,
    }
    .try_all()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn projectors_start_only_with_a_login_that_may_what_they_are_for() {
    let pipeline = Pipeline::fresh(1).await.unwrap();
    Deployment {
        pipeline,
        program: "runlog-projectors",
        role: Role::Projector,
        other: Role::Ingest,
    }
    .try_all()
    .await;
}
