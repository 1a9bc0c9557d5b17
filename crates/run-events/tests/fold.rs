//! The contract's sections "State" and "What the read models say", sentence by sentence, on worked
//! examples. Times are microseconds; `ms` and `s` say so.
#![allow(clippy::unwrap_used, clippy::panic)]

mod history;

use history::{Told, fold, logged, run, state, step};
use run_events::run_state::StepCounts;
use run_events::snapshot::Snapshot;
use run_events::{
    Applied, EventType, Inconsistency, Micros, RunEventType, RunState, RunStatus, StepAttempt,
    StepEventType, StepStatus,
};
use serde_json::{Value, json};

const MS: i64 = 1_000;
const S: i64 = 1_000_000;

fn invalid(prior_state: &'static str, attempted_state: &'static str) -> Applied {
    Applied::Invalid(Inconsistency {
        prior_state,
        attempted_state,
    })
}

fn attempt<'a>(state: &'a RunState, step_id: &str, id: i32) -> &'a StepAttempt {
    &state.steps[step_id][&id]
}

fn counts(running: i64, succeeded: i64, failed: i64, skipped: i64) -> StepCounts {
    StepCounts {
        running,
        succeeded,
        failed,
        skipped,
    }
}

/// The state is the same but for what an ignored event may move.
fn assert_ignored(before: &RunState, after: &RunState, inconsistent: bool) {
    let mut expected = before.clone();
    expected.last_event_seq += 1;
    expected.inconsistent |= inconsistent;
    assert_eq!(after, &expected);
}

// ---- the machines

#[test]
fn a_run_moves_along_exactly_the_valid_transitions() {
    let kinds = [
        "RunQueued",
        "RunStarted",
        "RunPaused",
        "RunResumed",
        "RunCompleted",
        "RunFailed",
        "RunCancelled",
    ];
    let none = [None; 7];
    let (p, r, z) = (Some("PENDING"), Some("RUNNING"), Some("PAUSED"));
    let (c, f, x) = (Some("COMPLETED"), Some("FAILED"), Some("CANCELLED"));
    for (way, row) in [
        (&[][..], [p, r, None, None, None, None, None]),
        (&["RunStarted"], [None, None, z, None, c, f, x]),
        (
            &["RunStarted", "RunPaused"],
            [None, None, None, r, None, None, x],
        ),
        (&["RunStarted", "RunCompleted"], none),
        (&["RunStarted", "RunFailed"], none),
        (&["RunStarted", "RunCancelled"], none),
    ] {
        for (kind, expected) in kinds.iter().zip(row) {
            // An opaque event first, so that the run exists before its way begins.
            let mut told = vec![run("Registered", 0)];
            told.extend(way.iter().map(|kind| run(kind, S)));
            let before = state(&told);
            told.push(run(kind, 2 * S));
            let (after, applied) = fold(&told);
            let applied = applied.last().unwrap();
            match expected {
                Some(status) => {
                    assert_eq!(applied, &Applied::Valid, "{way:?} {kind}");
                    assert_eq!(after.status.as_str(), status, "{way:?} {kind}");
                    assert_eq!(after.consistency(), "CONSISTENT");
                }
                None => {
                    let attempted = ["PENDING", "RUNNING", "PAUSED", "RUNNING", "COMPLETED"]
                        .into_iter()
                        .chain(["FAILED", "CANCELLED"])
                        .zip(kinds)
                        .find_map(|(to, k)| (k == *kind).then_some(to))
                        .unwrap();
                    let expected = invalid(before.status.as_str(), attempted);
                    assert_eq!(applied, &expected, "{way:?} {kind}");
                    assert_eq!(after.consistency(), "INCONSISTENT");
                    assert_ignored(&before, &after, true);
                }
            }
        }
    }
}

