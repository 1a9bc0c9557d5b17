//! SQLSTATEs that PostgreSQL really raises, and the class that each one gets.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

mod support;

use event_log::fault::sqlstate;
use event_log::{FaultClass, classify};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use support::database::{Database, IDLE_IN_TRANSACTION, with_database};
use support::events::{batch, event};

const SESSION: &str = "SELECT 1";
const AN_EVENT: &str = "INSERT INTO event_log.event (run_no, run_seq, stream_id, source_offset, emitted_at,
  persisted_at, event_id, engine_attempt_id, logical_attempt_id, idempotency_key, content_digest, chain_digest,
  tenant_id, event_type, project_id, environment_id, plan_id, plan_version, payload) SELECT
  9, 1, 9, 1, now(), now(), gen_random_uuid(), 1, 1, sha256('k'), sha256('c'), sha256('d'), 't', 'e', 'p', 'e', 'p', 'v', ";

/// The error of a statement in a session of its own.
async fn error(database: &Database, session: &str, statement: &str) -> sqlx::Error {
    let mut connection = PgConnection::connect_with(&database.options).await.unwrap();
    let session = AssertSqlSafe(session.to_owned());
    sqlx::raw_sql(session)
        .execute(&mut connection)
        .await
        .unwrap();
    let result = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(&mut connection)
        .await;
    match result {
        Ok(_) => panic!("{statement} did not fail"),
        Err(error) => error,
    }
}

async fn assert_class(
    database: &Database,
    session: &str,
    statement: &str,
    code: &str,
    class: FaultClass,
) {
    let error = error(database, session, statement).await;
    assert_eq!(
        (sqlstate(&error).as_deref(), classify(&error)),
        (Some(code), class),
        "{statement}: {error}"
    );
}

