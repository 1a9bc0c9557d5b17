//! What must hold: I1 to I5 of docs/guarantees.md over everything that is committed, checked at every
//! commit; and what a commit and the end of a schedule must not do.

use std::collections::{HashMap, HashSet};

use run_events::digest::chain_digest;
use run_events::{Digest, Reason};

use super::checker::Seen;
use super::database::{EventRow, Log, Place, StreamRow, View, Writes};
use super::kafka::{BatchId, Kafka, Slot, Spec};
use super::protocol::count;
use super::scenario::Scenario;
use super::state::State;
use super::worker::{Held, Plan, Work};
use crate::record::Outcome;

type Checked = Result<(), String>;

fn ensure(holds: bool, broken: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(broken()) }
}

/// Everything that is committed.
pub(crate) fn check_log(kafka: &Kafka, log: &Log) -> Checked {
    for (number, row) in log.streams.iter().enumerate() {
        check_stream(kafka, log, number, row)?;
    }
    check_events(kafka, log)?;
    check_runs(log)
}

/// I1 and I5: every offset below the stored one is accounted for, once, and the ledger says so.
fn check_stream(kafka: &Kafka, log: &Log, number: usize, row: &StreamRow) -> Checked {
    let name = format!("partition {} generation {}", row.partition, row.generation);
    let (mut appended, mut duplicates, mut dead_lettered, mut skipped) = (0, 0, 0, 0);
    for offset in row.start..row.next {
        let place = || format!("offset {offset} of {name}");
        let slot = kafka.slot(row.partition, offset);
        let is_event = log
            .events
            .values()
            .any(|e| (e.stream, e.offset) == (number, offset));
        let letter = log.letters.get(&(number, offset));
        match (slot, is_event, letter) {
            (Slot::Gap, false, None) => skipped += 1,
            (Slot::Gap, ..) => {
                return Err(format!(
                    "I2: {} holds no record, and is in the log",
                    place()
                ));
            }
            (_, true, None) => appended += 1,
            (_, true, Some(_)) => {
                return Err(format!("I1: {} is an event and a dead letter", place()));
            }
            (_, false, Some(reason)) => {
                let is_justified = is_justified(log, slot, row.generation > 1, *reason);
                ensure(is_justified, || {
                    format!("I1: {} is a dead letter for {reason}", place())
                })?;
                dead_lettered += 1;
            }
            (_, false, None) => {
                let is_duplicate = is_duplicate(log, slot, row.generation > 1);
                ensure(is_duplicate, || {
                    format!("I1: {} was read, and is lost", place())
                })?;
                duplicates += 1;
            }
        }
    }
    let found = (appended, duplicates, dead_lettered, skipped);
    let booked = (row.appended, row.duplicates, row.dead_lettered, row.skipped);
    ensure(found == booked, || {
        format!("I5: the ledger of {name} says {booked:?}, and it is {found:?}")
    })
}

fn is_duplicate(log: &Log, slot: Slot, is_read_again: bool) -> bool {
    let Some(Ok(event)) = slot.verdict(is_read_again) else {
        return false;
    };
    let held = slot.spec().and_then(|spec| with_key(log, spec));
    held.is_some_and(|(_, row)| Some(row.content) == event.content_digest())
}

fn is_justified(log: &Log, slot: Slot, is_read_again: bool, reason: Reason) -> bool {
    match (slot.verdict(is_read_again), slot.spec()) {
        (Some(Err(rejection)), _) => rejection.reason == reason,
        (Some(Ok(event)), Some(spec)) => match reason {
            Reason::Unstorable => matches!(slot, Slot::Unstorable(_)),
            Reason::IdempotencyConflict => with_key(log, spec)
                .is_some_and(|(_, row)| Some(row.content) != event.content_digest()),
            Reason::EventIdReused => log.events.iter().any(|((run, _), row)| {
                row.event_id == event.event_id
                    && (*run, row.key) != (spec.run_no(), event.idempotency_key)
            }),
            _ => false,
        },
        _ => false,
    }
}

/// The event of a run with a key.
fn with_key(log: &Log, spec: Spec) -> Option<(Place, &EventRow)> {
    let is_it = |((run, _), row): &(&Place, &EventRow)| {
        (*run, row.key) == (spec.run_no(), spec.idempotency_key())
    };
    log.events
        .iter()
        .find(is_it)
        .map(|(place, row)| (*place, row))
}

