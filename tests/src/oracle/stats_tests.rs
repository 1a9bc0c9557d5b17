//! The oracle's counts, checked by hand on a run small enough to read.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::super::envelope::Event;
use super::super::log::{Appended, Content};
use super::{Cell, Stats, Table, bucket, histogram, stats};
use std::collections::BTreeMap;

/// (type, step, logical attempt, persisted, emitted), both in milliseconds.
type Line = (&'static str, Option<&'static str>, i64, i64, i64);

const HOUR: i64 = 3_600_000;

fn counted(lines: &[Line]) -> Stats {
    let mut times = BTreeMap::new();
    let rows: Vec<Appended> = (1..)
        .zip(lines)
        .map(|(seq, (kind, step, attempt, persisted, emitted))| {
            times.insert((0, seq), persisted * 1000);
            let content = Content {
                event_type: (*kind).to_owned(),
                step_id: step.map(str::to_owned),
                logical_attempt_id: *attempt,
                plan_id: "l".into(),
                plan_version: "v".into(),
                project_id: format!("p{seq}"),
                environment_id: "e".into(),
                payload: None,
            };
            let event = Event {
                event_id: format!("event {seq}"),
                tenant_id: "t".into(),
                run_id: "r".into(),
                engine_attempt_id: 1,
                idempotency_key: seq.to_string(),
                emitted_at: emitted * 1000,
                content,
            };
            Appended {
                partition: 0,
                offset: seq,
                run_seq: seq,
                event,
            }
        })
        .collect();
    stats(&rows, &times)
}

/// Each row as "window: what is not 0".
fn lines(table: &Table) -> Vec<String> {
    let line = |(key, row): (&Vec<String>, &super::Row)| {
        let hours = key[1].parse::<i64>().unwrap() / HOUR / 1000;
        let cells = row.iter().filter(|(_, cell)| **cell != Cell::Int(0));
        let cells = cells.filter(|(_, cell)| **cell != Cell::Present);
        let cells: Vec<_> = cells.map(|(name, cell)| format!("{name} {cell}")).collect();
        format!("{hours} h {}: {}", key[key.len() - 1], cells.join(", "))
    };
    table.iter().map(line).collect()
}

#[test]
fn a_run_counts_in_the_windows_of_its_events() {
    let stats = counted(&[
        ("RunQueued", None, 1, 0, 0),
        ("RunQueued", None, 2, 1, 1),
        ("RunStarted", None, 1, HOUR - 1, 100),
        ("RunStarted", None, 2, HOUR, 0),
        ("RunFailed", None, 1, 25 * HOUR, 1100),
        ("RunCompleted", None, 1, 25 * HOUR, 0),
    ]);
    let ended = r#"duration_ms_sum 1000, durations "[111:111]={1}", failed 1, last_event_seq 5"#;
    let began = r#"durations "{}", last_event_seq 3, queued 1, started 1"#;
    assert_eq!(
        lines(&stats.run_hourly),
        [format!("0 h l: {began}"), format!("25 h l: {ended}")]
    );
    assert_eq!(
        lines(&stats.run_daily),
        [format!("0 h l: {began}"), format!("24 h l: {ended}")]
    );
    assert!(stats.run_daily.keys().all(|key| key[2] == "p1"));
}

#[test]
fn attempts_count_by_step_and_a_second_one_is_a_retry() {
    let stats = counted(&[
        ("StepStarted", Some("a"), 1, 0, 100),
        ("StepFailed", Some("a"), 1, 0, 50),
        ("StepStarted", Some("a"), 2, 0, 0),
        ("StepStarted", Some("a"), 2, 0, 0),
        ("StepSkipped", Some("a"), 3, 0, 0),
        ("StepCompleted", Some("a"), 2, 24 * HOUR, 1),
        ("StepCompleted", Some("b"), 1, 0, 1),
        ("StepSkipped", Some("c"), 1, 0, 1),
    ]);
    assert_eq!(
        lines(&stats.step_daily),
        [
            r#"0 h a: durations "[0:0]={1}", failed 1, last_event_seq 5, retries 2, skipped 1, started 2"#,
            r#"0 h c: durations "{}", last_event_seq 8, skipped 1"#,
            r#"24 h a: duration_ms_sum 1, durations "{1}", last_event_seq 6, succeeded 1"#,
        ]
    );
    assert!(stats.run_hourly.is_empty());
}

#[test]
fn buckets_and_histograms_are_as_written_by_hand() {
    for (millis, expected) in [(0, 0), (31, 31), (33, 32), (34, 33), (63, 47), (64, 48)] {
        assert_eq!(bucket(millis), expected, "{millis} ms");
    }
    assert_eq!(histogram(&[3, 1, 1]), "{2,NULL,1}");
    assert_eq!(histogram(&[64, 62]), "[47:48]={1,1}");
}
