//! Every edit of a run of nine events, and what is said of it.
#![allow(clippy::unwrap_used)]

use run_events::{Digest, IdempotencyKey, Micros};
use uuid::Uuid;

use super::run::{Event, RunCheck};

/// A run as it was appended.
fn run() -> Vec<Event> {
    let mut before = Digest::CHAIN_START;
    let mut events = Vec::new();
    for run_seq in 1..=9 {
        let content = Digest::of_canonical(&run_seq.into());
        let mut event = Event {
            run_seq,
            stream_id: 1,
            source_offset: 100 + run_seq,
            event_id: Uuid::from_u128(run_seq.unsigned_abs().into()),
            key: Some(IdempotencyKey([run_seq as u8; 32])),
            emitted_at: Micros(run_seq),
            engine_attempt_id: 1,
            content,
            content_digest: content,
            chain_digest: None,
            is_erased: false,
        };
        link(&mut event, before);
        before = event.chain_digest.unwrap();
        events.push(event);
    }
    events
}

/// Gives an event the chain digest that fits it.
fn link(event: &mut Event, before: Digest) {
    event.chain_digest = Some(run_events::digest::chain_digest(
        before,
        event.run_seq,
        event.event_id,
        event.key.unwrap(),
        event.emitted_at,
        event.engine_attempt_id,
        event.content_digest.unwrap(),
    ));
}

/// What is said of the run after an edit.
fn after(edit: impl FnOnce(&mut Vec<Event>)) -> Vec<String> {
    let mut events = run();
    edit(&mut events);
    let mut check = RunCheck::new();
    for event in &events {
        check.event(event);
    }
    check.end();
    check.faults.into_iter().map(|fault| fault.what).collect()
}

const OTHER: Option<Digest> = Some(Digest([7; 32]));
const BY_FIELDS: &str =
    "eventId, idempotencyKey, emittedAt or engineAttemptId is not what was appended (chain_digest)";

#[test]
fn an_untouched_run_is_well_and_its_head_is_the_last_event() {
    let mut check = RunCheck::new();
    assert_eq!(check.head(), (0, Some(Digest::CHAIN_START)));
    for event in &run() {
        check.event(event);
    }
    check.end();
    assert_eq!(check.faults, []);
    assert_eq!(check.head(), (9, run()[8].chain_digest));
}

#[test]
fn an_edited_content_is_told_from_an_edited_content_digest() {
    let content = "runSeq 5: its content is not what was appended (content_digest)";
    assert_eq!(after(|run| run[4].content = OTHER), [content]);
    assert_eq!(after(|run| run[4].content = None), [content]);
    let digest = "runSeq 5: content_digest is not what was appended; the content is";
    assert_eq!(after(|run| run[4].content_digest = OTHER), [digest]);
    assert_eq!(after(|run| run[4].content_digest = None), [digest]);
}

#[test]
fn an_edited_chain_field_is_told_from_an_edited_chain_digest() {
    let fields = [format!("runSeq 5: {BY_FIELDS}, or runSeq 4 was replaced")];
    assert_eq!(after(|run| run[4].event_id = Uuid::nil()), fields);
    assert_eq!(after(|run| run[4].key = None), fields);
    assert_eq!(
        after(|run| run[4].key = Some(IdempotencyKey([9; 32]))),
        fields
    );
    assert_eq!(after(|run| run[4].emitted_at = Micros(0)), fields);
    assert_eq!(after(|run| run[4].engine_attempt_id = 2), fields);
    let digest = ["runSeq 5: chain_digest is not what was appended; what it is made of is"];
    assert_eq!(after(|run| run[4].chain_digest = OTHER), digest);
    assert_eq!(after(|run| run[4].chain_digest = None), digest);
    // Nothing is before the first, and nothing after the last tells which it was.
    let first = [format!("runSeq 1: {BY_FIELDS}")];
    assert_eq!(after(|run| run[0].engine_attempt_id = 2), first);
    let last = ["the chain breaks between runSeq 8 and 9 (chain_digest)"];
    assert_eq!(after(|run| run[8].engine_attempt_id = 2), last);
    assert_eq!(after(|run| run[8].chain_digest = OTHER), last);
}