/// I2 and I3: each event is the record at its offset; no key, event id or record is there twice; and
/// of a partition's records with one key the first is it.
fn check_events(kafka: &Kafka, log: &Log) -> Checked {
    let (mut keys, mut ids, mut records) = (HashSet::new(), HashSet::new(), HashSet::new());
    for ((run, _), row) in &log.events {
        let stream = &log.streams[row.stream];
        let place = || format!("offset {} of partition {}", row.offset, stream.partition);
        let is_read = (stream.start..stream.next).contains(&row.offset);
        ensure(is_read, || {
            format!("I2: {} is in the log, and was not read", place())
        })?;
        let sent = kafka.slot(stream.partition, row.offset).spec();
        let is_sent = sent.is_some_and(|spec| {
            (spec.run_no(), spec.idempotency_key(), spec.event_id())
                == (*run, row.key, row.event_id)
        });
        ensure(is_sent, || {
            format!("I2: the event of {} was not sent", place())
        })?;
        ensure(keys.insert((run, row.key)), || {
            format!("I3: the key of {} is there twice", place())
        })?;
        ensure(ids.insert(row.event_id), || {
            format!("I3: the event id of {} is there twice", place())
        })?;
        let is_new = records.insert((stream.partition, row.offset));
        ensure(is_new, || format!("I3: {} is there twice", place()))?;
        for earlier in stream.start..row.offset {
            let same = kafka
                .slot(stream.partition, earlier)
                .spec()
                .is_some_and(|spec| (spec.run_no(), spec.idempotency_key()) == (*run, row.key));
            let letter = log.letters.contains_key(&(row.stream, earlier));
            ensure(!same || letter, || {
                format!("I3: {} came before its first offset {earlier}", place())
            })?;
        }
    }
    Ok(())
}

/// I4: runSeq is 1..n, in offset order within a generation, and the chain is unbroken.
fn check_runs(log: &Log) -> Checked {
    let mut heads: HashMap<i64, (i64, Digest)> = HashMap::new();
    let mut offsets: HashMap<(i64, usize), i64> = HashMap::new();
    for ((run, seq), row) in &log.events {
        let (before, chain) = heads.get(run).copied().unwrap_or((0, Digest::CHAIN_START));
        ensure(*seq == before + 1, || {
            format!("I4: run {run} has {seq} after {before}")
        })?;
        let emitted = run_events::Micros(0);
        let expected = chain_digest(chain, *seq, row.event_id, row.key, emitted, 1, row.content);
        ensure(row.chain == expected, || {
            format!("the chain of run {run} is broken at {seq}")
        })?;
        heads.insert(*run, (*seq, row.chain));
        if let Some(last) = offsets.insert((*run, row.stream), row.offset) {
            ensure(last < row.offset, || {
                format!("I4: run {run} has offset {} after {last}", row.offset)
            })?;
        }
    }
    Ok(())
}

/// I5 and append-only: nothing but a failover takes anything away.
pub(crate) fn check_transition(before: &Log, after: &Log) -> Checked {
    for (old, new) in before.streams.iter().zip(&after.streams) {
        ensure(old.next <= new.next, || {
            format!("I5: next_offset of partition {} fell", old.partition)
        })?;
    }
    let is_there = |(place, row): (&Place, &EventRow)| {
        after
            .events
            .get(place)
            .is_some_and(|now| now.chain == row.chain)
    };
    ensure(before.events.iter().all(is_there), || {
        "an event changed or went away".to_owned()
    })
}

/// Only the holder of the newest claim commits.
pub(crate) fn check_committer(log: &Log, held: &Held) -> Checked {
    let row = &log.streams[held.stream];
    ensure(row.is_open && row.claim == Some(held.token), || {
        format!("a zombie commits to partition {}", row.partition)
    })
}

