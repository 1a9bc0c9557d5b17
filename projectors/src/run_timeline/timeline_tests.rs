//! The fold, checked by hand on runs small enough to read.
#![allow(clippy::unwrap_used, clippy::panic)]

use run_events::{EventType, IdempotencyKey, LoggedEvent, Micros, RunEvent, RunStatus};
use uuid::Uuid;

use super::Timeline;

/// An event of a run; emitted an hour (of microseconds) before it was persisted.
fn event(run_seq: i64, event_type: &str, persisted_at: i64) -> LoggedEvent {
    let event_type = EventType::from_name(event_type.to_owned());
    let step_id = matches!(event_type, EventType::Step(_)).then(|| "s".to_owned());
    LoggedEvent {
        run_seq,
        persisted_at: Micros(persisted_at),
        event: RunEvent {
            event_id: Uuid::nil(),
            event_type,
            tenant_id: "t".to_owned(),
            project_id: format!("project of {run_seq}"),
            environment_id: "e".to_owned(),
            run_id: "r".to_owned(),
            plan_id: format!("plan of {run_seq}"),
            plan_version: "v".to_owned(),
            engine_attempt_id: 1,
            logical_attempt_id: 1,
            idempotency_key: IdempotencyKey::derive("r", None, 1, "x", "p", "v"),
            emitted_at: Micros(persisted_at - 3_600),
            step_id,
            payload: None,
        },
    }
}

fn folded(events: &[(&str, i64)]) -> Timeline {
    let logged = |(run_seq, (event_type, at)): (i64, &(&str, i64))| event(run_seq, event_type, *at);
    let events: Vec<LoggedEvent> = (1..).zip(events).map(logged).collect();
    let mut timeline = Timeline::before(&events[0]);
    for event in &events {
        timeline.apply(event);
    }
    timeline
}