#[test]
fn a_step_attempt_moves_along_exactly_the_valid_transitions() {
    let kinds = [
        ("StepStarted", "RUNNING"),
        ("StepCompleted", "SUCCESS"),
        ("StepFailed", "FAILED"),
        ("StepSkipped", "SKIPPED"),
    ];
    for (way, valid) in [
        (&[][..], &["StepStarted", "StepSkipped"][..]),
        (&["StepStarted"], &["StepCompleted", "StepFailed"]),
        (&["StepSkipped"], &[]),
        (&["StepStarted", "StepCompleted"], &[]),
        (&["StepStarted", "StepFailed"], &[]),
    ] {
        for (kind, to) in kinds {
            let mut told = vec![run("RunStarted", 0)];
            told.extend(way.iter().map(|kind| step(kind, "a", 1, S)));
            let before = state(&told);
            let prior = before
                .steps
                .get("a")
                .map_or("PENDING", |attempts| attempts[&1].status.as_str());
            told.push(step(kind, "a", 1, 2 * S));
            let (after, applied) = fold(&told);
            if valid.contains(&kind) {
                assert_eq!(applied.last(), Some(&Applied::Valid), "{way:?} {kind}");
                assert_eq!(attempt(&after, "a", 1).status.as_str(), to);
                assert!(!after.inconsistent);
            } else {
                let expected = invalid(prior, to);
                assert_eq!(applied.last(), Some(&expected), "{way:?} {kind}");
                assert_ignored(&before, &after, true);
            }
        }
    }
}

#[test]
fn statuses_are_texts_that_can_be_read_back() {
    use RunStatus::*;
    for status in [Pending, Running, Paused, Completed, Failed, Cancelled] {
        assert_eq!(RunStatus::parse(status.as_str()), Some(status));
        assert_eq!(
            status.is_terminal(),
            matches!(status, Completed | Failed | Cancelled)
        );
    }
    use StepStatus as S;
    for status in [S::Pending, S::Running, S::Success, S::Failed, S::Skipped] {
        assert_eq!(StepStatus::parse(status.as_str()), Some(status));
    }
    assert_eq!(RunStatus::parse("running"), None);
    assert_eq!(StepStatus::parse("COMPLETED"), None);
}

#[test]
fn a_paused_run_cannot_fail_and_can_be_cancelled() {
    let paused = [run("RunStarted", 0), run("RunPaused", S)];
    let mut told = paused.to_vec();
    told.push(run("RunFailed", 2 * S).payload(json!({"error": "late"})));
    let (after, applied) = fold(&told);
    assert_eq!(applied[2], invalid("PAUSED", "FAILED"));
    assert_eq!(
        (after.status, &after.error, after.ended_at),
        (RunStatus::Paused, &None, None)
    );
    told.push(run("RunCancelled", 3 * S));
    let after = state(&told);
    assert_eq!(after.status, RunStatus::Cancelled);
    assert_eq!(after.paused_ms(), 2_000);
}

#[test]
fn a_run_stays_inconsistent_after_it_has_ended_well() {
    let after = state(&[
        run("RunStarted", 0),
        run("RunResumed", S),
        run("RunPaused", 2 * S),
        run("RunResumed", 3 * S),
        run("RunCompleted", 4 * S),
    ]);
    assert_eq!(after.status, RunStatus::Completed);
    assert_eq!(after.consistency(), "INCONSISTENT");
    assert_eq!(Inconsistency::CODE, "INVALID_TRANSITION");
}

#[test]
fn step_events_are_judged_by_their_attempt_whatever_the_run_does() {
    let after = state(&[
        step("StepStarted", "early", 1, 0),
        run("RunStarted", S),
        step("StepStarted", "a", 1, 2 * S),
        run("RunPaused", 3 * S),
        step("StepFailed", "early", 1, 4 * S),
        run("RunCancelled", 5 * S),
        step("StepCompleted", "a", 1, 6 * S),
        step("StepSkipped", "b", 1, 7 * S),
    ]);
    assert_eq!(after.status, RunStatus::Cancelled);
    assert_eq!(after.consistency(), "CONSISTENT");
    assert_eq!(after.step_counts, counts(0, 1, 1, 1));
    assert_eq!(after.ended_at, Some(Micros(5 * S)));
    assert_eq!(after.last_event_seq, 8);
}

