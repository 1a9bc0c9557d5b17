//! What must hold for every event, every record and every sequence of events.
#![allow(clippy::unwrap_used, clippy::panic)]

mod generators;

use std::collections::BTreeMap;

use generators::{any_sequence, damages, history, valid_event};
use proptest::prelude::*;
use run_events::json::{decode, encode};
use run_events::run_state::StepCounts;
use run_events::snapshot::Snapshot;
use run_events::{
    Applied, Digest, EventType, IdempotencyKey, LoggedEvent, Micros, RunEvent, RunState,
    StepAttempt, StepStatus,
};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

fn fold(events: &[LoggedEvent]) -> RunState {
    let mut state = RunState::before(&events[0]);
    for event in events {
        state.apply(event);
    }
    state
}

fn digest(state: &RunState) -> Digest {
    Snapshot::from(state).digest().unwrap()
}

/// The counters as the contract defines them, counted from all steps at once.
fn recounted(state: &RunState) -> (StepCounts, i64) {
    let mut counts = StepCounts::default();
    let mut retries = 0;
    for attempts in state.steps.values() {
        let (_, highest) = attempts.last_key_value().unwrap();
        match highest.status {
            StepStatus::Pending => panic!("an attempt without a valid event"),
            StepStatus::Running => counts.running += 1,
            StepStatus::Success => counts.succeeded += 1,
            StepStatus::Failed => counts.failed += 1,
            StepStatus::Skipped => counts.skipped += 1,
        }
        retries += attempts.len() as i64 - 1;
    }
    (counts, retries)
}

fn finished(attempt: &StepAttempt) -> bool {
    matches!(
        attempt.status,
        StepStatus::Success | StepStatus::Failed | StepStatus::Skipped
    )
}

