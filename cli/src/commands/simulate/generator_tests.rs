//! The simulator against the product's own decoder and fold: what it says must become of its
//! records is what becomes of them.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use run_events::json::decode;
use run_events::{Applied, LoggedEvent, Micros, RunEvent, RunState};

use super::generator::{Generator, Options, Outgoing, Tally};

const NOW: Micros = Micros(1_790_000_000_000_000);

fn options(seed: u64) -> Options {
    Options {
        seed,
        runs: 400,
        tenants: 4,
        active: 40,
        duplicates: 0.1,
        malformed: 0.05,
        invalid_transitions: 0.02,
        unknown_types: 0.05,
        now: NOW,
    }
}

fn all(mut generator: Generator) -> (Vec<Outgoing>, Tally) {
    let records: Vec<_> = generator.by_ref().collect();
    let tally = generator.tally();
    (records, tally)
}

/// What an append authority makes of the records, in a few lines: refused, duplicate, or in order.
fn judged(records: &[Outgoing]) -> Tally {
    let mut tally = Tally {
        published: records.len() as u64,
        ..Tally::default()
    };
    let mut seen: HashMap<_, RunEvent> = HashMap::new();
    let mut ids = HashSet::new();
    let mut runs: BTreeMap<(String, String), RunState> = BTreeMap::new();
    for record in records {
        let event = match decode(&record.value) {
            Ok(decoded) => decoded.event,
            Err(rejection) => {
                tally.expected.dead_letters += 1;
                let by_reason = &mut tally.expected.dead_letters_by_reason;
                *by_reason.entry(rejection.reason.as_str()).or_default() += 1;
                continue;
            }
        };
        assert_eq!(record.run_id, event.run_id);
        assert_eq!(event.idempotency_key, event.derived_key());
        assert!(ids.insert(event.event_id), "event id used twice");
        let owner = (event.tenant_id.clone(), event.run_id.clone());
        let key = (owner.clone(), event.idempotency_key);
        if let Some(first) = seen.get(&key) {
            assert_eq!(
                content(first),
                content(&event),
                "a duplicate with other content"
            );
            tally.expected.duplicates += 1;
            continue;
        }
        seen.insert(key, event.clone());
        tally.expected.appended += 1;
        let persisted_at = event.emitted_at;
        let mut logged = LoggedEvent {
            run_seq: 1,
            persisted_at,
            event,
        };
        let state = runs
            .entry(owner)
            .or_insert_with(|| RunState::before(&logged));
        logged.run_seq = state.last_event_seq + 1;
        assert!(!matches!(
            state.apply(&logged),
            Applied::Gap { .. } | Applied::Already
        ));
    }
    for state in runs.values() {
        tally.runs += 1;
        *tally
            .runs_by_status
            .entry(state.status.as_str())
            .or_default() += 1;
        tally.inconsistent_runs += u64::from(state.inconsistent);
    }
    tally
}

fn content(event: &RunEvent) -> impl PartialEq + std::fmt::Debug + use<> {
    let event = event.clone();
    (
        (
            event.event_type,
            event.step_id,
            event.logical_attempt_id,
            event.plan_id,
        ),
        (
            event.plan_version,
            event.project_id,
            event.environment_id,
            event.payload,
        ),
    )
}

#[test]
fn the_report_is_what_the_log_and_the_fold_make_of_the_records() {
    for seed in 0..12 {
        let (records, tally) = all(Generator::new(options(seed)));
        assert_eq!(judged(&records), tally, "seed {seed}");
        assert_eq!(tally.runs, 400);
        assert!(tally.inconsistent_runs > 0 && tally.expected.duplicates > 0);
        assert_eq!(tally.expected.dead_letters_by_reason.len(), 2);
    }
}