#[test]
fn an_unknown_type_changes_nothing_but_last_event_seq() {
    let told = vec![run("RunStarted", S), step("StepStarted", "a", 1, 2 * S)];
    for unknown in [
        run("RunRetried", 9 * S).payload(json!({"error": 1})),
        step("StepHeartbeat", "a", 1, 9 * S).engine_attempt(9),
        step("StepHeartbeat", "new", 2, 9 * S),
        run("runcompleted", 9 * S),
    ] {
        let before = state(&told);
        let (after, applied) = fold(&[told.clone(), vec![unknown]].concat());
        assert_eq!(applied.last(), Some(&Applied::Opaque));
        assert_ignored(&before, &after, false);
    }
}

// ---- order

#[test]
fn events_are_applied_in_order_once_and_a_gap_is_named() {
    let events = logged(&[
        run("RunStarted", 0),
        run("RunPaused", S),
        run("RunCancelled", 2 * S),
    ]);
    let mut state = RunState::before(&events[0]);
    assert_eq!(state.apply(&events[1]), Applied::Gap { next: 1 });
    assert_eq!(state, RunState::before(&events[0]));
    assert_eq!(state.apply(&events[0]), Applied::Valid);
    let once = state.clone();
    assert_eq!(state.apply(&events[0]), Applied::Already);
    assert_eq!(state.apply(&events[2]), Applied::Gap { next: 2 });
    assert_eq!(state, once);
    assert_eq!(state.apply(&events[1]), Applied::Valid);
    assert_eq!(state.apply(&events[2]), Applied::Valid);
    assert_eq!(state.last_event_seq, 3);
}

#[test]
fn the_last_possible_run_seq_is_applied_once() {
    let mut last = logged(&[run("RunQueued", 0)])[0].clone();
    let mut state = RunState::before(&last);
    state.last_event_seq = i64::MAX - 1;
    last.run_seq = i64::MAX;
    assert_eq!(state.apply(&last), Applied::Valid);
    assert_eq!(state.apply(&last), Applied::Already);
    assert_eq!(state.last_event_seq, i64::MAX);
}

// ---- times and durations of a run

#[test]
fn a_run_takes_its_times_from_the_events_that_moved_it() {
    let after = state(&[
        run("RunQueued", S).emitted(11),
        run("RunQueued", 2 * S).emitted(12),
        run("RunStarted", 3 * S).emitted(13),
        run("RunStarted", 4 * S).emitted(14),
        run("RunQueued", 5 * S).emitted(15),
        run("RunCompleted", 6 * S).emitted(16),
        run("RunFailed", 7 * S).emitted(17),
        run("RunArchived", 8 * S).emitted(18),
    ]);
    // The first RunQueued, and the valid one of each of the others.
    assert_eq!(after.queued_at, Some(Micros(S)));
    assert_eq!(after.started_at, Some(Micros(3 * S)));
    assert_eq!(after.ended_at, Some(Micros(6 * S)));
    assert_eq!(after.emitted_started_at, Some(Micros(13)));
    assert_eq!(after.emitted_ended_at, Some(Micros(16)));
    assert_eq!(after.first_persisted_at, Micros(S));
    assert_eq!(after.status, RunStatus::Completed);
    assert_eq!(after.consistency(), "INCONSISTENT");
}

#[test]
fn sort_at_is_the_first_of_started_queued_and_the_first_event() {
    let mut told = vec![run("Registered", 9 * S)];
    assert_eq!(state(&told).sort_at(), Micros(9 * S));
    told.push(run("RunQueued", 5 * S));
    assert_eq!(state(&told).sort_at(), Micros(5 * S));
    // The first that is known, not the earliest.
    told.push(run("RunStarted", 7 * S));
    assert_eq!(state(&told).sort_at(), Micros(7 * S));
    told.push(run("RunCompleted", 20 * S));
    assert_eq!(state(&told).sort_at(), Micros(7 * S));
}

