//! What the database itself refuses, whoever asks.
#![allow(clippy::unwrap_used, clippy::panic)]

use runlog_tests::Pipeline;
use runlog_tests::generator::generate;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use std::time::Duration;

const INGESTED: Duration = Duration::from_secs(60);

/// A deployment whose log holds some events; ingest has ended.
async fn with_events() -> (Pipeline, i64) {
    let pipeline = Pipeline::fresh(1).await.unwrap();
    let records: Vec<_> = generate(7, 1_000, 1).into_iter().take(100).collect();
    pipeline.topic.send(&records).await.unwrap();
    let ingest = pipeline.ingest().unwrap();
    pipeline.wait_ingested(INGESTED).await.unwrap();
    ingest.terminate().await.unwrap();
    let events = count(&pipeline).await;
    assert!(events > 0);
    (pipeline, events)
}

async fn count(pipeline: &Pipeline) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM event_log.run_events")
        .fetch_one(&pipeline.database.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn update_delete_and_truncate_of_events_are_refused_for_superuser_and_owner() {
    let (pipeline, events) = with_events().await;
    let owner: String = sqlx::query_scalar(
        "SELECT tableowner::text FROM pg_tables WHERE schemaname = 'event_log' AND tablename = 'event'",
    )
    .fetch_one(&pipeline.database.pool)
    .await
    .unwrap();
    let become_owner = format!("SET ROLE \"{owner}\"");
    for role in [
        "RESET ROLE",
        "SET session_replication_role = replica",
        &become_owner,
    ] {
        for statement in [
            "UPDATE event_log.event SET event_type = 'Changed'",
            "UPDATE event_log.event SET payload = NULL",
            "DELETE FROM event_log.event",
            "TRUNCATE event_log.event",
            "TRUNCATE event_log.event CASCADE",
        ] {
            let mut connection = PgConnection::connect(&pipeline.database.url).await.unwrap();
            connection
                .execute(AssertSqlSafe(role.to_owned()))
                .await
                .unwrap();
            let answer = connection.execute(statement).await;
            assert!(
                answer.is_err(),
                "after {role}, {statement} was answered with {answer:?}"
            );
            assert_eq!(count(&pipeline).await, events, "after {role}, {statement}");
        }
    }
    // Nor by way of the tables beside it.
    for table in ["run", "stream"] {
        for statement in [
            format!("DELETE FROM event_log.{table}"),
            format!("TRUNCATE event_log.{table} CASCADE"),
        ] {
            let answer = pipeline
                .database
                .pool
                .execute(AssertSqlSafe(statement.clone()))
                .await;
            assert!(answer.is_err(), "{statement} was answered with {answer:?}");
        }
    }
    assert_eq!(count(&pipeline).await, events);
}

#[tokio::test]
async fn the_ledger_check_refuses_a_hand_made_hole() {
    let (pipeline, _) = with_events().await;
    for column in [
        "next_offset",
        "start_offset",
        "appended",
        "duplicates",
        "dead_lettered",
        "skipped",
    ] {
        let statement = format!("UPDATE event_log.stream SET {column} = {column} + 1");
        let error = pipeline
            .database
            .pool
            .execute(AssertSqlSafe(statement.clone()))
            .await
            .unwrap_err();
        let code = error
            .as_database_error()
            .and_then(|error| error.code())
            .unwrap_or_default();
        assert_eq!(
            code, "23514",
            "{statement} (check violation expected): {error}"
        );
    }
}
