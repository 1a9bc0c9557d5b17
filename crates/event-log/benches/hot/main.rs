//! What the pure functions on an event's way cost, with nothing around them: no database, no network.
//!
//! `cargo bench --workspace --bench hot [-- NAME]` measures time; `make bench-instructions` counts
//! instructions and allocations, which do not depend on what else the machine does: it calls this program
//! as `hot repeat NAME TIMES`, under valgrind.

mod sample;

use std::hint::black_box;
use std::process::ExitCode;

use chrono::DateTime;
use criterion::{Criterion, Throughput};
use event_log::measured::decide_new_runs;
use run_events::digest::chain_digest;
use run_events::{Digest, LoggedEvent, RunState, json};

/// A function on an event's way, over some events.
struct Hot {
    name: &'static str,
    events: usize,
    run: Box<dyn FnMut()>,
}

impl Hot {
    fn new(name: &'static str, events: usize, run: impl FnMut() + 'static) -> Self {
        let run = Box::new(run);
        Self { name, events, run }
    }
}

/// In the order of an event's way. What a function returns is dropped in its time.
fn hot_functions() -> Vec<Hot> {
    let values = sample::values(0);
    let history = sample::history(0);
    let records = sample::records(100);
    let events = history.len();
    let per_event = |name, measure: fn(&LoggedEvent)| {
        let history = history.clone();
        Hot::new(name, events, move || history.iter().for_each(measure))
    };
    vec![
        Hot::new("decode", events, move || {
            for value in &values {
                drop(black_box(json::decode(black_box(value))));
            }
        }),
        per_event("key", |logged| {
            black_box(black_box(&logged.event).derived_key());
        }),
        per_event("content_digest", |logged| {
            black_box(black_box(&logged.event).content_digest());
        }),
        per_event("chain_digest", |logged| {
            black_box(chained(black_box(logged)));
        }),
        Hot::new("decide", records.len(), move || {
            black_box(decide_new_runs(black_box(&records), DateTime::UNIX_EPOCH));
        }),
        per_event("payload_text", |logged| {
            drop(black_box(serde_json::to_string(black_box(
                &logged.event.payload,
            ))));
        }),
        Hot::new("fold", events, {
            let history = history.clone();
            move || drop(black_box(fold(&history)))
        }),
    ]
}

fn chained(logged: &LoggedEvent) -> Digest {
    let event = &logged.event;
    chain_digest(
        Digest::CHAIN_START,
        logged.run_seq,
        event.event_id,
        event.idempotency_key,
        event.emitted_at,
        event.engine_attempt_id,
        Digest(event.idempotency_key.0),
    )
}

fn fold(history: &[LoggedEvent]) -> RunState {
    let mut state = RunState::before(&history[0]);
    for event in history {
        state.apply(black_box(event));
    }
    state
}

/// Times each function, per event.
fn times() {
    let mut criterion = Criterion::default().configure_from_args();
    let long = sample::long_history();
    let fold_long = Hot::new("fold_100_000", long.len(), move || {
        drop(black_box(fold(&long)));
    });
    let mut group = criterion.benchmark_group("hot");
    for mut hot in hot_functions().into_iter().chain([fold_long]) {
        group.throughput(Throughput::Elements(hot.events as u64));
        group.bench_function(hot.name, |bencher| bencher.iter(&mut hot.run));
    }
    group.finish();
    criterion.final_summary();
}

/// Runs one function over at least so many events, and prints over how many.
fn repeat(name: &str, events: usize) -> Option<usize> {
    let mut functions = hot_functions();
    let hot = functions.iter_mut().find(|hot| hot.name == name)?;
    let times = events.div_ceil(hot.events);
    (0..times).for_each(|_| (hot.run)());
    Some(times * hot.events)
}

#[allow(clippy::print_stdout)]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["names"] => {
            for hot in hot_functions() {
                println!("{}", hot.name);
            }
        }
        ["repeat", name, events] => {
            let Some(events) = events.parse().ok().and_then(|n| repeat(name, n)) else {
                eprintln!("hot: cannot repeat {name:?} over {events:?} events");
                return ExitCode::from(2);
            };
            println!("{events}");
        }
        _ => times(),
    }
    ExitCode::SUCCESS
}
