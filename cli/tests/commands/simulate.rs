//! simulate: the report against what is in the topic, and a clean stop.

use std::collections::HashSet;
use std::io::Read;
use std::process::Stdio;

use run_events::json::decode;
use serde_json::Value;

use crate::support::{Place, Published};

/// appended, duplicates, dead letters, as a reader of the topic would count them.
fn counted(records: &[Published]) -> (u64, u64, u64) {
    let (mut appended, mut duplicates, mut dead) = (0, 0, 0);
    let mut seen = HashSet::new();
    for record in records {
        match decode(&record.value) {
            Err(_) => dead += 1,
            Ok(decoded) => {
                let event = decoded.event;
                if seen.insert((event.tenant_id, event.run_id, event.idempotency_key)) {
                    appended += 1;
                } else {
                    duplicates += 1;
                }
            }
        }
    }
    (appended, duplicates, dead)
}

fn reported(report: &Value) -> (u64, u64, u64) {
    let expected = &report["expected"];
    let number = |name: &str| expected[name].as_u64().unwrap();
    (
        number("appended"),
        number("duplicates"),
        number("dead_letters"),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_report_counts_what_is_in_the_topic() {
    let place = Place::migrated().await;
    let line = "simulate --runs 120 --seed 7 --create-topic 4 --duplicates 8 --malformed 4 \
                --invalid-transitions 2 --unknown-types 4 -o json";
    let arguments: Vec<&str> = line.split_whitespace().collect();
    let report = place.runlog(&arguments).done().json();
    let records = place.published();
    assert_eq!(report["published"].as_u64(), Some(records.len() as u64));
    assert_eq!(counted(&records), reported(&report));
    assert_eq!(report["runs"], 120);
    let statuses = report["runs_by_status"].as_object().unwrap();
    assert_eq!(
        statuses.values().filter_map(Value::as_u64).sum::<u64>(),
        120
    );
    let partitions: HashSet<i32> = records.iter().map(|record| record.partition).collect();
    assert_eq!(partitions.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_stops_it_cleanly_with_a_report_of_what_was_sent() {
    let place = Place::with_topic(2).await;
    let mut child = place
        .command(&[
            "simulate", "--runs", "100000", "--rate", "500", "-o", "json",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while place.published().len() < 50 {
        assert!(std::time::Instant::now() < deadline, "nothing is published");
    }
    let kill = format!("kill -INT {}", child.id());
    assert!(
        std::process::Command::new("sh")
            .args(["-c", &kill])
            .status()
            .unwrap()
            .success()
    );
    let mut stdout = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut stdout)
        .unwrap();
    assert!(child.wait().unwrap().success());
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let records = place.published();
    assert_eq!(report["published"].as_u64(), Some(records.len() as u64));
    assert_eq!(counted(&records), reported(&report));
    assert!(
        report["runs_by_status"]["RUNNING"].as_u64() > Some(0),
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_kept() {
    let place = Place::with_topic(1).await;
    let line = "simulate --runs 20 --seed 1 --rate 200 -o json";
    let report = place
        .runlog(&line.split(' ').collect::<Vec<_>>())
        .done()
        .json();
    let rate = report["published"].as_f64().unwrap() / report["seconds"].as_f64().unwrap();
    assert!((100.0..=260.0).contains(&rate), "{rate} per second");
}
