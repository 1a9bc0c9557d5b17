//! publish: what ends up in the topic.

use std::collections::HashSet;

use run_events::json::decode;
use serde_json::{Value, json};

use crate::support::Place;

fn event(run_id: &str, event_type: &str) -> Value {
    json!({
        "eventType": event_type, "tenantId": "acme", "projectId": "p", "environmentId": "e",
        "runId": run_id, "planId": "plan", "planVersion": "1", "engineAttemptId": 1,
        "logicalAttemptId": 1
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_arrives_keyed_by_its_run_with_what_was_absent_filled_in() {
    let place = Place::with_topic(3).await;
    let lines: Vec<String> = (0..60)
        .map(|n| {
            event(
                &format!("run-{}", n % 20),
                ["RunQueued", "RunStarted", "RunCompleted"][n / 20],
            )
        })
        .map(|event| event.to_string())
        .collect();
    let text = lines.join("\n\n") + "\n";
    let report = place
        .runlog_with(&["publish", "-o", "json"], text.as_bytes())
        .done()
        .json();
    assert_eq!(report["published"], 60);
    assert_eq!(report["refused"], 0);

    let records = place.published();
    assert_eq!(records.len(), 60);
    let mut ids = HashSet::new();
    let mut partition_of_run = HashSet::new();
    for record in &records {
        let event = decode(&record.value).unwrap().event;
        assert_eq!(record.key.as_deref(), Some(event.run_id.as_str()));
        assert_eq!(record.content_type.as_deref(), Some("application/json"));
        assert_eq!(event.idempotency_key, event.derived_key());
        assert!(ids.insert(event.event_id));
        partition_of_run.insert((event.run_id, record.partition));
    }
    assert_eq!(
        partition_of_run.len(),
        20,
        "a run is spread over partitions"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_go_to_the_partitions_that_other_kafka_clients_choose() {
    let place = Place::with_topic(3).await;
    let text = ["21", "foobar", "a-little-bit-long-string"]
        .map(|run| event(run, "RunQueued").to_string())
        .join("\n");
    place.runlog_with(&["publish"], text.as_bytes()).done();
    // Murmur2 of these keys as in the tests of Kafka's own client, made positive, modulo 3.
    let expected = [
        ("21", -973_932_308_i32),
        ("foobar", -790_332_482),
        ("a-little-bit-long-string", -985_981_536),
    ];
    for record in place.published() {
        let key = record.key.unwrap();
        let (_, hash) = expected.iter().find(|(name, _)| *name == key).unwrap();
        assert_eq!(record.partition, (hash & 0x7fff_ffff) % 3, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_line_stops_there_and_is_named() {
    let place = Place::with_topic(1).await;
    let mut bad = event("run-2", "RunStarted");
    bad["logicalAttemptId"] = json!(0);
    let lines = [
        event("run-1", "RunStarted"),
        bad,
        event("run-3", "RunStarted"),
    ];
    let text = lines.map(|event| event.to_string()).join("\n");
    let ran = place
        .runlog_with(&["publish", "-o", "json"], text.as_bytes())
        .ended(1);
    assert!(
        ran.stderr()
            .contains("line 2: invalid_event: logicalAttemptId"),
        "{}",
        ran.stderr()
    );
    assert_eq!(ran.json()["published"], 1);
    assert_eq!(place.published().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn keep_going_leaves_bad_lines_out_and_unchecked_sends_them() {
    let place = Place::with_topic(1).await;
    let text = format!(
        "{}\nnot json\n{}\n",
        event("r1", "RunStarted"),
        event("r2", "RunStarted")
    );
    let ran = place
        .runlog_with(&["publish", "--keep-going", "-o", "json"], text.as_bytes())
        .ended(1);
    assert_eq!(
        (&ran.json()["published"], &ran.json()["refused"]),
        (&json!(2), &json!(1))
    );
    place
        .runlog_with(&["publish", "--unchecked"], b"not json\n")
        .done();
    let records = place.published();
    assert_eq!(records.len(), 3);
    assert!(
        records
            .iter()
            .any(|record| record.value == b"not json" && record.key.is_none())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_published_too() {
    let place = Place::with_topic(1).await;
    let path = std::env::temp_dir().join(format!("{}.ndjson", place.topic));
    std::fs::write(&path, event("r1", "RunStarted").to_string()).unwrap();
    let ran = place.runlog(&["publish", path.to_str().unwrap()]);
    std::fs::remove_file(&path).unwrap();
    assert!(ran.done().stdout().starts_with("1 lines: 1 published"));
    assert_eq!(place.published().len(), 1);
}