/// What a worker will be told of its batch is what the log holds.
pub(crate) fn check_outcomes(
    kafka: &Kafka,
    log: &Log,
    held: &Held,
    batch: &BatchId,
    plan: &Plan,
    seen: &mut Seen,
) -> Checked {
    let writes = Writes::default();
    let view = View {
        log,
        writes: &writes,
    };
    for (record, outcome) in kafka.cut(batch).prepared.records.iter().zip(&plan.outcomes) {
        let offset = record.record.offset;
        let original = record.event.and_then(|e| {
            let run_no = super::worker::run_no(kafka.cut(batch), e.run);
            view.key(run_no, &e.event.idempotency_key)
        });
        let is_event = |seq: i64| {
            log.events.iter().any(|((_, run_seq), row)| {
                (row.stream, row.offset, *run_seq) == (held.stream, offset, seq)
            })
        };
        let letter = log.letters.get(&(held.stream, offset)).copied();
        let is_true = match outcome {
            Outcome::Appended { run_seq } => is_event(*run_seq),
            Outcome::Duplicate(told) => original.is_some_and(|o| o.original == *told),
            Outcome::Conflict(told) => {
                letter == Some(Reason::IdempotencyConflict)
                    && original.is_some_and(|o| o.original == *told)
            }
            Outcome::DeadLetter(reason) => letter == Some(*reason),
        };
        ensure(is_true, || {
            format!("the worker is told {outcome:?} of offset {offset}")
        })?;
        note(kafka, log, batch, offset, outcome, seen);
    }
    Ok(())
}

fn note(
    kafka: &Kafka,
    log: &Log,
    batch: &BatchId,
    offset: i64,
    outcome: &Outcome,
    seen: &mut Seen,
) {
    let slot = kafka.slot(batch.partition, offset);
    match outcome {
        Outcome::Duplicate(original) => {
            let held = log
                .events
                .values()
                .find(|row| row.event_id == original.event_id);
            let from = held.map(|row| &log.streams[row.stream]);
            let is_elsewhere = from.is_some_and(|row| row.partition != batch.partition);
            count(seen, "a duplicate");
            if is_elsewhere {
                count(seen, "a duplicate of an event from another partition");
            }
        }
        Outcome::Conflict(_) => count(seen, "a conflict"),
        Outcome::DeadLetter(Reason::EventIdReused) => count(seen, "a reused event id"),
        Outcome::Appended { .. } if matches!(slot, Slot::RefusedAtFirst(_)) => {
            count(
                seen,
                "a record that was refused is appended on the second reading",
            );
        }
        _ => {}
    }
    if batch.is_read_again {
        count(seen, "a record is read again after a rewind");
    }
}

/// Of a batch that was committed before, every record is somewhere (`committed::outcomes`).
pub(crate) fn check_recovered(kafka: &Kafka, log: &Log, stream: usize, batch: &BatchId) -> Checked {
    for record in &kafka.cut(batch).batch.records {
        let offset = record.offset;
        let slot = kafka.slot(batch.partition, offset);
        let is_event = log
            .events
            .values()
            .any(|e| (e.stream, e.offset) == (stream, offset));
        let is_there = is_event
            || log.letters.contains_key(&(stream, offset))
            || is_duplicate(log, slot, batch.is_read_again);
        ensure(is_there, || {
            format!("offset {offset} was committed before, and is nowhere")
        })?;
    }
    Ok(())
}

/// A schedule may end with offsets unread only where nobody is left to read them: no claim is left,
/// and the newest claim's holder is gone.
pub(crate) fn check_end(scenario: &Scenario, state: &State, seen: &mut Seen) -> Checked {
    let mut is_whole = true;
    for partition in 0..scenario.kafka.partitions() {
        let row = &state.log.streams[state.log.open_stream(partition)];
        let is_done = row.next == scenario.kafka.end(partition);
        is_whole &= is_done;
        let owns = |held: &Held| row.claim == Some(held.token);
        for worker in &state.workers {
            let stopped = matches!(worker.work, Work::Stopped(_));
            let is_owner = worker.partition == partition && worker.held.as_ref().is_some_and(owns);
            ensure(is_done || stopped || !is_owner, || {
                format!(
                    "I1: offset {} of partition {partition} is never read",
                    row.next
                )
            })?;
        }
    }
    if is_whole {
        count(seen, "everything was read");
        if state.left.faults < scenario.budget.faults {
            count(seen, "everything was read in spite of a fault");
        }
    }
    Ok(())
}