proptest! {
    #[test]
    fn the_fold_takes_any_sequence_without_a_panic_and_says_what_it_did(events in any_sequence()) {
        let mut state = RunState::before(&events[0]);
        for event in &events {
            let before = state.clone();
            let applied = state.apply(event);
            let is_next = before.last_event_seq.checked_add(1) == Some(event.run_seq);
            match applied {
                Applied::Already => prop_assert!(event.run_seq <= before.last_event_seq),
                Applied::Gap { next } => {
                    prop_assert!(event.run_seq > next);
                    prop_assert_eq!(next, before.last_event_seq + 1);
                }
                _ => prop_assert!(is_next),
            }
            // An event that is not valid leaves everything as it was, but for the two marks.
            let mut expected = before;
            match applied {
                Applied::Valid => expected = state.clone(),
                Applied::Opaque => expected.last_event_seq = event.run_seq,
                Applied::Invalid(_) => {
                    expected.last_event_seq = event.run_seq;
                    expected.inconsistent = true;
                }
                Applied::Already | Applied::Gap { .. } => {}
            }
            prop_assert_eq!(&state, &expected);
            for duration in [state.queue_wait_ms(), state.wall_ms()].into_iter().flatten() {
                prop_assert!(duration >= 0);
            }
            prop_assert!(state.active_ms() >= 0 && state.paused_ms() >= 0);
            let _ = (state.sort_at(), state.emitted_wall_ms());
            for attempt in state.steps.values().flat_map(BTreeMap::values) {
                prop_assert!(attempt.duration_ms().is_none_or(|ms| ms >= 0));
            }
            prop_assert!(Snapshot::from(&state).digest().is_some());
        }
    }

    #[test]
    fn terminal_states_never_change(events in history()) {
        let mut state = RunState::before(&events[0]);
        for event in &events {
            let before = state.clone();
            state.apply(event);
            if before.status.is_terminal() {
                prop_assert_eq!(state.status, before.status);
                prop_assert_eq!(state.ended_at, before.ended_at);
                prop_assert_eq!(state.emitted_ended_at, before.emitted_ended_at);
                prop_assert_eq!(state.active_micros, before.active_micros);
                prop_assert_eq!(state.paused_micros, before.paused_micros);
                prop_assert_eq!(&state.error, &before.error);
            }
            for (step_id, attempts) in &before.steps {
                for (id, attempt) in attempts.iter().filter(|(_, attempt)| finished(attempt)) {
                    prop_assert_eq!(&state.steps[step_id][id], attempt);
                }
            }
            prop_assert!(state.inconsistent >= before.inconsistent);
        }
    }

    #[test]
    fn the_counters_are_what_a_recount_of_all_steps_gives(events in history()) {
        let mut state = RunState::before(&events[0]);
        for event in &events {
            state.apply(event);
            prop_assert_eq!((state.step_counts, state.retries), recounted(&state));
        }
    }

    #[test]
    fn a_fold_cut_anywhere_and_resumed_from_its_snapshots_text_equals_the_whole(
        events in history(),
    ) {
        let whole = fold(&events);
        let whole_digest = digest(&whole);
        let mut prefix = RunState::before(&events[0]);
        for cut in 0..=events.len() {
            let snapshot = Snapshot::from(&prefix);
            let text = serde_json::to_string(&snapshot).unwrap();
            let mut resumed = RunState::from(Snapshot::from_json(&text).unwrap());
            prop_assert_eq!(&resumed, &prefix);
            // The canonical text has other numbers in its errors (1.0 is 1), never another digest.
            let text = serde_json_canonicalizer::to_string(&snapshot).unwrap();
            let mut canonical = RunState::from(Snapshot::from_json(&text).unwrap());
            for event in &events[cut..] {
                let applied = resumed.apply(event);
                let was_next = !matches!(applied, Applied::Already | Applied::Gap { .. });
                prop_assert!(was_next, "{:?}", applied);
                canonical.apply(event);
            }
            prop_assert_eq!(&resumed, &whole);
            prop_assert_eq!(digest(&resumed), whole_digest);
            prop_assert_eq!(digest(&canonical), whole_digest);
            if let Some(event) = events.get(cut) {
                prefix.apply(event);
            }
        }
    }

    #[test]
    fn a_fold_that_loads_only_the_touched_step_equals_the_whole(events in history()) {
        let mut whole = RunState::before(&events[0]);
        let mut stored = RunState::before(&events[0]);
        let mut stored_steps: BTreeMap<String, BTreeMap<i32, StepAttempt>> = BTreeMap::new();
        for event in &events {
            let touched = event.event.step_id.as_ref();
            let loaded = touched.and_then(|id| stored_steps.get_key_value(id));
            stored.steps = loaded.map(|(id, attempts)| (id.clone(), attempts.clone())).into_iter().collect();
            prop_assert_eq!(stored.apply(event), whole.apply(event));
            // As a projector does it: the touched rows are written back, nothing else is kept.
            stored_steps.append(&mut stored.steps);
            let mut scalars = whole.clone();
            scalars.steps.clear();
            prop_assert_eq!(&stored, &scalars);
            prop_assert_eq!(&stored_steps, &whole.steps);
        }
    }

    #[test]
    fn applying_a_prefix_again_changes_nothing(events in history()) {
        let mut state = RunState::before(&events[0]);
        for (index, event) in events.iter().enumerate() {
            state.apply(event);
            let once = state.clone();
            for again in &events[..=index] {
                prop_assert_eq!(state.apply(again), Applied::Already);
            }
            prop_assert_eq!(&state, &once);
        }
    }

    #[test]
    fn decode_of_encode_is_the_identity(event in valid_event()) {
        let bytes = encode(&event);
        let decoded = decode(&bytes).unwrap_or_else(|e| panic!("{e}"));
        prop_assert_eq!(decoded.unknown_fields, 0);
        prop_assert_eq!(decoded.event.content_digest(), event.content_digest());
        prop_assert!(event.content_digest().is_some());
        // Equality of doubles would take -0.0 for 0.0; the bytes do not.
        prop_assert_eq!(encode(&decoded.event), bytes);
        prop_assert_eq!(decoded.event, event);
    }

    #[test]
    fn a_payload_is_read_back_from_its_own_text(event in valid_event()) {
        let payload = event.payload.map_or(Value::Null, Value::Object);
        let text = serde_json::to_string(&payload).unwrap();
        prop_assert_eq!(run_events::json::value(&text).unwrap(), payload);
    }

    #[test]
    fn decode_takes_any_bytes_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_answer(&bytes)?;
    }

    #[test]
    fn decode_takes_damaged_records_without_a_panic(
        event in valid_event(),
        damages in damages(),
    ) {
        let mut bytes = encode(&event);
        for damage in &damages {
            damage.apply(&mut bytes);
        }
        check_answer(&bytes)?;
    }

    #[test]
    fn the_content_digest_is_that_of_the_canonical_form_as_others_write_it(event in valid_event()) {
        let content = json!({
            "eventType": event.event_type.as_str(),
            "stepId": event.step_id,
            "logicalAttemptId": event.logical_attempt_id,
            "planId": event.plan_id,
            "planVersion": event.plan_version,
            "projectId": event.project_id,
            "environmentId": event.environment_id,
            "payload": event.payload,
        });
        let canonical = serde_json_canonicalizer::to_vec(&content).unwrap();
        let digest = Digest(Sha256::digest(canonical).into());
        prop_assert_eq!(event.content_digest().unwrap(), digest);
        prop_assert_eq!(Digest::of_canonical(&content).unwrap(), digest);
    }

    #[test]
    fn a_key_is_what_hex_reads_of_lower_case_digits(
        bytes in any::<[u8; 32]>(),
        at in 0..64_usize,
        other in any::<char>(),
    ) {
        let text = hex::encode(bytes);
        prop_assert_eq!(IdempotencyKey::parse(&text), Some(IdempotencyKey(bytes)));
        let changed: String = text.chars().enumerate().map(|(i, c)| if i == at { other } else { c }).collect();
        let lower_case = !changed.contains(char::is_uppercase);
        let read = hex::decode(&changed).ok().filter(|_| lower_case);
        prop_assert_eq!(IdempotencyKey::parse(&changed).map(|key| key.0.to_vec()), read);
    }

    #[test]
    fn a_retry_has_the_same_content_and_any_other_content_another_digest(
        event in valid_event(),
        id in any::<u128>(),
    ) {
        let content = event.content_digest().unwrap();
        let retry = RunEvent {
            event_id: Uuid::from_u128(id),
            emitted_at: Micros(0),
            engine_attempt_id: 77,
            ..event.clone()
        };
        prop_assert_eq!(retry.content_digest().unwrap(), content);
        for (field, change) in CONTENT_CHANGES {
            let mut other = event.clone();
            change(&mut other);
            prop_assert_ne!(other.content_digest().unwrap(), content, "{}", field);
        }
    }
}