#[tokio::test]
async fn what_a_record_is_to_blame_for() {
    with_database(|database| async move {
        let deep = format!("{AN_EVENT} (repeat('[', 100000) || repeat(']', 100000))::jsonb");
        let event = |payload: &str| format!("{AN_EVENT} {payload}");
        let wrong_key = event("NULL").replace("sha256('k')", "'short'");
        let no_tenant = event("NULL").replace("'t', 'e', 'p'", "NULL, 'e', 'p'");
        let long_id = "INSERT INTO event_log.run (tenant_id, run_id)
                       SELECT 't', string_agg(sha256(n::text::bytea)::text, '') FROM generate_series(1, 200) n";
        for (code, statement) in [
            ("22P05", event(r#"'{"a": "\u0000"}'::jsonb"#).as_str()),
            ("22P02", &event(r#"'{"a": "\ud800"}'::jsonb"#)),
            ("22003", &event("'1e131072'::jsonb")),
            ("22021", &event("to_jsonb(convert_from('\\x00'::bytea, 'UTF8'))")),
            ("22008", &event("NULL").replace("now(), now()", "'300000-01-01'::timestamptz, now()")),
            ("54001", &deep),
            ("23514", &wrong_key),
            ("23502", &no_tenant),
            ("54000", long_id),
        ] {
            assert_class(&database, SESSION, statement, code, FaultClass::Record).await;
        }
        let long_detail = "INSERT INTO event_log.dead_letter (stream_id, source_offset, reason, detail, received_at)
                           VALUES (1, 1, 'r', repeat('x', 1025), now())";
        assert_class(&database, SESSION, long_detail, "23514", FaultClass::Record).await;
    })
    .await;
}

#[tokio::test]
async fn a_unique_violation_is_its_own_class() {
    with_database(|database| async move {
        let mut writer = database.writer(0).await;
        writer
            .append(&database.pool, &batch(0, [event("t", "run", "a")]))
            .await
            .unwrap();
        let again = "INSERT INTO event_log.event SELECT * FROM event_log.event";
        assert_class(&database, SESSION, again, "23505", FaultClass::Unique).await;
    })
    .await;
}

#[tokio::test]
async fn a_bug_or_a_misconfiguration_is_fatal() {
    with_database(|database| async move {
        database.claim(0).await;
        for (code, statement) in [
            ("23514", "UPDATE event_log.stream SET next_offset = 1"),
            ("42P01", "SELECT FROM event_log.absent"),
            ("42703", "SELECT absent FROM event_log.event"),
            (
                "3F000",
                "SELECT absent.f(1) FROM absent.t; CREATE TABLE absent.t ()",
            ),
            ("42601", "SELEC"),
            ("23502", "UPDATE event_log.stream SET group_id = NULL"),
            (
                "42P05",
                "PREPARE same AS SELECT 1; PREPARE same AS SELECT 1",
            ),
        ] {
            let error = error(&database, SESSION, statement).await;
            let found = sqlstate(&error);
            assert_eq!(classify(&error), FaultClass::Fatal, "{code}: {error}");
            assert!(
                found.as_deref() == Some(code) || code == "3F000",
                "{statement}: {error}"
            );
        }
        let role = "BEGIN; CREATE ROLE event_log_test_nobody; SET LOCAL ROLE event_log_test_nobody";
        let denied = "SELECT FROM event_log.event";
        assert_class(&database, role, denied, "42501", FaultClass::Fatal).await;
        let mut writer = database.writer(0).await;
        writer
            .append(&database.pool, &batch(0, [event("t", "run", "a")]))
            .await
            .unwrap();
        let change = "UPDATE event_log.event SET payload = '{}'";
        assert_class(&database, SESSION, change, "42501", FaultClass::Fatal).await;
        let unknown = database.options.clone().database("event_log_test_absent");
        let error = PgConnection::connect_with(&unknown).await.unwrap_err();
        assert_eq!(
            (sqlstate(&error).as_deref(), classify(&error)),
            (Some("3D000"), FaultClass::Fatal)
        );
        let wrong = database.options.clone().password("wrong");
        let error = PgConnection::connect_with(&wrong).await.unwrap_err();
        assert_eq!(
            (sqlstate(&error).as_deref(), classify(&error)),
            (Some("28P01"), FaultClass::Environment),
            "it may be in rotation"
        );
    })
    .await;
}

#[tokio::test]
async fn what_another_try_may_find_better_is_the_environments() {
    with_database(|database| async move {
        database.claim(0).await;
        let own = |session| (session, "SELECT FROM event_log.stream FOR UPDATE");
        let read_only = own("SET default_transaction_read_only = on");
        assert_class(
            &database,
            read_only.0,
            read_only.1,
            "25006",
            FaultClass::Environment,
        )
        .await;
        let suicide = "SELECT pg_terminate_backend(pg_backend_pid())";
        assert_class(
            &database,
            SESSION,
            suicide,
            "57P01",
            FaultClass::Environment,
        )
        .await;
        // Somebody else holds the row.
        let mut held = database.pool.begin().await.unwrap();
        sqlx::query("SELECT FROM event_log.stream FOR UPDATE")
            .execute(&mut *held)
            .await
            .unwrap();
        let waits = own("SET lock_timeout = 20");
        assert_class(
            &database,
            waits.0,
            waits.1,
            "55P03",
            FaultClass::Environment,
        )
        .await;
        held.rollback().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_statement_that_is_cancelled_is_its_own_class() {
    with_database(|database| async move {
        let (limit, sleep) = ("SET statement_timeout = 20", "SELECT pg_sleep(60)");
        assert_class(&database, limit, sleep, "57014", FaultClass::Cancelled).await;
        // By an administrator: the backend itself is one.
        let cancel = "SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(60)";
        assert_class(&database, SESSION, cancel, "57014", FaultClass::Cancelled).await;
    })
    .await;
}

/// Resources, the state of a session or an object, files: nothing that a record could do.
#[tokio::test]
async fn what_the_server_lacks_or_has_in_another_state_is_the_environments() {
    with_database(|database| async move {
        // The device is always full.
        let full = "COPY (SELECT 1) TO '/dev/full'";
        // Spills far more than it may.
        let limit = "SET work_mem = '64kB'; SET temp_file_limit = '64kB'";
        let spill = "SELECT count(*) FROM (SELECT n FROM generate_series(1, 100000) n ORDER BY n DESC OFFSET 1) s";
        for (code, session, statement) in [
            ("53100", SESSION, full),
            ("53400", limit, spill),
            ("58P01", SESSION, "SELECT pg_read_file('absent')"),
            ("25001", SESSION, "BEGIN; VACUUM event_log.event"),
            ("25P01", SESSION, "SAVEPOINT outside"),
            ("55000", SESSION, "SELECT currval(pg_get_serial_sequence('event_log.stream', 'stream_id'))"),
        ] {
            assert_class(&database, session, statement, code, FaultClass::Environment).await;
        }
    })
    .await;
}

/// A statement after one that failed: the session is not where its client believes it to be.
#[tokio::test]
async fn a_transaction_that_has_failed_is_the_environments() {
    with_database(|database| async move {
        let mut session = PgConnection::connect_with(&database.options).await.unwrap();
        for (statement, code) in [
            ("SELECT 1", None),
            ("SELECT 1 / 0", Some("22012")),
            ("SELECT 1", Some("25P02")),
        ] {
            if code.is_none() {
                sqlx::raw_sql("BEGIN").execute(&mut session).await.unwrap();
            }
            let result = sqlx::raw_sql(statement).execute(&mut session).await;
            let found = result.err().and_then(|error| sqlstate(&error));
            assert_eq!(found.as_deref(), code, "{statement}");
        }
        let error = sqlx::raw_sql("SELECT 1")
            .execute(&mut session)
            .await
            .unwrap_err();
        assert_eq!(classify(&error), FaultClass::Environment);
    })
    .await;
}

/// An operator keeps clients out of the database for a while.
#[tokio::test]
async fn a_database_that_takes_no_connections_is_the_environments() {
    with_database(|database| async move {
        let name = database.options.get_database().unwrap();
        let close = format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false");
        let elsewhere = database.options.clone().database("template1");
        let mut session = PgConnection::connect_with(&elsewhere).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(close))
            .execute(&mut session)
            .await
            .unwrap();
        session.close().await.unwrap();
        let error = PgConnection::connect_with(&database.options)
            .await
            .unwrap_err();
        let found = (sqlstate(&error), classify(&error));
        assert_eq!(found, (Some("55000".to_owned()), FaultClass::Environment));
    })
    .await;
}

/// Runlog has no foreign key and no exclusion: who adds one may mean a record with it, so it is found
/// out whether one record alone is refused. The process does not end for it.
#[tokio::test]
async fn a_constraint_that_is_not_runlog_s_own_is_unlisted() {
    with_database(|database| async move {
        database
            .run(
                "CREATE EXTENSION IF NOT EXISTS btree_gist;
                 ALTER TABLE event_log.event ADD FOREIGN KEY (run_no) REFERENCES event_log.run;
                 CREATE TABLE slot (n int, EXCLUDE USING gist (n WITH =));
                 INSERT INTO slot VALUES (1)",
            )
            .await
            .unwrap();
        for (code, statement) in [
            ("23503", format!("{AN_EVENT} NULL")),
            ("23P01", "INSERT INTO slot VALUES (1)".to_owned()),
        ] {
            assert_class(&database, SESSION, &statement, code, FaultClass::Unlisted).await;
        }
        let on_stream =
            "ALTER TABLE event_log.stream ADD FOREIGN KEY (stream_id) REFERENCES event_log.run";
        database.run(on_stream).await.unwrap();
        let open =
            "INSERT INTO event_log.stream (topic, partition, group_id, start_offset, next_offset)
                    VALUES ('t', 9, 'g', 0, 0)";
        assert_class(&database, SESSION, open, "23503", FaultClass::Fatal).await;
    })
    .await;
}

#[tokio::test]
async fn a_serialization_failure_is_the_environments() {
    with_database(|database| async move {
        database.claim(0).await;
        let mut slow = PgConnection::connect_with(&database.options).await.unwrap();
        sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM event_log.stream")
            .execute(&mut slow)
            .await
            .unwrap();
        database
            .run("UPDATE event_log.stream SET owner = 'first'")
            .await
            .unwrap();
        let update = "UPDATE event_log.stream SET owner = 'second'";
        let error = sqlx::raw_sql(update).execute(&mut slow).await.unwrap_err();
        let found = (sqlstate(&error), classify(&error));
        assert_eq!(found, (Some("40001".to_owned()), FaultClass::Environment));
    })
    .await;
}

#[tokio::test]
async fn a_deadlock_is_the_environments() {
    with_database(|database| async move {
        database.claim(0).await;
        database.claim(1).await;
        let mut sessions = Vec::new();
        for partition in [0, 1] {
            let mut session = database.pool.begin().await.unwrap();
            sqlx::raw_sql("SET LOCAL deadlock_timeout = 50")
                .execute(&mut *session)
                .await
                .unwrap();
            lock(&mut session, partition).await.unwrap();
            sessions.push(session);
        }
        let mut second = sessions.pop().unwrap();
        let mut first = sessions.pop().unwrap();
        // The victim's end lets the other one go on.
        let one = async {
            let result = lock(&mut first, 1).await;
            first.rollback().await.unwrap();
            result
        };
        let other = async {
            let result = lock(&mut second, 0).await;
            second.rollback().await.unwrap();
            result
        };
        let results = tokio::join!(one, other);
        let error = results.0.and(results.1).unwrap_err();
        let found = (sqlstate(&error), classify(&error));
        assert_eq!(found, (Some("40P01".to_owned()), FaultClass::Environment));
    })
    .await;
}

async fn lock(session: &mut PgConnection, partition: i32) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT FROM event_log.stream WHERE partition = $1 FOR UPDATE")
        .bind(partition)
        .execute(session)
        .await?;
    Ok(())
}

#[tokio::test]
async fn too_many_connections_are_the_environments() {
    with_database(|database| async move {
        database
            .run("CREATE ROLE event_log_test_crowd LOGIN PASSWORD 'crowd' CONNECTION LIMIT 0")
            .await
            .unwrap();
        let crowd = database
            .options
            .clone()
            .username("event_log_test_crowd")
            .password("crowd");
        let refused = PgConnection::connect_with(&crowd).await;
        database
            .run("DROP ROLE event_log_test_crowd")
            .await
            .unwrap();
        let error = refused.unwrap_err();
        let found = (sqlstate(&error), classify(&error));
        assert_eq!(found, (Some("53300".to_owned()), FaultClass::Environment));
    })
    .await;
}

#[tokio::test]
async fn an_idle_transaction_that_the_server_ends_is_the_environments() {
    with_database(|database| async move {
        let mut session = PgConnection::connect_with(&database.options).await.unwrap();
        sqlx::raw_sql("SET idle_in_transaction_session_timeout = 20; BEGIN")
            .execute(&mut session)
            .await
            .unwrap();
        database.wait_until(false, IDLE_IN_TRANSACTION).await;
        let error = sqlx::raw_sql("SELECT 1")
            .execute(&mut session)
            .await
            .unwrap_err();
        assert_eq!(classify(&error), FaultClass::Environment, "{error}");
    })
    .await;
}

#[tokio::test]
async fn an_error_that_nobody_listed_is_unlisted() {
    with_database(|database| async move {
        for code in ["XX000", "XX001", "P0001", "23000", "72000", "F0000"] {
            let raise = format!("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '{code}'; END $$");
            assert_class(&database, SESSION, &raise, code, FaultClass::Unlisted).await;
        }
        for (code, statement) in [
            ("0A000", "SELECT count(*) FROM event_log.event FOR UPDATE"),
            ("21000", "SELECT (SELECT n FROM generate_series(1, 2) n)"),
        ] {
            assert_class(&database, SESSION, statement, code, FaultClass::Unlisted).await;
        }
    })
    .await;
}