#[test]
fn durations_are_floored_once_from_microseconds() {
    // Three active intervals of 1.9 ms are 5.7 ms, not 3 ms; two pauses of 0.6 ms are 1.2 ms.
    let after = state(&[
        run("RunQueued", 0),
        run("RunStarted", 2_999),
        run("RunPaused", 2_999 + 1_900),
        run("RunResumed", 2_999 + 2_500),
        run("RunPaused", 2_999 + 4_400),
        run("RunResumed", 2_999 + 5_000),
        run("RunCompleted", 2_999 + 6_900),
    ]);
    assert_eq!(after.queue_wait_ms(), Some(2));
    assert_eq!((after.active_ms(), after.active_micros), (5, 5_700));
    assert_eq!((after.paused_ms(), after.paused_micros), (1, 1_200));
    assert_eq!(after.wall_ms(), Some(6));
}

#[test]
fn a_duration_is_null_unless_both_ends_are_known() {
    let queued = state(&[run("RunQueued", 0)]);
    assert_eq!((queued.queue_wait_ms(), queued.wall_ms()), (None, None));
    assert_eq!((queued.active_ms(), queued.paused_ms()), (0, 0));
    let started = state(&[run("RunStarted", 0)]);
    assert_eq!((started.queue_wait_ms(), started.wall_ms()), (None, None));
    assert_eq!(started.emitted_wall_ms(), None);
    let ended = state(&[run("RunStarted", 0), run("RunFailed", 0)]);
    assert_eq!((ended.queue_wait_ms(), ended.wall_ms()), (None, Some(0)));
    assert_eq!(ended.emitted_wall_ms(), Some(0));
}

#[test]
fn an_open_interval_counts_nothing() {
    let mut told = vec![run("RunStarted", 0)];
    assert_eq!(state(&told).interval_since, Some(Micros(0)));
    told.push(step("StepStarted", "a", 1, 50 * S));
    assert_eq!(state(&told).active_ms(), 0);
    told.push(run("RunPaused", 100 * S));
    let paused = state(&told);
    assert_eq!((paused.active_ms(), paused.paused_ms()), (100_000, 0));
    assert_eq!(paused.interval_since, Some(Micros(100 * S)));
    told.push(run("RunCancelled", 101 * S));
    let ended = state(&told);
    assert_eq!((ended.active_ms(), ended.paused_ms()), (100_000, 1_000));
    assert_eq!(ended.interval_since, None);
}

#[test]
fn an_invalid_event_neither_closes_nor_opens_an_interval() {
    let after = state(&[
        run("RunStarted", 0),
        run("RunResumed", S),
        run("RunPaused", 2 * S),
        run("RunFailed", 3 * S),
        run("RunResumed", 4 * S),
        run("RunCompleted", 5 * S),
    ]);
    assert_eq!((after.active_ms(), after.paused_ms()), (3_000, 2_000));
}

#[test]
fn a_negative_interval_counts_0_and_takes_nothing_from_the_others() {
    let after = state(&[
        run("RunQueued", 10 * S),
        run("RunStarted", 9 * S),
        run("RunPaused", 8 * S),
        run("RunResumed", 7 * S),
        run("RunPaused", 7 * S + 5 * MS),
        run("RunResumed", 7 * S + 9 * MS),
        run("RunCompleted", 6 * S),
    ]);
    assert_eq!(after.queue_wait_ms(), Some(0));
    assert_eq!((after.active_ms(), after.paused_ms()), (5, 4));
    assert_eq!(after.wall_ms(), Some(0));
}

#[test]
fn the_emitted_wall_time_is_as_the_producers_clock_says() {
    let wall = |started: i64, ended: i64| {
        let told = [
            run("RunStarted", 0).emitted(started),
            run("RunCompleted", S).emitted(ended),
        ];
        state(&told).emitted_wall_ms()
    };
    assert_eq!(wall(1_000, 4_999), Some(3));
    assert_eq!(wall(5_000, 1_000), Some(-4));
    // Floored, also below zero.
    assert_eq!(wall(5_000, 3_999), Some(-2));
    assert_eq!(wall(i64::MAX, i64::MIN), Some(i64::MIN.div_euclid(1_000)));
}

