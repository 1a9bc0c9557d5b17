//! What retention and the triggers behind it refuse, whoever asks.

use event_log::fault::sqlstate;
use sqlx::AssertSqlSafe;

use super::{refusal, retire};
use crate::ingested::{Partition, event, failed_run, project_all, rebuild_all, run_no, verify_log};
use crate::support::{Database, Running, settings};

/// A log of two failed runs, projected.
async fn two_runs() -> (Database, Partition) {
    let database = Database::new().await;
    let mut partition = Partition::claim(&database, 0).await;
    for run in ["a", "b"] {
        partition.append(&database, failed_run(run)).await;
    }
    project_all(&database).await;
    (database, partition)
}

/// Has one projection read everything.
async fn project_in(database: &Database, name: &str) {
    let projection = runlog_projectors::projection::by_name(name).unwrap();
    let running = Running::start_with(database, "one", settings(), projection);
    database.caught_up_in(name).await;
    running.stop().await;
}

async fn refused(database: &Database, runs: &[&str], why: &str) {
    let (code, message) = refusal(retire(database, runs).await);
    let expected = if why.contains("rebuild") {
        "55006"
    } else {
        "55000"
    };
    assert_eq!(code, expected, "{message}");
    assert!(message.contains(why), "{message}");
    assert_eq!(
        database
            .number("SELECT count(*) FROM event_log.retired_run")
            .await,
        0
    );
    assert_eq!(
        database
            .number("SELECT count(*) FROM event_log.audit")
            .await,
        0
    );
}

#[tokio::test]
async fn runs_that_are_not_over_or_not_read_or_parked_stay() {
    let (database, mut partition) = two_runs().await;
    partition
        .append(&database, vec![event("running", "RunStarted", None)])
        .await;
    project_all(&database).await;
    refused(&database, &["a", "running"], "it has not ended").await;
    // One more event, which no projection has read.
    partition
        .append(&database, vec![event("a", "RunAnnotated", None)])
        .await;
    refused(&database, &["a"], "has not applied all of its events").await;
    // run_status has read it, and the others have not.
    project_in(&database, "run_status").await;
    let behind = ["run_stats has not", "run_timeline has not"];
    let (_, message) = refusal(retire(&database, &["a"]).await);
    assert!(behind.iter().any(|why| message.contains(why)), "{message}");
    project_all(&database).await;
    database
        .execute(
            "INSERT INTO read_model.parked_run (tenant_id, run_id, projection, version, run_no, run_seq, error)
             SELECT tenant_id, run_id, 'run_timeline', 1, run_no, 1, 'a bug' FROM event_log.run WHERE run_id = 'a'",
        )
        .await;
    refused(&database, &["a", "b"], "it is parked by run_timeline").await;
    database.execute("DELETE FROM read_model.parked_run").await;
    // While a projection is built anew, it has not read everything.
    database
        .execute("SELECT read_model.begin_rebuild('run_stats')")
        .await;
    refused(&database, &["b"], "a rebuild of run_stats is under way").await;
    database
        .execute("SELECT read_model.drop_version('run_stats', 2)")
        .await;
    retire(&database, &["a", "b"]).await.unwrap();
    let (code, message) = refusal(retire(&database, &["a"]).await);
    assert_eq!(
        (code.as_str(), message.contains("it is retired already")),
        ("55000", true),
        "{message}"
    );
}

#[tokio::test]
async fn an_event_in_between_wrong_sums_and_no_runs_are_refused() {
    let (database, mut partition) = two_runs().await;
    let a = run_no(&database, "a").await;
    let act = |head: &str, sums: &str| {
        format!(
            "SELECT event_log.retire_runs(ARRAY[{a}], ARRAY[{head}::bigint], '{sums}', 'anna', 'why')"
        )
    };
    let one_end = r#"{"run_hourly": [{"tenant_id": "acme", "hour": "2026-01-01T00:00:00Z", "project_id": "p", "environment_id": "e",
        "plan_id": "p", "queued": 1, "started": 1, "completed": 0, "failed": 1, "cancelled": 0, "duration_ms_sum": 5,
        "durations": "{}", "last_event_seq": 7}], "step_daily": []}"#;
    let nothing = r#"{"run_hourly": [], "step_daily": []}"#;
    let none = "SELECT event_log.retire_runs('{}', '{}', '{}', 'anna', 'why')".to_owned();
    partition
        .append(&database, vec![event("b", "RunAnnotated", None)])
        .await;
    // One connection: another one may look before the lock of the act before is gone.
    let mut connection = database.pool.acquire().await.unwrap();
    for (statement, code) in [
        (act("6", one_end), "55000"),
        (act("7", nothing), "22000"),
        (none, "55000"),
    ] {
        let result = sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(&mut *connection)
            .await;
        assert_eq!(sqlstate(&result.unwrap_err()).as_deref(), Some(code));
    }
    let mut transaction = database
        .pool
        .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ")
        .await
        .unwrap();
    let result = sqlx::raw_sql(AssertSqlSafe(act("7", one_end)))
        .execute(&mut *transaction)
        .await;
    assert_eq!(sqlstate(&result.unwrap_err()).as_deref(), Some("55000"));
    transaction.rollback().await.unwrap();
    assert_eq!(verify_log(&database).await.0, Vec::<String>::new());
    assert_eq!(
        database
            .number("SELECT count(*) FROM event_log.event")
            .await,
        15
    );
}