#[test]
fn edits_of_content_and_chain_are_both_told() {
    let said = after(|run| {
        run[4].content = OTHER;
        run[4].emitted_at = Micros(0);
    });
    let content = "runSeq 5: its content is not what was appended (content_digest)".to_owned();
    let fields = format!("runSeq 5: {BY_FIELDS}, or runSeq 4 was replaced");
    assert_eq!(said, [content.clone(), fields]);
    let said = after(|run| {
        run[4].content = OTHER;
        run[4].chain_digest = OTHER;
    });
    let digest = "runSeq 5: chain_digest is not what was appended; what it is made of is";
    assert_eq!(said, [content, digest.to_owned()]);
}

#[test]
fn an_event_that_was_replaced_with_its_digests_breaks_the_chain_behind_it() {
    let said = after(|run| {
        run[4].content = OTHER;
        run[4].content_digest = OTHER;
        let before = run[3].chain_digest.unwrap();
        link(&mut run[4], before);
    });
    let next = format!("runSeq 6: {BY_FIELDS}, or runSeq 5 was replaced");
    assert_eq!(said, [next]);
}

#[test]
fn events_that_changed_places_break_the_chain_at_each() {
    let said = after(|run| {
        run.swap(4, 5);
        (run[4].run_seq, run[5].run_seq) = (5, 6);
    });
    let breaks = [
        "the chain breaks between runSeq 4 and 5 (chain_digest)",
        "runSeq 6: its Kafka offset 105 is not above 106, that of runSeq 5",
        "the chain breaks between runSeq 5 and 6 (chain_digest)",
        "runSeq 7: eventId, idempotencyKey, emittedAt or engineAttemptId is not what was appended (chain_digest), \
         or runSeq 6 was replaced",
    ];
    let mut said = said;
    said.sort_unstable();
    let mut breaks = breaks.map(str::to_owned).to_vec();
    breaks.sort_unstable();
    assert_eq!(said, breaks);
}

#[test]
fn missing_events_are_named_and_those_behind_them_are_judged_again() {
    let without = |run_seq: i64| after(|run| run.retain(|event| event.run_seq != run_seq));
    assert_eq!(without(1), ["runSeq 1 is missing"]);
    assert_eq!(without(5), ["runSeq 5 is missing"]);
    let said = after(|run| {
        run.drain(3..6);
        run[3].content = OTHER;
        run[4].engine_attempt_id = 2;
    });
    let content = "runSeq 7: its content is not what was appended (content_digest)";
    let fields = format!("runSeq 8: {BY_FIELDS}, or runSeq 7 was replaced");
    assert_eq!(said, ["runSeq 4 to 6 are missing", content, &fields]);
    // What comes behind a hole cannot be judged, but no digest at all is wrong anywhere.
    let said = after(|run| {
        run.remove(4);
        run[4].chain_digest = None;
    });
    let breaks = "the chain breaks between runSeq 5 and 6 (chain_digest)";
    assert_eq!(said, ["runSeq 5 is missing", breaks]);
    // A doubt ends at a hole.
    let said = after(|run| {
        run.remove(4);
        run[3].engine_attempt_id = 2;
    });
    let breaks = "the chain breaks between runSeq 3 and 4 (chain_digest)";
    assert_eq!(said, [breaks, "runSeq 5 is missing"]);
}

#[test]
fn a_renumbered_run_breaks_where_the_event_was_taken_out() {
    let said = after(|run| {
        run.remove(4);
        for (event, run_seq) in run.iter_mut().zip(1..) {
            event.run_seq = run_seq;
        }
    });
    assert_eq!(said.len(), 4, "{said:?}");
    assert_eq!(
        said[0],
        "the chain breaks between runSeq 4 and 5 (chain_digest)"
    );
}

#[test]
fn offsets_rise_within_each_stream_and_only_there() {
    assert_eq!(
        after(|run| run[4].source_offset = 104),
        ["runSeq 5: its Kafka offset 104 is not above 104, that of runSeq 4"]
    );
    let others = after(|run| {
        for event in run.iter_mut().skip(4) {
            event.stream_id = 2;
            event.source_offset -= 100;
        }
    });
    assert_eq!(others, Vec::<String>::new());
}

#[test]
fn a_number_that_is_there_twice_or_is_none_is_named() {
    let said = after(|run| {
        let mut none = run[0].clone();
        none.run_seq = 0;
        run.insert(0, none);
        run.insert(5, run[4].clone());
    });
    let twice = |run_seq: i64| format!("runSeq {run_seq} is there twice, or below 1");
    assert_eq!(said, [twice(0), twice(4)]);
}