// ---- what else a run carries

#[test]
fn project_environment_and_plan_are_those_of_the_first_event() {
    let after = state(&[
        run("Registered", 0).plan("p1", "e1", "plan1", "v1"),
        run("RunQueued", 0).plan("p2", "e2", "plan2", "v2"),
        run("RunStarted", 0).plan("p3", "e3", "plan3", "v3"),
    ]);
    assert_eq!(after.tenant_id, "acme");
    assert_eq!(after.run_id, "run-1");
    assert_eq!(after.project_id, "p1");
    assert_eq!(after.environment_id, "e1");
    assert_eq!(
        (after.plan_id.as_str(), after.plan_version.as_str()),
        ("plan1", "v1")
    );
}

#[test]
fn the_error_is_that_of_the_failing_event_and_null_is_not_absence() {
    let failed = |payload: Option<Value>| {
        let (mut of_run, mut of_step) = (run("RunFailed", S), step("StepFailed", "a", 1, S));
        if let Some(payload) = payload {
            (of_run, of_step) = (of_run.payload(payload.clone()), of_step.payload(payload));
        }
        let after = state(&[
            run("RunStarted", 0),
            step("StepStarted", "a", 1, 0),
            of_step,
            of_run,
        ]);
        assert_eq!(attempt(&after, "a", 1).error, after.error);
        after.error
    };
    assert_eq!(failed(None), None);
    assert_eq!(failed(Some(json!({}))), None);
    assert_eq!(failed(Some(json!({"Error": 1, "errors": []}))), None);
    assert_eq!(failed(Some(json!({"error": null}))), Some(Value::Null));
    for error in [
        json!("boom"),
        json!(1),
        json!(false),
        json!([1]),
        json!({"code": 7}),
    ] {
        assert_eq!(failed(Some(json!({"error": error.clone()}))), Some(error));
    }
}

#[test]
fn only_failing_events_carry_an_error() {
    let error = json!({"error": "not mine"});
    for last in ["RunCompleted", "RunCancelled"] {
        let told: Vec<Told> = vec![
            run("RunQueued", 0),
            run("RunStarted", 0),
            step("StepStarted", "a", 1, 0),
            step("StepCompleted", "a", 1, 0),
            step("StepSkipped", "b", 1, 0),
            run(last, 0),
            run("RunFailed", 0),
            step("StepFailed", "a", 1, 0),
        ]
        .into_iter()
        .map(|told| told.payload(error.clone()))
        .collect();
        let after = state(&told);
        assert_eq!(after.error, None);
        assert_eq!(attempt(&after, "a", 1).error, None);
        assert_eq!(attempt(&after, "b", 1).error, None);
    }
}

// ---- steps

#[test]
fn a_step_attempt_takes_its_times_and_engine_attempt_from_its_valid_events() {
    let after = state(&[
        step("StepStarted", "a", 1, 1_000)
            .emitted(11)
            .engine_attempt(4),
        step("StepStarted", "a", 1, 2_000)
            .emitted(12)
            .engine_attempt(5),
        step("StepFailed", "a", 1, 4_999)
            .emitted(13)
            .engine_attempt(6),
        step("StepCompleted", "a", 1, 9_000)
            .emitted(14)
            .engine_attempt(7),
        step("StepHeartbeat", "a", 1, 9_000)
            .emitted(15)
            .engine_attempt(8),
    ]);
    let attempt = attempt(&after, "a", 1);
    assert_eq!(attempt.status, StepStatus::Failed);
    assert_eq!(attempt.engine_attempt_id, 6);
    assert_eq!(attempt.started_at, Some(Micros(1_000)));
    assert_eq!(attempt.completed_at, Some(Micros(4_999)));
    assert_eq!(attempt.emitted_started_at, Some(Micros(11)));
    assert_eq!(attempt.emitted_completed_at, Some(Micros(13)));
    assert_eq!(attempt.duration_ms(), Some(3));
}

