//! An act of retention and a batch of ingest at the same moment, in both orders: the run has one history, or none.

use event_log::{Outcome, StreamWriter};
use run_events::{Reason, Rejection};
use sqlx::{Connection as _, PgConnection};

use super::{refusal, retire};
use crate::ingested::{Partition, event, failed_run, project_all, run_no, verify_log};
use crate::support::Database;

const WAITING: &str = "SELECT count(*) > 0 FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%event_log.stream%'";

/// No tombstone has an event beside it, and everything else is well too.
async fn assert_one_history(database: &Database) {
    let beside = "SELECT count(*) FROM event_log.retired_run JOIN event_log.event USING (run_no)";
    assert_eq!(database.number(beside).await, 0, "events of a retired run");
    assert_eq!(verify_log(database).await.0, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_has_begun_is_waited_for_and_its_event_keeps_the_run() {
    let database = Database::new().await;
    let mut partition = Partition::claim(&database, 0).await;
    partition.append(&database, failed_run("old")).await;
    project_all(&database).await;
    // The batch inserts its event, and then waits to keep its dead letter.
    let mut holder = database.pool.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE event_log.dead_letter IN EXCLUSIVE MODE")
        .execute(&mut *holder)
        .await
        .unwrap();
    let mut batch = partition.batch(vec![
        event("old", "StepStarted", Some("late")),
        event("x", "RunQueued", None),
    ]);
    batch.records[1].verdict = Err(Rejection::new(Reason::InvalidJson, "not JSON"));
    let pool = database.pool.clone();
    let appending = tokio::spawn(async move { partition.writer.append(&pool, &batch).await });
    database
        .holds(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database()
               AND wait_event_type = 'Lock' AND query LIKE '%INSERT INTO event_log.dead_letter%'",
        )
        .await;
    // The act gives up rather than have everybody wait.
    let (code, message) = refusal(retire(&database, &["old"]).await);
    assert_eq!(code, "55P03", "{message}");
    holder.rollback().await.unwrap();
    let outcomes = appending.await.unwrap().unwrap().outcomes;
    assert_eq!(outcomes[0], Outcome::Appended { run_seq: 8 });
    let (code, message) = refusal(retire(&database, &["old"]).await);
    assert_eq!(code, "55000", "{message}");
    assert_one_history(&database).await;
    project_all(&database).await;
    retire(&database, &["old"]).await.unwrap();
    assert_one_history(&database).await;
}

/// The act as it stands before its commit: everything is deleted, and nobody sees it.
async fn act_under_way(database: &Database, run: &str) -> PgConnection {
    let options = database.pool.connect_options();
    let mut connection = PgConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("BEGIN; SET LOCAL lock_timeout = '10s'")
        .execute(&mut connection)
        .await
        .unwrap();
    let sums = r#"{"run_hourly": [{"tenant_id": "acme", "hour": "2026-01-01T00:00:00Z", "project_id": "p", "environment_id": "e",
        "plan_id": "p", "queued": 1, "started": 1, "completed": 0, "failed": 1, "cancelled": 0, "duration_ms_sum": 5,
        "durations": "{}", "last_event_seq": 7}], "step_daily": []}"#;
    sqlx::query("SELECT event_log.retire_runs(ARRAY[$1::bigint], ARRAY[7::bigint], $2::jsonb, 'anna', 'why')")
        .bind(run_no(database, run).await)
        .bind(sums)
        .execute(&mut connection)
        .await
        .unwrap();
    connection
}

/// A batch with a late event that begins while the act is under way; what becomes of it after the commit.
async fn late_event_during_the_act(
    database: &Database,
    writer: impl AsyncFnOnce() -> Partition + Send + 'static,
) -> Vec<Outcome> {
    let mut act = act_under_way(database, "old").await;
    let mut partition = writer().await;
    let batch = partition.batch(vec![event("old", "StepStarted", Some("late"))]);
    let pool = database.pool.clone();
    let appending = tokio::spawn(async move { partition.writer.append(&pool, &batch).await });
    let waits_or_ended = async {
        tokio::select! {
            () = database.holds(WAITING) => {}
            () = async { while !appending.is_finished() { tokio::task::yield_now().await } } => {}
        }
    };
    waits_or_ended.await;
    sqlx::raw_sql("COMMIT").execute(&mut act).await.unwrap();
    appending.await.unwrap().unwrap().outcomes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_begins_during_the_act_finds_the_tombstone_whatever_it_remembers() {
    for remembers in [true, false] {
        let database = Database::new().await;
        let mut partition = Partition::claim(&database, 0).await;
        partition.append(&database, failed_run("old")).await;
        project_all(&database).await;
        let writer = async move || {
            if !remembers {
                partition.writer = StreamWriter::new(partition.writer.claim().clone());
            }
            partition
        };
        let outcomes = late_event_during_the_act(&database, writer).await;
        assert_eq!(
            outcomes,
            [Outcome::DeadLetter(Reason::RunRetired)],
            "{remembers}"
        );
        assert_one_history(&database).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_opened_during_the_act_waits_for_it_too() {
    let database = Database::new().await;
    let mut partition = Partition::claim(&database, 0).await;
    partition.append(&database, failed_run("old")).await;
    project_all(&database).await;
    let mut act = act_under_way(&database, "old").await;
    // The row of a new stream cannot be locked before it is there: the table is.
    let url = database.url.clone();
    let opening = tokio::spawn(async move {
        let pool = sqlx::PgPool::connect(&url).await.unwrap();
        let mut partition = Partition::claim_over(&pool, 1).await;
        let batch = partition.batch(vec![event("old", "StepStarted", Some("late"))]);
        partition
            .writer
            .append(&pool, &batch)
            .await
            .unwrap()
            .outcomes
    });
    database.holds(WAITING).await;
    sqlx::raw_sql("COMMIT").execute(&mut act).await.unwrap();
    assert_eq!(
        opening.await.unwrap(),
        [Outcome::DeadLetter(Reason::RunRetired)]
    );
    assert_one_history(&database).await;
}
