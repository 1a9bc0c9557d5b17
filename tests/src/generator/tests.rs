//! The generator and the oracle must agree on what each record is, before either judges a product.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::{Intent, Record, generate};
use crate::oracle::log::{Log, Outcome, judge};
use crate::oracle::{Produced, fold};
use std::collections::BTreeMap;

fn as_if_produced(records: &[Record]) -> Vec<Produced> {
    let mut next = BTreeMap::new();
    let place = |record: &Record| {
        let offset = next.entry(record.partition).or_insert(0);
        *offset += 1;
        Produced {
            partition: record.partition,
            offset: *offset - 1,
            key: record.key.clone(),
            value: record.value.clone(),
            content_type: record.content_type.clone(),
        }
    };
    records.iter().map(place).collect()
}

fn judged(seed: u64) -> (Vec<Record>, Log) {
    let records = generate(seed, 20_000, 6);
    let log = judge(&as_if_produced(&records));
    (records, log)
}

#[test]
fn the_oracle_judges_every_record_as_it_was_meant() {
    let (records, log) = judged(1);
    let dead: BTreeMap<usize, _> = log
        .dead_letters
        .iter()
        .map(|dead| (dead.record, dead))
        .collect();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (at, record) in records.iter().enumerate() {
        let text = || {
            String::from_utf8_lossy(record.value.as_deref().unwrap_or_default())
                .chars()
                .take(600)
                .collect::<String>()
        };
        let (outcome, reason) = match &record.intent {
            Intent::Append => (Outcome::Appended, None),
            Intent::Duplicate => (Outcome::Duplicate, None),
            Intent::Conflict => (Outcome::Dead, Some("idempotency_conflict")),
            Intent::EventIdReused => (Outcome::Dead, Some("event_id_reused")),
            Intent::Malformed(_, reason) => (Outcome::Dead, Some(*reason)),
        };
        assert_eq!(
            log.outcomes[at],
            outcome,
            "record {at}, {:?}: {}",
            record.intent,
            text()
        );
        if let Some(reason) = reason {
            let reasons = dead[&at].refusal.reasons;
            assert!(
                reasons.contains(&reason),
                "record {at}, {:?}: {reasons:?} {}",
                record.intent,
                text()
            );
        }
        let name = match &record.intent {
            Intent::Malformed(..) => "Malformed".to_owned(),
            other => format!("{other:?}"),
        };
        *counts.entry(name).or_default() += 1;
    }
    assert!(records.len() >= 20_000, "{}", records.len());
    for (intent, at_least) in [
        ("Append", 15_000),
        ("Duplicate", 1_000),
        ("Conflict", 200),
        ("EventIdReused", 20),
        ("Malformed", 300),
    ] {
        assert!(
            counts.get(intent).is_some_and(|count| *count >= at_least),
            "{intent}: {counts:?}"
        );
    }
}

#[test]
fn every_partition_gets_its_share_and_the_same_seed_makes_the_same_records() {
    let (records, log) = judged(2);
    assert_eq!(log.totals.len(), 6);
    assert!(
        log.totals.values().all(|totals| totals.appended > 1_000),
        "{:?}",
        log.totals
    );
    let again = generate(2, 20_000, 6);
    assert!(
        records
            .iter()
            .zip(&again)
            .all(|(a, b)| a.value == b.value && a.partition == b.partition)
    );
}

#[test]
fn the_runs_reach_every_status_and_every_kind_of_inconsistency() {
    let (_, log) = judged(3);
    let times = log
        .appended
        .iter()
        .map(|row| ((row.partition, row.offset), row.offset * 1_000))
        .collect();
    let models = fold::fold(&log.appended, &times);
    let mut statuses: BTreeMap<String, usize> = BTreeMap::new();
    for row in models.run_current.values() {
        *statuses
            .entry(format!("{} {}", row["status"], row["consistency"]))
            .or_default() += 1;
    }
    for status in [
        "PENDING",
        "RUNNING",
        "PAUSED",
        "COMPLETED",
        "FAILED",
        "CANCELLED",
    ] {
        for consistency in ["CONSISTENT", "INCONSISTENT"] {
            let name = format!("{status:?} {consistency:?}");
            assert!(
                statuses.contains_key(&name),
                "no run is {name}: {statuses:?}"
            );
        }
    }
    assert!(models.run_inconsistency.len() > 100 && models.step_attempt.len() > 3_000);
    let longest = models
        .run_current
        .values()
        .map(|row| format!("{:>8}", row["last_event_seq"].to_string()))
        .max();
    assert!(longest.unwrap().trim().parse::<i64>().unwrap() > 1_000);
}