/// (state, started, ended, duration in ms, runSeq of the last change)
type Line = (&'static str, i64, Option<i64>, Option<i64>, i64);

/// The rows that these events make, by number.
fn rows(events: &[(&str, i64)]) -> Vec<Line> {
    let timeline = folded(events);
    assert_eq!(timeline.last_event_seq, events.len() as i64);
    let (last, _) = timeline.changed.last_key_value().unwrap().1;
    assert_eq!(*last, timeline.current, "the run is in its last interval");
    let rows = (1..).zip(&timeline.changed);
    rows.map(|(number, (key, (interval, last_event_seq)))| {
        assert_eq!((*key, interval.number), (number, number));
        let (started, ended) = (interval.started, interval.ended);
        assert_eq!(started.emitted.0, started.persisted.0 - 3_600);
        assert!(ended.is_none_or(|ended| ended.emitted.0 == ended.persisted.0 - 3_600));
        (
            interval.state.as_str(),
            started.persisted.0,
            ended.map(|ended| ended.persisted.0),
            interval.duration_ms(),
            *last_event_seq,
        )
    })
    .collect()
}

#[test]
fn a_run_goes_through_its_states_one_after_the_other() {
    let events = [
        ("RunQueued", 0),
        ("RunStarted", 1_999),
        ("StepStarted", 2_500),
        ("RunPaused", 3_000),
        ("StepCompleted", 3_500),
        ("RunResumed", 5_000),
        ("RunCompleted", 9_999),
        ("StepFailed", 20_000),
    ];
    let expected = [
        ("PENDING", 0, Some(1_999), Some(1), 2),
        ("RUNNING", 1_999, Some(3_000), Some(1), 4),
        ("PAUSED", 3_000, Some(5_000), Some(2), 6),
        ("RUNNING", 5_000, Some(9_999), Some(4), 7),
        ("COMPLETED", 9_999, None, None, 7),
    ];
    assert_eq!(rows(&events), expected);
}

#[test]
fn a_run_is_pending_from_its_first_event_until_run_queued_says_since_when() {
    let opaque = [("RunAnnotated", 10), ("StepStarted", 20)];
    assert_eq!(rows(&opaque), [("PENDING", 10, None, None, 1)]);
    let queued = [("StepStarted", 10), ("RunAnnotated", 20), ("RunQueued", 30)];
    assert_eq!(rows(&queued), [("PENDING", 30, None, None, 3)]);
}

#[test]
fn the_first_run_queued_counts() {
    let twice = [("RunQueued", 10), ("RunQueued", 20), ("RunAnnotated", 30)];
    assert_eq!(rows(&twice), [("PENDING", 10, None, None, 1)]);
    let late = [("RunAnnotated", 5), ("RunQueued", 10), ("RunQueued", 20)];
    assert_eq!(rows(&late), [("PENDING", 10, None, None, 2)]);
}

#[test]
fn a_run_that_begins_with_run_started_was_pending_for_no_time() {
    let expected = [
        ("PENDING", 10, Some(10), Some(0), 1),
        ("RUNNING", 10, None, None, 1),
    ];
    assert_eq!(rows(&[("RunStarted", 10)]), expected);
}

#[test]
fn invalid_transitions_change_no_interval() {
    let pending = [("RunPaused", 1), ("RunCompleted", 2), ("RunCancelled", 3)];
    assert_eq!(rows(&pending), [("PENDING", 1, None, None, 1)]);
    let running = [
        ("RunStarted", 10),
        ("RunStarted", 20),
        ("RunQueued", 30),
        ("RunResumed", 40),
    ];
    let expected = [
        ("PENDING", 10, Some(10), Some(0), 1),
        ("RUNNING", 10, None, None, 1),
    ];
    assert_eq!(rows(&running), expected);
}

#[test]
fn nothing_comes_after_the_end() {
    for (end, state) in [
        ("RunCompleted", "COMPLETED"),
        ("RunFailed", "FAILED"),
        ("RunCancelled", "CANCELLED"),
    ] {
        let mut events = vec![("RunStarted", 0), (end, 1_000)];
        events.extend(
            [
                "RunQueued",
                "RunStarted",
                "RunPaused",
                "RunResumed",
                "RunCompleted",
                "RunFailed",
                "RunCancelled",
            ]
            .map(|kind| (kind, 2_000)),
        );
        let expected = [
            ("PENDING", 0, Some(0), Some(0), 1),
            ("RUNNING", 0, Some(1_000), Some(1), 2),
            (state, 1_000, None, None, 2),
        ];
        assert_eq!(rows(&events), expected, "{end}");
    }
}

#[test]
fn a_negative_interval_counts_0_and_keeps_its_times() {
    let events = [("RunQueued", 9_000), ("RunStarted", 2_000)];
    let expected = [
        ("PENDING", 9_000, Some(2_000), Some(0), 2),
        ("RUNNING", 2_000, None, None, 2),
    ];
    assert_eq!(rows(&events), expected);
}

#[test]
fn the_first_event_names_the_project_and_the_plan() {
    let timeline = folded(&[("RunAnnotated", 1), ("RunQueued", 2), ("RunStarted", 3)]);
    assert_eq!(timeline.project_id, "project of 1");
    assert_eq!(timeline.plan_id, "plan of 1");
}

#[test]
fn a_later_batch_changes_only_what_its_events_change() {
    let mut timeline = folded(&[("RunQueued", 0), ("RunStarted", 1_000)]);
    // As a batch finds it in the run's row.
    timeline.changed.clear();
    timeline.is_changed = false;
    timeline.apply(&event(3, "StepStarted", 2_000));
    assert!(timeline.is_changed && timeline.changed.is_empty());
    timeline.apply(&event(4, "RunPaused", 3_000));
    let numbers: Vec<i64> = timeline.changed.keys().copied().collect();
    assert_eq!(numbers, [2, 3]);
    assert_eq!(timeline.current.state, RunStatus::Paused);
}
