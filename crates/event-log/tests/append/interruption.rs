//! Appends that are stopped half-way: nothing is half-written, and no connection is handed on with
//! an open transaction.
//!
//! Where an append is stopped is counted in its waits. The proxy shares the test's thread, so no
//! answer can be there before it is waited for: each round trip is at least one wait.

use event_log::{AppendError, Appended, Batch, FaultClass, Outcome, StreamWriter, Transaction};
use run_events::{Reason, Rejection, RunEvent};
use sqlx::{PgPool, Row};

use crate::support::database::{Database, IDLE_IN_TRANSACTION, pool, with_database};
use crate::support::events::{batch, event, event_with, record, shape};
use crate::support::interrupt::interrupt;
use crate::support::proxy::{Cut, Proxy};

/// Whether the pool's only connection is outside any transaction: `now()` is when it began.
async fn is_idle(pool: &PgPool) -> bool {
    // The simple protocol: in the extended one, the clock moves between Bind and Execute.
    let sql = "SELECT now() = statement_timestamp() AND pg_current_xact_id_if_assigned() IS NULL";
    sqlx::raw_sql(sql).fetch_one(pool).await.unwrap().get(0)
}

/// What a batch of each kind of record becomes, on the log that [`prepare`] made.
fn mixed(start: i64, known: &RunEvent) -> (Batch, Vec<&'static str>) {
    let reused = RunEvent {
        event_id: known.event_id,
        ..event("t", "run", "reused")
    };
    let conflict = RunEvent {
        plan_version: "v2".to_owned(),
        ..known.clone()
    };
    let new = event("t", &format!("run {start}"), "a");
    let mut batch = batch(start, [new.clone(), known.clone(), conflict, reused, new]);
    let rejected = Rejection::new(Reason::InvalidJson, "not JSON");
    batch.records.push(record(batch.end + 1, Err(rejected)));
    batch.skipped = 1;
    batch.end += 2;
    let expected = vec![
        "Appended { run_seq: 1 }",
        "duplicate of 1",
        "conflict with 1",
        "DeadLetter(EventIdReused)",
        "duplicate of 1",
        "DeadLetter(InvalidJson)",
    ];
    (batch, expected)
}

/// A log with one event, and a writer that goes on behind it.
async fn prepare(database: &Database) -> (StreamWriter, RunEvent) {
    let known = event("t", "run", "known");
    let mut writer = database.writer(0).await;
    writer
        .append(&database.pool, &batch(0, [known.clone()]))
        .await
        .unwrap();
    (writer, known)
}

#[tokio::test]
async fn an_append_dropped_at_any_point_leaves_no_open_transaction() {
    with_database(|database| async move {
        let (mut writer, known) = prepare(&database).await;
        let proxy = Proxy::start(&database.options).await;
        let single = pool(&proxy.options(&database.options), 1).await;
        let mut start = 1;
        for (path, points) in [("fast", 16), ("checked", 40)] {
            let mut dropped = 0;
            for waits in 0..points {
                let (batch, expected) = if path == "fast" {
                    (
                        batch(start, [event("t", &format!("run {start}"), "a")]),
                        vec!["Appended { run_seq: 1 }"],
                    )
                } else {
                    mixed(start, &known)
                };
                let result = interrupt(writer.append(&single, &batch), waits).await;
                assert!(is_idle(&single).await, "{path}, dropped at {waits}");
                let appended = match result {
                    Ok(appended) => appended.unwrap(),
                    Err(_) => {
                        dropped += 1;
                        writer.append(&single, &batch).await.unwrap()
                    }
                };
                assert_eq!(
                    shape(&appended.outcomes),
                    expected,
                    "{path}, dropped at {waits}"
                );
                start = batch.end;
            }
            assert!(
                dropped > 5,
                "{path}: only {dropped} of {points} were dropped"
            );
        }
        assert_eq!(
            database
                .number("SELECT next_offset FROM event_log.stream")
                .await,
            start
        );
        database.wait_until(false, IDLE_IN_TRANSACTION).await;
    })
    .await;
}