#[test]
fn a_skipped_attempt_has_been_completed_and_never_started() {
    let after = state(&[step("StepSkipped", "a", 1, S).emitted(9)]);
    let attempt = attempt(&after, "a", 1);
    assert_eq!(
        (attempt.started_at, attempt.completed_at),
        (None, Some(Micros(S)))
    );
    assert_eq!(attempt.emitted_started_at, None);
    assert_eq!(attempt.emitted_completed_at, Some(Micros(9)));
    assert_eq!(attempt.duration_ms(), None);
}

#[test]
fn a_steps_duration_is_null_while_it_runs_and_0_where_clocks_disagree() {
    let mut told = vec![step("StepStarted", "a", 1, S)];
    assert_eq!(attempt(&state(&told), "a", 1).duration_ms(), None);
    told.push(step("StepCompleted", "a", 1, 0));
    assert_eq!(attempt(&state(&told), "a", 1).duration_ms(), Some(0));
}

#[test]
fn an_attempt_without_a_valid_event_is_no_attempt() {
    let after = state(&[
        step("StepCompleted", "a", 1, 0),
        step("StepFailed", "a", 7, 0),
        step("StepStarted", "b", 1, 0),
        step("StepFailed", "b", 2, 0),
    ]);
    assert!(!after.steps.contains_key("a"));
    assert_eq!(after.steps["b"].keys().collect::<Vec<_>>(), [&1]);
    assert_eq!((after.step_counts, after.retries), (counts(1, 0, 0, 0), 0));
}

#[test]
fn a_step_counts_by_its_highest_attempt_even_where_a_lower_one_comes_later() {
    let mut told = vec![
        step("StepStarted", "a", 2, 0),
        step("StepCompleted", "a", 2, 0),
    ];
    assert_eq!(state(&told).step_counts, counts(0, 1, 0, 0));
    told.push(step("StepStarted", "a", 1, 0));
    let late = state(&told);
    assert_eq!((late.step_counts, late.retries), (counts(0, 1, 0, 0), 1));
    told.push(step("StepFailed", "a", 1, 0));
    assert_eq!(state(&told).step_counts, counts(0, 1, 0, 0));
    // An invalid event of a higher attempt does not make that attempt the one that counts.
    told.push(step("StepFailed", "a", 3, 0));
    assert_eq!(state(&told).step_counts, counts(0, 1, 0, 0));
    told.push(step("StepSkipped", "a", 3, 0));
    let after = state(&told);
    assert_eq!((after.step_counts, after.retries), (counts(0, 0, 0, 1), 2));
}

#[test]
fn retries_are_attempts_less_one_summed_over_the_steps() {
    let mut told = Vec::new();
    for (step_id, attempts) in [("a", 1), ("b", 3), ("c", 2)] {
        for id in 1..=attempts {
            told.push(step("StepStarted", step_id, id, 0));
            told.push(step("StepFailed", step_id, id, 0));
        }
    }
    told.push(step("StepStarted", "d", i32::MAX, 0));
    let after = state(&told);
    assert_eq!(after.retries, 2 + 1);
    assert_eq!(after.step_counts, counts(1, 0, 3, 0));
    assert_eq!(after.consistency(), "CONSISTENT");
}

// ---- the snapshot

fn golden_history() -> Vec<Told> {
    // 2026-01-02T03:04:05Z.
    let t = 1_767_323_045 * S;
    let error = json!({"code": 1.0, "big": 9007199254740993_i64, "ratio": 1e-7, "text": "é€😀\n\"/", "\u{20ac}": 1, "\u{1f600}": 2, "\u{fb33}": 3, "list": [null, true, -0.0]});
    vec![
        run("RunQueued", t),
        run("RunStarted", t + 1_234_567).emitted(t + 1_000_000),
        step("StepStarted", "model.orders", 1, t + 2 * S).engine_attempt(1),
        step("StepFailed", "model.orders", 1, t + 3 * S).payload(json!({"error": null})),
        step("StepStarted", "model.orders", 2, t + 4 * S).engine_attempt(2),
        run("RunPaused", t + 5 * S),
        run("RunNoted", t + 6 * S),
        run("RunResumed", t + 6 * S + 999),
        step("StepCompleted", "model.orders", 2, t + 7 * S).engine_attempt(3),
        step("StepSkipped", "Seed", 1, t + 7 * S).engine_attempt(3),
        run("RunStarted", t + 8 * S),
        run("RunFailed", t + 9 * S).payload(json!({"error": error})),
    ]
}

