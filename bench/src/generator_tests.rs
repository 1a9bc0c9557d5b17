//! The generator against the product's decoder and fold.

#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, HashSet};

use run_events::json::decode;
use run_events::{Applied, LoggedEvent, RunEvent, RunState};

use super::{EVENTS_A_RUN, EventIds, Generator, Options, Record};

fn options(seed: u64) -> Options {
    Options {
        seed,
        events: 10_000,
        active: 100,
        duplicates: 0.01,
        event_ids: EventIds::V7,
    }
}

fn records(options: Options) -> Vec<Record> {
    Generator::new(options).collect()
}

fn decoded(records: &[Record]) -> Vec<RunEvent> {
    records
        .iter()
        .map(|record| decode(&record.value).unwrap().event)
        .collect()
}

#[test]
fn the_same_seed_makes_the_same_bytes_and_another_one_does_not() {
    assert_eq!(records(options(1)), records(options(1)));
    assert_ne!(records(options(1)), records(options(2)));
}

#[test]
fn one_in_a_hundred_is_a_duplicate_and_the_rest_are_whole_runs() {
    let events = decoded(&records(options(3)));
    let mut first: HashMap<_, &RunEvent> = HashMap::new();
    let mut ids = HashSet::new();
    let mut repeated = 0;
    let mut a_run: HashMap<_, u64> = HashMap::new();
    for event in &events {
        assert_eq!(event.idempotency_key, event.derived_key());
        assert!(ids.insert(event.event_id), "an event id twice");
        let key = (event.run_id.clone(), event.idempotency_key);
        if let Some(original) = first.get(&key) {
            repeated += 1;
            assert_eq!(original.payload, event.payload);
            assert_ne!(original.engine_attempt_id, event.engine_attempt_id);
        } else {
            first.insert(key, event);
            *a_run.entry(event.run_id.clone()).or_default() += 1;
        }
    }
    assert_eq!(first.len(), 10_000);
    assert!((60..140).contains(&repeated), "{repeated} duplicates");
    assert!(a_run.values().all(|&events| events == EVENTS_A_RUN));
}

#[test]
fn every_transition_is_valid_and_every_run_ends() {
    let plain = Options {
        duplicates: 0.0,
        ..options(4)
    };
    let mut runs: HashMap<String, RunState> = HashMap::new();
    for event in decoded(&records(plain)) {
        let mut logged = LoggedEvent {
            run_seq: 1,
            persisted_at: event.emitted_at,
            event,
        };
        let state = runs
            .entry(logged.event.run_id.clone())
            .or_insert_with(|| RunState::before(&logged));
        logged.run_seq = state.last_event_seq + 1;
        let applied = state.apply(&logged);
        assert!(!matches!(applied, Applied::Gap { .. } | Applied::Already));
        assert!(!state.inconsistent, "{:?}", logged.event.event_type);
    }
    assert_eq!(runs.len(), 500);
    for state in runs.values() {
        assert!(["COMPLETED", "FAILED"].contains(&state.status.as_str()));
    }
}

#[test]
fn events_have_about_450_bytes_and_runs_mix() {
    let records = records(options(5));
    let bytes: usize = records.iter().map(|record| record.value.len()).sum();
    let mean = bytes / records.len();
    assert!((440..=460).contains(&mean), "{mean} bytes");
    let together = records.windows(2).filter(|p| p[0].key == p[1].key).count();
    assert!(
        together * 40 < records.len(),
        "{together} of {}",
        records.len()
    );
    let keys: HashSet<&str> = records[..1_000].iter().map(|r| r.key.as_str()).collect();
    assert!(
        (95..=150).contains(&keys.len()),
        "{} runs at once",
        keys.len()
    );
}

#[test]
fn ids_are_of_the_version_asked_for_and_v7_ones_ascend() {
    let of = |event_ids| {
        let options = Options {
            event_ids,
            duplicates: 0.0,
            ..options(6)
        };
        decoded(&records(options))
    };
    let seven = of(EventIds::V7);
    assert!(seven.iter().all(|e| e.event_id.get_version_num() == 7));
    let millis = |e: &RunEvent| e.event_id.as_u128() >> 80;
    assert!(seven.windows(2).all(|p| millis(&p[0]) <= millis(&p[1])));
    assert!(
        of(EventIds::V4)
            .iter()
            .all(|e| e.event_id.get_version_num() == 4)
    );
}