#[tokio::test]
async fn a_transaction_dropped_at_any_point_is_rolled_back() {
    with_database(|database| async move {
        let proxy = Proxy::start(&database.options).await;
        let single = pool(&proxy.options(&database.options), 1).await;
        let opened = "INSERT INTO event_log.run (tenant_id, run_id) VALUES ('t', 'left over')";
        for waits in 0..10 {
            let work = async {
                let mut transaction = Transaction::begin(&single).await.unwrap();
                transaction.run(opened).await.unwrap();
                drop(transaction);
            };
            // Dropped by us or by itself.
            let _ = interrupt(work, waits).await;
            assert!(is_idle(&single).await, "dropped at {waits}");
            assert_eq!(
                database.number("SELECT count(*) FROM event_log.run").await,
                0
            );
        }
        let mut transaction = Transaction::begin(&single).await.unwrap();
        transaction.run(opened).await.unwrap();
        transaction.rollback().await.unwrap();
        assert!(is_idle(&single).await);
        assert_eq!(
            database.number("SELECT count(*) FROM event_log.run").await,
            0
        );
        let mut transaction = Transaction::begin(&single).await.unwrap();
        transaction.run(opened).await.unwrap();
        transaction.commit().await.unwrap();
        assert!(is_idle(&single).await);
        assert_eq!(
            database.number("SELECT count(*) FROM event_log.run").await,
            1
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_answered_again() {
    with_database(|database| async move {
        let (mut writer, known) = prepare(&database).await;
        let proxy = Proxy::start(&database.options).await;
        let network = pool(&proxy.options(&database.options), 2).await;
        let mut start = 1;
        for (cut, committed) in [
            (Cut::BeforeCommit, false),
            (Cut::BeforeAnswer, true),
            (Cut::AfterCommitIsSent, true),
        ] {
            let (batch, expected) = mixed(start, &known);
            proxy.cut_next_commit(cut);
            match writer.append(&network, &batch).await {
                Err(AppendError::Fault { class, .. }) => assert_eq!(class, FaultClass::Environment),
                other => panic!("{cut:?}: {other:?}"),
            }
            assert!(!proxy.disarm());
            let first = writer.append(&network, &batch).await.unwrap();
            assert_eq!(shape(&first.outcomes), expected, "{cut:?}");
            // Whether it was committed the first time shows in the stored time.
            let stored: chrono::DateTime<chrono::Utc> =
                sqlx::query_scalar("SELECT last_persisted_at FROM event_log.stream")
                    .fetch_one(&database.pool)
                    .await
                    .unwrap();
            assert_eq!(first.persisted_at > stored, committed, "{cut:?}");
            let mut cold = StreamWriter::new(writer.claim().clone());
            let second = cold.append(&network, &batch).await.unwrap();
            assert_eq!(second.outcomes, first.outcomes, "{cut:?}");
            start = batch.end;
        }
        let new = batch(start, [event("t", "run", "after all")]);
        let appended = writer.append(&network, &new).await.unwrap();
        assert_eq!(appended.outcomes, [Outcome::Appended { run_seq: 2 }]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_batch_with_an_unstorable_record_is_answered_again() {
    with_database(|database| async move {
        let mut writer = database.writer(0).await;
        let bad = event_with("t", "run", "bad", r#"{"a": "\u0000"}"#);
        let events = [event("t", "run", "a"), bad, event("t", "run", "b")];
        let first = writer
            .append(&database.pool, &batch(0, events.clone()))
            .await
            .unwrap();
        let second = writer
            .append(&database.pool, &batch(0, events))
            .await
            .unwrap();
        assert_eq!(first.outcomes[1], Outcome::DeadLetter(Reason::Unstorable));
        assert_eq!(second.outcomes, first.outcomes);
    })
    .await;
}

/// Kills the backend of an append when it waits for the `waits`-th time, and lets it go on.
async fn killed(
    database: &Database,
    append: impl Future<Output = Result<Appended, AppendError>>,
    waits: usize,
) {
    let mut append = std::pin::pin!(append);
    if interrupt(append.as_mut(), waits).await.is_ok() {
        return;
    }
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name = 'victim'";
    database.number(kill).await;
    match append.await {
        Ok(_) => {}
        Err(AppendError::Fault { class, .. }) => assert_eq!(class, FaultClass::Environment),
        other => panic!("killed at {waits}: {other:?}"),
    }
}

#[tokio::test]
async fn a_backend_killed_at_any_point_is_the_environment_s_fault() {
    with_database(|database| async move {
        let (mut writer, known) = prepare(&database).await;
        let proxy = Proxy::start(&database.options).await;
        let options = proxy.options(&database.options).application_name("victim");
        let victims = pool(&options, 1).await;
        let mut start = 1;
        for waits in 1..40 {
            let (batch, expected) = mixed(start, &known);
            killed(&database, writer.append(&victims, &batch), waits).await;
            let again = writer.append(&victims, &batch).await.unwrap();
            assert_eq!(shape(&again.outcomes), expected, "killed at {waits}");
            start = batch.end;
        }
        assert_eq!(
            database
                .number("SELECT next_offset FROM event_log.stream")
                .await,
            start
        );
    })
    .await;
}