#[tokio::test]
async fn events_are_deleted_with_a_tombstone_of_the_same_transaction_or_not_at_all() {
    let (database, _partition) = two_runs().await;
    let tombstone = "INSERT INTO event_log.audit (operator, action, subject) VALUES ('anna', 'run.retire', 'a');
         INSERT INTO event_log.retired_run (run_no, audit_id)
         SELECT r.run_no, (SELECT max(audit_id) FROM event_log.audit) FROM event_log.run r WHERE r.run_id = 'a';";
    let of = |run: &str| {
        format!(
            "DELETE FROM event_log.event WHERE run_no = (SELECT run_no FROM event_log.run WHERE run_id = '{run}')"
        )
    };
    let (a, b) = (of("a"), of("b"));
    let old_audit = "INSERT INTO event_log.retired_run (run_no, audit_id)
         SELECT r.run_no, (SELECT max(audit_id) FROM event_log.audit) FROM event_log.run r WHERE r.run_id = 'a'";
    for (what, statements, code) in [
        ("no tombstone", a.clone(), "42501"),
        ("no row met, no tombstone", "DELETE FROM event_log.event WHERE run_no = -1".to_owned(), "42501"),
        ("another run", format!("{tombstone} {b}"), "42501"),
        ("both runs", format!("{tombstone} DELETE FROM event_log.event"), "42501"),
        ("half of it", format!("{tombstone} {a} AND run_seq > 3"), "23514"),
        ("the tombstone alone", tombstone.to_owned(), "23514"),
        ("an update", format!("{tombstone} UPDATE event_log.event SET payload = NULL"), "42501"),
        ("truncate", format!("{tombstone} TRUNCATE event_log.event"), "42501"),
        ("truncate of tombstones", "TRUNCATE event_log.retired_run".to_owned(), "42501"),
        ("the tombstone is taken back", format!("{tombstone} {a}; DELETE FROM event_log.retired_run"), "42501"),
        ("the tombstone is changed", format!("{tombstone} {a}; UPDATE event_log.retired_run SET head_seq = 1"), "42501"),
        ("counts are changed", format!("{tombstone} {a}; UPDATE event_log.retired_events SET events = 1"), "42501"),
        ("no row of the audit", "INSERT INTO event_log.retired_run (run_no, audit_id) SELECT run_no, 99 FROM event_log.run".to_owned(), "55000"),
    ] {
        for setting in ["", "SET LOCAL session_replication_role = replica;"] {
            // As a replica nothing but what is ENABLE ALWAYS is fired; a foreign key then is not.
            if setting.is_empty() || !statements.contains("retired_run (") {
                let statements = format!("BEGIN; {setting} {statements}; COMMIT");
                let result = sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut *connection(&database).await).await;
                let error = result.expect_err(what);
                assert_eq!(sqlstate(&error).as_deref(), Some(code), "{what}: {error}");
            }
        }
    }
    assert_eq!(
        database
            .number("SELECT count(*) FROM event_log.event")
            .await,
        14
    );
    assert_eq!(
        database
            .number("SELECT count(*) FROM event_log.retired_events")
            .await,
        0
    );
    // The act of another transaction does not open the log, nor does its row in the audit.
    database
        .execute("INSERT INTO event_log.audit (operator, action, subject) VALUES ('anna', 'run.retire', 'a')")
        .await;
    let result = sqlx::raw_sql(old_audit).execute(&database.pool).await;
    assert_eq!(sqlstate(&result.unwrap_err()).as_deref(), Some("55000"));
    retire(&database, &["a"]).await.unwrap();
    let result = sqlx::raw_sql(AssertSqlSafe(b))
        .execute(&database.pool)
        .await;
    assert_eq!(sqlstate(&result.unwrap_err()).as_deref(), Some("42501"));
    rebuild_all(&database).await;
}

async fn connection(database: &Database) -> sqlx::pool::PoolConnection<sqlx::Postgres> {
    let mut connection = database.pool.acquire().await.unwrap();
    // An error leaves its transaction open.
    connection.close_on_drop();
    connection
}

