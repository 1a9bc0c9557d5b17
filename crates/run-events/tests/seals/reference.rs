//! The proof that `reference.py` wrote: it fits here, and is written here the same way.

use run_events::digest::Content;
use run_events::seal::proof::{ProofEvent, ProofHead};
use run_events::seal::{Head, Seal, merkle};
use run_events::{Digest, IdempotencyKey, Micros};
use serde_json::Map;
use uuid::Uuid;

use crate::{PROOF, check};

fn digest(hex: &str) -> Digest {
    Digest(IdempotencyKey::parse(hex).unwrap().0)
}

#[test]
fn the_reference_fits_and_says_what_it_holds() {
    let checked = check(PROOF.lines()).unwrap();
    assert_eq!(checked.told.problems, [""; 0]);
    assert!(checked.fits());
    assert_eq!(
        (checked.told.withheld, checked.told.withheld_count),
        (vec![3], 1)
    );
    let head = checked.head;
    assert_eq!(
        (head.tenant_id.as_str(), head.run_id.as_str(), head.run_seq),
        ("acme", "run ü", 4)
    );
    let days: Vec<String> = head
        .seals
        .iter()
        .map(|written| written.seal.day.to_string())
        .collect();
    assert_eq!(days, ["2026-01-01", "2026-01-02"]);
}

#[test]
fn a_head_and_an_event_are_written_as_the_reference_writes_them() {
    let mut lines = PROOF.lines();
    let first = lines.next().unwrap();
    assert_eq!(ProofHead::read(first).unwrap().line(), first);
    let empty = Map::new();
    for (line, run_seq, event_type, payload) in [
        (lines.next().unwrap(), 1, "RunStarted", None),
        (lines.nth(2).unwrap(), 4, "RunCompleted", Some(&empty)),
    ] {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let stored = |field: &str| digest(value[field].as_str().unwrap());
        let content = Content {
            event_type,
            step_id: None,
            logical_attempt_id: 1,
            plan_id: "plan",
            plan_version: "v1",
            project_id: "project",
            environment_id: "prod",
            payload,
        };
        let event = ProofEvent {
            run_seq,
            event_id: Uuid::from_u128(run_seq.unsigned_abs().into()),
            idempotency_key: IdempotencyKey(stored("idempotency_key").0),
            emitted_at: Micros(1_767_225_600_000_000 + run_seq),
            engine_attempt_id: run_seq as i32,
            content: Some(content),
            content_digest: content.digest().unwrap(),
            chain_digest: stored("chain_digest"),
        };
        assert_eq!(event.line(), line);
    }
}

#[test]
fn leaves_and_seals_are_the_documented_ones() {
    let head = Head {
        tenant_id: "acme",
        run_id: "run ü",
        run_seq: 4,
        events: 2,
        chain: digest("91260fcf5e813631215a802e74ec57f522dc90526cd925348a7bb24a102a7370"),
    };
    let of_reference = check(PROOF.lines()).unwrap().head;
    let (seal, path) = (of_reference.seals[0].seal, of_reference.path);
    assert_eq!(
        merkle::root_of_path(head.leaf(), 1, 7, &path),
        Some(seal.root)
    );
    for other in [
        Head {
            tenant_id: "acm",
            run_id: "erun ü",
            ..head
        },
        Head { run_seq: 3, ..head },
        Head { events: 3, ..head },
        Head {
            chain: Digest::CHAIN_START,
            ..head
        },
    ] {
        assert_ne!(other.leaf(), head.leaf());
    }
    let first = Seal {
        day: "2025-12-31".parse().unwrap(),
        runs: 0,
        events: 0,
        root: merkle::root(&[]),
        previous: Seal::FIRST,
    };
    assert_eq!(first.digest(), seal.previous);
    assert!(seal.follows(&first));
    let day_before = Seal {
        day: "2025-12-30".parse().unwrap(),
        ..first
    };
    assert!(!seal.follows(&day_before));
}
