//! status on a log that holds nothing yet, and on one that is behind.

use serde_json::{Value, json};
use sqlx::Executor;

use crate::support::Place;

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_shows_every_partition_unclaimed() {
    let place = Place::with_topic(3).await;
    let status = place.runlog(&["status", "-o", "json"]).done().json();
    let partitions = status["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 3);
    for (number, row) in partitions.iter().enumerate() {
        assert_eq!(row["topic"], json!(place.topic));
        assert_eq!(row["partition"], json!(number));
        assert_eq!(row["kafka_head"], 0);
        assert_eq!(row["stored_offset"], Value::Null);
        assert_eq!(row["ingest_lag"], 0);
    }
    assert_eq!(status["projections"], json!([]));
    assert_eq!(
        status["totals"],
        json!({"ingest_lag": 0, "appended": 0, "duplicates": 0, "dead_lettered": 0, "skipped": 0,
               "projection_lag_events": 0})
    );
    // Nothing is behind, so there is nothing to wait for.
    place
        .runlog(&["status", "--wait", "--timeout", "30s"])
        .done();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_read_is_lag_and_waiting_for_it_times_out() {
    let place = Place::with_topic(2).await;
    let simulate = "simulate --runs 5 --seed 3 -o json";
    let report = place
        .runlog(&simulate.split(' ').collect::<Vec<_>>())
        .done()
        .json();
    let status = place.runlog(&["status", "-o", "json"]).done().json();
    assert_eq!(status["totals"]["ingest_lag"], report["published"]);
    let ran = place
        .runlog(&["status", "--wait", "--timeout", "2s", "-o", "json"])
        .ended(1);
    assert_eq!(ran.json()["totals"]["ingest_lag"], report["published"]);
    assert!(ran.stderr().contains("a lag is left"), "{}", ran.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn ledger_and_checkpoints_are_shown_and_waited_for() {
    let place = Place::with_topic(1).await;
    let mut database = place.connection().await;
    let insert = format!(
        "INSERT INTO event_log.stream (topic, partition, group_id, start_offset, next_offset,
           appended, duplicates, dead_lettered, skipped, owner)
         VALUES ('{}', 0, 'g', 0, 12, 7, 2, 2, 1, 'host/1')",
        place.topic
    );
    database
        .execute(sqlx::raw_sql(sqlx::AssertSqlSafe(insert)))
        .await
        .unwrap();
    // One is enough, whichever are the default.
    let one = ["--set", "projectors.projections=[\"run_status\"]"];
    let status = [&["status", "-o", "json"], &one[..]].concat();
    let status = place.runlog(&status).done().json();
    let row = &status["partitions"][0];
    assert_eq!(
        (&row["stored_offset"], &row["generation"]),
        (&json!(12), &json!(1))
    );
    assert_eq!(
        (&row["appended"], &row["owner"]),
        (&json!(7), &json!("host/1"))
    );
    let projections = status["projections"].as_array().unwrap();
    assert!(
        projections
            .iter()
            .any(|projection| projection["projection"] == "run_status")
    );
    for projection in projections {
        assert_eq!(
            (&projection["checkpoint"], &projection["lag_events"]),
            (&Value::Null, &json!(7))
        );
    }

    let wait = ["status", "--wait", "--timeout", "60s", "-o", "json"];
    let waiting = place
        .command(&[&wait[..], &one].concat())
        .stdout(std::process::Stdio::piped())
        .spawn();
    database
        .execute(
            "INSERT INTO read_model.projection_checkpoint
               (projection, stream_id, topic, partition, generation, next_offset, applied)
             SELECT projection, stream_id, topic, partition, generation, 12, 7
             FROM event_log.stream CROSS JOIN read_model.projection_version",
        )
        .await
        .unwrap();
    let output = waiting.unwrap().wait_with_output().unwrap();
    assert!(output.status.success());
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(status["totals"]["projection_lag_events"], 0);
    assert_eq!(status["projections"][0]["checkpoint"], 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_not_there_is_named_and_not_settled() {
    let place = Place::migrated().await;
    let ran = place.runlog(&["status", "-o", "json"]).done();
    assert_eq!(ran.json()["missing_topics"], json!([place.topic]));
    assert!(ran.stderr().contains(&place.topic), "{}", ran.stderr());
    place
        .runlog(&["status", "--wait", "--timeout", "1s"])
        .ended(1);
}