// What the history above amounts to by the contract, worked out by hand: active = 3.765433 s +
// 2.999001 s, paused = 1.000999 s, wall = 7.765433 s, emitted end = half a second before the end.
const GOLDEN_DOCUMENT: &str = r#"{
  "tenantId": "acme",
  "runId": "run-1",
  "projectId": "warehouse",
  "environmentId": "prod",
  "planId": "plan_abc",
  "planVersion": "v2",
  "status": "FAILED",
  "consistency": "INCONSISTENT",
  "lastEventSeq": 12,
  "firstPersistedAt": "2026-01-02T03:04:05.000000Z",
  "queuedAt": "2026-01-02T03:04:05.000000Z",
  "startedAt": "2026-01-02T03:04:06.234567Z",
  "completedAt": "2026-01-02T03:04:14.000000Z",
  "emittedStartedAt": "2026-01-02T03:04:06.000000Z",
  "emittedCompletedAt": "2026-01-02T03:04:13.500000Z",
  "intervalSince": null,
  "durations": {
    "queueWaitMs": 1234,
    "activeMs": 6764,
    "pausedMs": 1000,
    "wallMs": 7765,
    "activeMicros": 6764434,
    "pausedMicros": 1000999
  },
  "error": {
    "code": 1.0,
    "big": 9007199254740993,
    "ratio": 1e-7,
    "text": "é€😀\n\"/",
    "€": 1,
    "😀": 2,
    "\ufb33": 3,
    "list": [null, true, -0.0]
  },
  "steps": [
    {
      "stepId": "Seed",
      "logicalAttemptId": 1,
      "engineAttemptId": 3,
      "status": "SKIPPED",
      "startedAt": null,
      "completedAt": "2026-01-02T03:04:12.000000Z",
      "emittedStartedAt": null,
      "emittedCompletedAt": "2026-01-02T03:04:11.500000Z"
    },
    {
      "stepId": "model.orders",
      "logicalAttemptId": 1,
      "engineAttemptId": 1,
      "status": "FAILED",
      "startedAt": "2026-01-02T03:04:07.000000Z",
      "completedAt": "2026-01-02T03:04:08.000000Z",
      "emittedStartedAt": "2026-01-02T03:04:06.500000Z",
      "emittedCompletedAt": "2026-01-02T03:04:07.500000Z",
      "error": null
    },
    {
      "stepId": "model.orders",
      "logicalAttemptId": 2,
      "engineAttemptId": 3,
      "status": "SUCCESS",
      "startedAt": "2026-01-02T03:04:09.000000Z",
      "completedAt": "2026-01-02T03:04:12.000000Z",
      "emittedStartedAt": "2026-01-02T03:04:08.500000Z",
      "emittedCompletedAt": "2026-01-02T03:04:11.500000Z"
    }
  ]
}"#;

// SHA-256 of the document's RFC 8785 form, computed apart from this code.
const GOLDEN_DIGEST: &str = "25586abc1b4667130526004066bc747fa6072ba922660c63ed42d7a0014e8ada";

#[test]
fn a_worked_history_has_the_golden_snapshot_and_digest() {
    let after = state(&golden_history());
    let snapshot = Snapshot::from(&after);
    let document: Value = serde_json::from_str(GOLDEN_DOCUMENT).unwrap();
    assert_eq!(serde_json::to_value(&snapshot).unwrap(), document);
    assert_eq!(snapshot.digest().unwrap().to_string(), GOLDEN_DIGEST);
    let read_back = Snapshot::from_json(GOLDEN_DOCUMENT).unwrap();
    assert_eq!(read_back.digest().unwrap().to_string(), GOLDEN_DIGEST);
    assert_eq!(RunState::from(read_back), after);
}

