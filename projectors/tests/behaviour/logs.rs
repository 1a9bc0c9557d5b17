//! The logs that the projections are tried on: random events for each of them, and runs of many events.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;

use crate::bulk;
use crate::support::{Database, Event, Log, run, step};

const TYPES: [&str; 12] = [
    "RunQueued",
    "RunStarted",
    "RunPaused",
    "RunResumed",
    "RunCompleted",
    "RunFailed",
    "RunCancelled",
    "StepStarted",
    "StepCompleted",
    "StepFailed",
    "StepSkipped",
    "RunAnnotated",
];

/// Ends are rare among them, so that runs pause and resume before.
const LONG_LIVED: [&str; 16] = [
    "RunQueued",
    "RunStarted",
    "RunStarted",
    "RunPaused",
    "RunPaused",
    "RunPaused",
    "RunPaused",
    "RunResumed",
    "RunResumed",
    "RunResumed",
    "RunResumed",
    "RunCompleted",
    "RunFailed",
    "RunCancelled",
    "StepStarted",
    "RunAnnotated",
];

/// Any event, so that most transitions are invalid and all are tried.
fn any_event(random: &mut StdRng) -> Event {
    let event_type = TYPES[random.random_range(0..TYPES.len())];
    let event = if event_type.starts_with("Step") {
        let step_id = format!("step-{}", random.random_range(0..4));
        step(event_type, &step_id, random.random_range(1..4))
    } else {
        run(event_type)
    };
    match random.random_range(0..4) {
        0 => event.payload(json!({"error": {"code": random.random_range(0..9)}})),
        1 => event.payload(json!({"error": null, "rows": 3})),
        2 => event.payload(json!({"rows": 3})),
        _ => event,
    }
}

/// Any event, and often a plausible one, so that many runs and attempts come to an end.
fn plausible_event(random: &mut StdRng) -> Event {
    let event = match random.random_range(0..8) {
        0 => run("RunStarted"),
        1 => run(["RunCompleted", "RunFailed", "RunCancelled"][random.random_range(0..3)]),
        2 => step("StepStarted", "step-0", random.random_range(1..9)),
        3 => step("StepCompleted", "step-0", random.random_range(1..9)),
        _ => any_event(random),
    };
    Event {
        project: ["shop", "other"][random.random_range(0..2)],
        plan: ["plan", "Plan", "plän"][random.random_range(0..3)],
        ..event
    }
}

/// So many partitions, the second one from offset 100 on.
pub(crate) async fn partitions(log: &Log<'_>, count: i32) -> Vec<i64> {
    let mut streams = Vec::new();
    for partition in 0..count {
        streams.push(log.stream(partition, 1, i64::from(partition) * 100).await);
    }
    streams
}

/// The stream that the event at this place goes through. The same seed makes the same events, however
/// many streams there are.
fn any_of(streams: &[i64], random: &mut StdRng, place: usize) -> i64 {
    streams[(random.random_range(0..2) + 2 * place) % streams.len()]
}

/// Random events of a few runs, interleaved.
pub(crate) async fn few_runs(log: &mut Log<'_>, streams: &[i64], seed: u64, events: usize) {
    let mut random = StdRng::seed_from_u64(seed);
    for place in 0..events {
        let run_id = format!("run-{}", random.random_range(0..6));
        let stream = any_of(streams, &mut random, place);
        log.append(stream, &run_id, any_event(&mut random)).await;
        if random.random_range(0..10) == 0 {
            log.duplicates(stream, random.random_range(1..4)).await;
        }
    }
    for stream in streams {
        log.duplicates(*stream, 5).await; // The head is past the last event.
    }
}

/// Runs that pause and resume, with many invalid events, through partitions whose clocks differ.
pub(crate) async fn clocks_that_differ(
    log: &mut Log<'_>,
    streams: &[i64],
    seed: u64,
    events: usize,
) {
    let mut random = StdRng::seed_from_u64(seed);
    for place in 0..events {
        let run_id = format!("run-{}", random.random_range(0..20));
        let stream = any_of(streams, &mut random, place);
        let event = match LONG_LIVED[random.random_range(0..LONG_LIVED.len())] {
            event_type if event_type.starts_with("Step") => step(event_type, "a", 1),
            event_type => run(event_type),
        };
        let project = ["shop", "other"][random.random_range(0..2)];
        log.wait_us(random.random_range(-40_000..50_000));
        log.append(stream, &run_id, Event { project, ..event })
            .await;
        if random.random_range(0..10) == 0 {
            log.duplicates(stream, random.random_range(1..4)).await;
        }
    }
}

/// Runs of several plans over some days, from producers whose clocks jump.
pub(crate) async fn some_days(log: &mut Log<'_>, streams: &[i64], seed: u64, events: usize) {
    let mut random = StdRng::seed_from_u64(seed);
    for place in 0..events {
        let run_id = format!("run-{}", random.random_range(0..30));
        let stream = any_of(streams, &mut random, place);
        log.wait_ms(random.random_range(0..1_200_000));
        log.emit_ahead_ms(random.random_range(-200_000..200_000));
        log.append(stream, &run_id, plausible_event(&mut random))
            .await;
    }
}

/// Runs of `events` events each, 100,000 in all, one after the other: a fifth of the events as many
/// attempts, four of each step, and a pause and a resumption beside each attempt.
pub(crate) async fn runs_of(database: &Database, events: usize) {
    let log = Log::new(database);
    let stream = log.stream(0, 1, 0).await;
    for run_number in 0..100_000 / events {
        let steps = events / 20;
        let event = |n: usize| {
            let (slot, at) = (n / 5, n % 5);
            let (step_id, attempt) = (format!("step-{}", slot % steps), slot / steps + 1);
            match at {
                _ if n + 1 == events => run("RunFailed"),
                0 => step("StepStarted", &step_id, attempt as i32),
                1 => run(if slot == 0 { "RunStarted" } else { "RunPaused" }),
                2 => run("RunResumed"),
                3 => run("RunAnnotated"),
                _ => step("StepFailed", &step_id, attempt as i32).payload(json!({"error": n})),
            }
        };
        let events: Vec<(i64, Event)> = (0..events).map(|n| (stream, event(n))).collect();
        bulk::append(database, &format!("run-{run_number}"), &events).await;
    }
}