type Change = fn(&mut RunEvent);

const CONTENT_CHANGES: [(&str, Change); 8] = [
    ("eventType", |e| {
        e.event_type = EventType::Unknown(format!("{}x", e.event_type));
    }),
    ("stepId", |e| {
        e.step_id = match &e.step_id {
            Some(_) => None,
            None => Some("RUN".to_owned()),
        };
    }),
    ("logicalAttemptId", |e| e.logical_attempt_id ^= 1),
    ("planId", |e| e.plan_id.push('x')),
    ("planVersion", |e| e.plan_version.push('x')),
    ("projectId", |e| e.project_id.push('x')),
    ("environmentId", |e| e.environment_id.push('x')),
    ("payload", |e| {
        let payload = e.payload.get_or_insert_with(Map::new);
        let other = payload.get("other").is_none();
        payload.insert("other".to_owned(), Value::Bool(other));
    }),
];

/// Whatever the bytes: a good event is one that can be appended, a rejection one that can be stored.
fn check_answer(bytes: &[u8]) -> Result<(), TestCaseError> {
    match decode(bytes) {
        Ok(decoded) => {
            let event = decoded.event;
            prop_assert!(event.content_digest().is_some());
            let again = decode(&encode(&event)).unwrap_or_else(|e| panic!("{e}"));
            prop_assert_eq!(again.event, event);
        }
        Err(rejection) => {
            prop_assert!(!rejection.detail.is_empty());
            prop_assert!(rejection.detail.len() <= run_events::Rejection::MAX_DETAIL_BYTES);
            prop_assert!(!rejection.detail.chars().any(char::is_control));
            for id in [&rejection.tenant_id, &rejection.run_id]
                .into_iter()
                .flatten()
            {
                prop_assert!((1..=256).contains(&id.len()) && !id.chars().any(char::is_control));
            }
            prop_assert!(!rejection.run_id.is_some_and(|id| id.contains('|')));
        }
    }
    Ok(())
}
