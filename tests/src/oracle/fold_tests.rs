//! The oracle's fold, checked by hand on runs small enough to read.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::super::json::Json;
use super::super::log::{Appended, Content};
use super::super::table::{Cell, Row};
use super::{Event, ReadModels, fold};
use std::collections::BTreeMap;

/// (type, step, logical attempt, payload, persisted in microseconds)
type Line = (
    &'static str,
    Option<&'static str>,
    i64,
    Option<&'static str>,
    i64,
);

fn folded(lines: &[Line]) -> ReadModels {
    let mut times = BTreeMap::new();
    let rows: Vec<Appended> = (1..)
        .zip(lines)
        .map(|(seq, (kind, step, attempt, payload, persisted))| {
            times.insert((0, seq), *persisted);
            let content = Content {
                event_type: (*kind).to_owned(),
                step_id: step.map(str::to_owned),
                logical_attempt_id: *attempt,
                plan_id: "l".into(),
                plan_version: "v".into(),
                project_id: format!("p{seq}"),
                environment_id: "e".into(),
                payload: payload.map(|text| Json::read(text.as_bytes()).unwrap()),
            };
            let event = Event {
                event_id: format!("event {seq}"),
                tenant_id: "t".into(),
                run_id: "r".into(),
                engine_attempt_id: 10 + seq,
                idempotency_key: seq.to_string(),
                emitted_at: -persisted,
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
    fold(&rows, &times)
}

fn run_row(models: &ReadModels) -> &Row {
    &models.run_current[&vec!["t".to_owned(), "r".to_owned()]]
}

fn text(value: &str) -> Cell {
    Cell::Text(value.to_owned())
}

#[test]
fn a_paused_run_counts_active_and_paused_time_once_floored() {
    let models = folded(&[
        ("RunQueued", None, 1, None, 0),
        ("RunQueued", None, 2, None, 500),
        ("RunStarted", None, 1, None, 1_999),
        ("RunPaused", None, 1, None, 3_600),
        ("RunResumed", None, 1, None, 4_599),
        ("RunCancelled", None, 1, None, 5_998),
    ]);
    let row = run_row(&models);
    for (column, expected) in [
        ("status", text("CANCELLED")),
        ("consistency", text("CONSISTENT")),
        ("queued_at", Cell::Int(0)),
        ("queue_wait_ms", Cell::Int(1)),
        ("active_ms", Cell::Int(3)), // 1601 + 1399 microseconds
        ("paused_ms", Cell::Int(0)),
        ("wall_ms", Cell::Int(3)),
        ("emitted_wall_ms", Cell::Int(-4)), // floor of -3.999
        ("sort_at", Cell::Int(1_999)),
        ("project_id", text("p1")),
        ("last_event_seq", Cell::Int(6)),
        ("error", Cell::Null),
    ] {
        assert_eq!(row[column], expected, "{column}");
    }
}

#[test]
fn an_open_interval_counts_nothing_and_an_unknown_type_only_the_sequence() {
    let models = folded(&[
        ("Whatever", Some("s"), 7, None, 9),
        ("RunStarted", None, 1, None, 50),
    ]);
    let row = run_row(&models);
    assert_eq!(
        (&row["active_ms"], &row["wall_ms"]),
        (&Cell::Int(0), &Cell::Null)
    );
    assert_eq!(
        (&row["sort_at"], &row["last_event_seq"]),
        (&Cell::Int(50), &Cell::Int(2))
    );
    assert!(models.step_attempt.is_empty() && models.run_inconsistency.is_empty());
    let only_unknown = folded(&[("Whatever", None, 1, None, 9)]);
    assert_eq!(run_row(&only_unknown)["sort_at"], Cell::Int(9));
    assert_eq!(run_row(&only_unknown)["status"], text("PENDING"));
}

#[test]
fn steps_are_counted_by_their_highest_attempt_and_judged_after_the_end_too() {
    let models = folded(&[
        ("RunStarted", None, 1, None, 0),
        ("StepStarted", Some("a"), 1, None, 1_000),
        ("StepStarted", Some("a"), 2, None, 2_000),
        ("StepSkipped", Some("b"), 1, None, 3_000),
        ("RunCancelled", None, 1, None, 4_000),
        ("StepCompleted", Some("a"), 2, None, 5_500),
        ("StepFailed", Some("a"), 1, Some("{\"error\":null}"), 6_000),
        ("StepCompleted", Some("c"), 9, None, 7_000),
        ("StepCompleted", Some("b"), 1, None, 8_000),
    ]);
    let row = run_row(&models);
    assert_eq!(row["consistency"], text("INCONSISTENT"));
    let counts = [
        "steps_running",
        "steps_succeeded",
        "steps_failed",
        "steps_skipped",
        "retries",
    ]
    .map(|c| row[c].clone());
    assert_eq!(counts, [0, 1, 0, 1, 1].map(Cell::Int));
    assert_eq!(
        models.step_attempt.len(),
        3,
        "an attempt with invalid events only has no row"
    );
    let attempt = |step: &str, number: &str| {
        &models.step_attempt[&["t", "r", step, number].map(str::to_owned).to_vec()]
    };
    assert_eq!(attempt("a", "2")["duration_ms"], Cell::Int(3));
    assert_eq!(attempt("a", "1")["error"], Cell::Json(Json::Null));
    assert_eq!(attempt("a", "1")["engine_attempt_id"], Cell::Int(17));
    assert_eq!(
        (
            &attempt("b", "1")["started_at"],
            &attempt("b", "1")["completed_at"]
        ),
        (&Cell::Null, &Cell::Int(3_000))
    );
    let states: Vec<_> = models
        .run_inconsistency
        .values()
        .map(|row| (&row["prior_state"], &row["attempted_state"]))
        .collect();
    assert_eq!(
        states,
        [
            (&text("PENDING"), &text("SUCCESS")),
            (&text("SKIPPED"), &text("SUCCESS"))
        ]
    );
}

#[test]
fn a_terminal_run_never_changes_and_keeps_its_error() {
    let models = folded(&[
        ("RunStarted", None, 1, None, 0),
        (
            "RunFailed",
            None,
            1,
            Some("{\"error\":{\"code\":7}}"),
            1_000,
        ),
        ("RunResumed", None, 1, None, 2_000),
        ("RunFailed", None, 2, Some("{\"error\":\"other\"}"), 3_000),
    ]);
    let row = run_row(&models);
    assert_eq!(row["ended_at"], Cell::Int(1_000));
    assert_eq!(
        row["error"],
        Cell::Json(Json::read(b"{\"code\":7}").unwrap())
    );
    assert_eq!(models.run_inconsistency.len(), 2);
    let first = models.run_inconsistency.values().next().unwrap();
    assert_eq!(
        (&first["step_id"], &first["logical_attempt_id"]),
        (&Cell::Null, &Cell::Null)
    );
    assert_eq!(
        (&first["prior_state"], &first["attempted_state"]),
        (&text("FAILED"), &text("RUNNING"))
    );
}