#[test]
fn a_snapshot_keeps_an_error_that_is_null_or_absent_or_as_deep_as_a_payload_may_be() {
    let deep = (0..126).fold(json!(1), |inner, _| json!([inner]));
    // Also a key to which a JSON library gives a meaning of its own.
    let named = json!({"$serde_json::private::RawValue": "[1]"});
    for payload in [
        json!({}),
        json!({"error": null}),
        json!({"error": deep}),
        json!({"error": named}),
    ] {
        let before = state(&[
            run("RunStarted", 0),
            step("StepStarted", "a", 1, 0),
            step("StepFailed", "a", 1, 0).payload(payload.clone()),
            run("RunFailed", 0).payload(payload),
        ]);
        let snapshot = Snapshot::from(&before);
        let text = serde_json::to_string(&snapshot).unwrap();
        let read_back = Snapshot::from_json(&text).unwrap();
        assert_eq!(read_back.digest(), snapshot.digest());
        assert_eq!(RunState::from(read_back), before);
    }
}

#[test]
fn a_text_that_is_no_snapshot_is_refused() {
    let fields = GOLDEN_DOCUMENT.strip_prefix('{').unwrap();
    for text in [
        String::new(),
        "{}".to_owned(),
        format!("{GOLDEN_DOCUMENT}x"),
        format!("{{\"extra\":1,{fields}"),
        format!("{{\"runId\":\"run-2\",{fields}"),
        GOLDEN_DOCUMENT.replace("FAILED", "LOST"),
        GOLDEN_DOCUMENT.replace("Z\"", "\""),
        GOLDEN_DOCUMENT.replace("\"code\": 1.0", "\"code\": 1, \"code\": 2"),
        GOLDEN_DOCUMENT.replace("[null", &format!("[{}", "[".repeat(100_000))),
    ] {
        let start: String = text.chars().take(80).collect();
        assert!(Snapshot::from_json(&text).is_err(), "{start}");
    }
}

#[test]
fn any_other_state_has_another_digest() {
    let events = logged(&golden_history());
    let mut state = RunState::before(&events[0]);
    let mut digests = vec![Snapshot::from(&state).digest().unwrap()];
    for event in &events {
        state.apply(event);
        digests.push(Snapshot::from(&state).digest().unwrap());
    }
    let different: std::collections::HashSet<_> = digests.iter().collect();
    assert_eq!(different.len(), digests.len());
}

#[test]
fn a_step_event_without_its_step_is_opaque() {
    // Validation refuses it, so the log cannot hold it; the fold must not stop at it all the same.
    let events = [
        run("RunStarted", 0),
        run("StepStarted", S),
        run("StepFailed", S),
    ];
    let (after, applied) = fold(&events);
    assert_eq!(applied, [Applied::Valid, Applied::Opaque, Applied::Opaque]);
    assert_ignored(&state(&events[..2]), &after, false);
}

#[test]
fn what_an_event_attempts_is_the_state_its_valid_form_leads_to() {
    use RunEventType::*;
    for (from, kind) in [
        (RunStatus::Pending, RunQueued),
        (RunStatus::Pending, RunStarted),
        (RunStatus::Running, RunPaused),
        (RunStatus::Paused, RunResumed),
        (RunStatus::Running, RunCompleted),
        (RunStatus::Running, RunFailed),
        (RunStatus::Paused, RunCancelled),
    ] {
        assert_eq!(from.after(kind), Some(RunStatus::attempted_by(kind)));
    }
    use StepEventType::*;
    for (from, kind) in [
        (StepStatus::Pending, StepStarted),
        (StepStatus::Pending, StepSkipped),
        (StepStatus::Running, StepCompleted),
        (StepStatus::Running, StepFailed),
    ] {
        assert_eq!(from.after(kind), Some(StepStatus::attempted_by(kind)));
    }
    assert_eq!(EventType::Run(RunQueued).to_string(), "RunQueued");
}