#[tokio::test]
async fn tombstones_that_do_not_fit_the_log_are_found_and_named() {
    let (database, _partition) = two_runs().await;
    database
        .execute("CREATE TABLE kept AS SELECT * FROM event_log.event")
        .await;
    retire(&database, &["a"]).await.unwrap();
    assert_eq!(verify_log(&database).await.0, Vec::<String>::new());
    for (what, statement, lines) in [
        (
            "an event is put back",
            "INSERT INTO event_log.event SELECT * FROM kept WHERE run_no = (SELECT run_no FROM event_log.retired_run) AND run_seq = 1",
            &["it was retired, and the log has events of it", "and the log has 8, and retired 7"][..],
        ),
        (
            "a tombstone is moved to another end",
            "UPDATE event_log.retired_run SET head_seq = 6",
            &["its tombstone ends at runSeq 6, and event_log.retired_events counts 7 events"],
        ),
        (
            "a tombstone is given another name",
            "UPDATE event_log.retired_run SET run_id = 'c'",
            &["its tombstone names another run than event_log.run"],
        ),
        (
            "a tombstone is deleted",
            "DELETE FROM event_log.retired_run",
            &["the log has no event of it", "14 events were appended, and the log has 7"],
        ),
        (
            "the events of a run that is not retired are deleted, and counted as retired",
            "DELETE FROM event_log.event;
             INSERT INTO event_log.retired_events
             SELECT run_no, stream_id, count(*) FROM kept WHERE run_no <> (SELECT run_no FROM event_log.retired_run) GROUP BY 1, 2",
            &["the log has no event of it", "14 events were appended, and the log has 0, and retired 7"],
        ),
    ] {
        let mut connection = connection(&database).await;
        let before = "ALTER TABLE event_log.event DISABLE TRIGGER USER; ALTER TABLE event_log.retired_run DISABLE TRIGGER USER;
             CREATE TABLE saved_events AS SELECT * FROM event_log.event; CREATE TABLE saved_runs AS SELECT * FROM event_log.retired_run;
             CREATE TABLE saved_counts AS SELECT * FROM event_log.retired_events;
             ALTER TABLE event_log.retired_events DISABLE TRIGGER USER";
        let after = "DELETE FROM event_log.event; DELETE FROM event_log.retired_run; DELETE FROM event_log.retired_events;
             INSERT INTO event_log.event SELECT * FROM saved_events; INSERT INTO event_log.retired_run SELECT * FROM saved_runs;
             INSERT INTO event_log.retired_events SELECT * FROM saved_counts;
             DROP TABLE saved_events, saved_runs, saved_counts";
        for statement in [before, statement] {
            sqlx::raw_sql(statement).execute(&mut *connection).await.unwrap();
        }
        let found = verify_log(&database).await.0;
        assert_eq!(found.len(), lines.len(), "{what}: {found:?}");
        for line in lines {
            assert!(found.iter().any(|told| told.contains(line)), "{what}: {found:?}");
        }
        sqlx::raw_sql(after).execute(&mut *connection).await.unwrap();
        assert_eq!(verify_log(&database).await.0, Vec::<String>::new(), "{what}");
    }
}

#[tokio::test]
async fn only_operators_may_act_and_they_do_nothing_but_by_the_acts() {
    let (database, _partition) = two_runs().await;
    let acts = [
        "SELECT event_log.retire_runs('{1}', '{7}', '{}', 'anna', 'why')",
        "SELECT event_log.erase_payloads('{1}', 'anna', 'why')",
        "SELECT event_log.erase_dead_letters('acme', NULL, 'anna', 'why')",
        "SELECT read_model.replace_rows('run_status', 1, 'run_current', '{1}', '{}')",
        "SELECT read_model.begin_rebuild('run_stats')",
    ];
    let never = [
        "SELECT read_model.forget_runs('{1}')",
        "SELECT read_model.make_next_version('run_stats')",
        "INSERT INTO event_log.retired_run (run_no, audit_id) VALUES (1, 1)",
        "INSERT INTO event_log.retired_events VALUES (1, 1, 7)",
        "INSERT INTO event_log.erased_run (run_no, audit_id) VALUES (1, 1)",
        "DELETE FROM event_log.event",
        "UPDATE event_log.event SET payload = NULL",
        "UPDATE event_log.dead_letter SET value = NULL",
        "DELETE FROM run_status_1.run_current",
        "INSERT INTO read_model.retired_run_hourly SELECT * FROM read_model.retired_run_hourly",
    ];
    let others = [
        "runlog_ingest",
        "runlog_projector",
        "runlog_analyst",
        "runlog_backup",
    ];
    let operators = never
        .iter()
        .map(|statement| ("runlog_operator", *statement));
    // Projectors write the read models.
    let is_theirs = |role: &str, statement: &str| {
        role == "runlog_projector" && statement.contains("run_status_1.")
    };
    let of_others = others.iter().flat_map(|role| {
        let all = acts.iter().chain(&never);
        all.filter(|statement| !is_theirs(role, statement))
            .map(|statement| (*role, *statement))
    });
    let mut refused = 0;
    for (role, statement) in operators.chain(of_others) {
        let mut connection = connection(&database).await;
        let statements = format!("BEGIN; SET LOCAL ROLE {role}; {statement}");
        let result = sqlx::raw_sql(AssertSqlSafe(statements))
            .execute(&mut *connection)
            .await;
        let error = result.expect_err(statement);
        assert_eq!(
            sqlstate(&error).as_deref(),
            Some("42501"),
            "{role}: {statement}: {error}"
        );
        refused += 1;
    }
    assert_eq!(refused, 10 + 4 * 15 - 1);
}