#[test]
fn without_faults_everything_is_appended_and_every_run_ends() {
    let plain = Options {
        duplicates: 0.0,
        malformed: 0.0,
        invalid_transitions: 0.0,
        unknown_types: 0.0,
        ..options(7)
    };
    let (records, tally) = all(Generator::new(plain));
    assert_eq!(judged(&records), tally);
    assert_eq!(tally.expected.appended, tally.published);
    assert_eq!(tally.inconsistent_runs, 0);
    let ends: Vec<_> = tally.runs_by_status.keys().copied().collect();
    assert_eq!(ends, ["CANCELLED", "COMPLETED", "FAILED"]);
}

#[test]
fn every_known_type_occurs() {
    let (records, _) = all(Generator::new(options(3)));
    let types: BTreeSet<String> = records
        .iter()
        .filter_map(|record| Some(decode(&record.value).ok()?.event.event_type.to_string()))
        .collect();
    for known in [
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
    ] {
        assert!(types.contains(known), "{known}");
    }
    assert!(types.contains("LineageCaptured"));
}

#[test]
fn the_same_seed_makes_the_same_bytes_and_another_one_does_not() {
    let first = all(Generator::new(options(42)));
    assert_eq!(first, all(Generator::new(options(42))));
    assert_ne!(first.0, all(Generator::new(options(43))).0);
}

#[test]
fn the_same_seed_at_another_time_makes_only_duplicates() {
    let later = Options {
        now: Micros(NOW.0 + 86_400_000_000),
        ..options(5)
    };
    let (mut records, once) = all(Generator::new(options(5)));
    records.extend(all(Generator::new(later)).0);
    let judged = judged(&records);
    assert_eq!(judged.expected.appended, once.expected.appended);
    assert_eq!(judged.inconsistent_runs, once.inconsistent_runs);
}

#[test]
fn a_stop_at_any_point_leaves_an_exact_report() {
    for stop_after in [0, 1, 7, 100, 1_501, 4_000] {
        let mut generator = Generator::new(options(9));
        let mut records: Vec<_> = generator.by_ref().take(stop_after).collect();
        generator.stop();
        records.extend(generator.by_ref());
        assert!(records.len() <= stop_after + 4, "{} records", records.len());
        assert_eq!(
            judged(&records),
            generator.tally(),
            "stopped after {stop_after}"
        );
    }
}

#[test]
fn duplicates_come_at_every_distance() {
    let mut seen: HashMap<_, usize> = HashMap::new();
    let mut distances = Vec::new();
    let (records, _) = all(Generator::new(Options {
        runs: 3_000,
        ..options(1)
    }));
    for (place, record) in records.iter().enumerate() {
        let Ok(decoded) = decode(&record.value) else {
            continue;
        };
        let key = (decoded.event.run_id, decoded.event.idempotency_key);
        if let Some(first) = seen.get(&key) {
            distances.push(place - first);
        } else {
            seen.insert(key, place);
        }
    }
    for (from, to) in [(1, 10), (10, 100), (100, 2_000), (2_000, 20_000)] {
        let some = distances.iter().any(|d| (from..to).contains(d));
        assert!(some, "none between {from} and {to}");
    }
}

#[test]
fn events_are_interleaved_of_usual_size_and_emitted_near_now() {
    let plain = Options {
        runs: 2_000,
        duplicates: 0.0,
        malformed: 0.0,
        ..options(2)
    };
    let (records, _) = all(Generator::new(plain));
    let bytes: usize = records.iter().map(|record| record.value.len()).sum();
    let mean = bytes / records.len();
    assert!((400..700).contains(&mean), "{mean} bytes");
    let same = records
        .windows(2)
        .filter(|pair| pair[0].run_id == pair[1].run_id);
    assert!(same.count() * 2 < records.len(), "runs do not mix");
    let away: Vec<i64> = records
        .iter()
        .map(|record| decode(&record.value).unwrap().event.emitted_at.0 - NOW.0)
        .map(|micros| micros / 1_000_000)
        .collect();
    assert!(
        away.iter().all(|s| (-7_200..600).contains(s)),
        "seconds from now: {away:?}"
    );
}
