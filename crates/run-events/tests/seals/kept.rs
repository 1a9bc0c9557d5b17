//! What an outsider kept, and a proof whose seals are compared with it.

use run_events::seal::proof::Kept;
use run_events::seal::read_seals;
use run_events::{Digest, IdempotencyKey};

use crate::{PROOF, check};

const SECOND: &str = "dd15f68de7eafe9b00a7e3e668711a76a142b9ff9b67c3c6ad89dd9f27f3d5ab";

/// The seals of the proof as an array, as a command writes them.
fn written(from: &str, to: &str) -> String {
    let head = PROOF.lines().next().unwrap();
    let seals = head
        .split_once(r#""seals":"#)
        .unwrap()
        .1
        .strip_suffix('}')
        .unwrap();
    seals
        .replace(
            r#""runs""#,
            r#""sealed_at":"2026-01-03T00:00:00.000000Z","runs""#,
        )
        .replace(from, to)
}

/// What the comparison with these seals says.
fn compare(kept: &str) -> Result<String, String> {
    let kept = Kept::Seals(read_seals(kept).unwrap());
    check(PROOF.lines())
        .unwrap()
        .compare(&kept)
        .map(|day| day.to_string())
}

#[test]
fn a_digest_that_was_kept_is_that_of_one_of_the_seals() {
    let checked = check(PROOF.lines()).unwrap();
    let digest = |hex: &str| Kept::Digest(Digest(IdempotencyKey::parse(hex).unwrap().0));
    assert_eq!(
        checked.compare(&digest(SECOND)).unwrap().to_string(),
        "2026-01-02"
    );
    let first = checked.head.seals[0].digest;
    assert_eq!(
        checked.compare(&Kept::Digest(first)).unwrap().to_string(),
        "2026-01-01"
    );
    let other = "ed15f68de7eafe9b00a7e3e668711a76a142b9ff9b67c3c6ad89dd9f27f3d5ab";
    let said = checked.compare(&digest(other)).unwrap_err();
    assert_eq!(
        said,
        format!(
            "{other} is the digest of none of the seals that the proof holds, 2026-01-01 to 2026-01-02"
        )
    );
}

#[test]
fn seals_that_were_kept_are_compared_by_day() {
    let whole = written("", "");
    assert_eq!(compare(&whole), Ok("2026-01-02".to_owned()));
    let one = format!(
        "{{{}",
        whole.rsplit_once('{').unwrap().1.trim_end_matches(']')
    );
    assert_eq!(compare(&one), Ok("2026-01-02".to_owned()));
    let said = compare(&written(r#""events":3"#, r#""events":4"#)).unwrap_err();
    assert_eq!(
        said,
        "the seal of 2026-01-02 that was kept is not what its digest was computed from"
    );
    assert!(
        compare("[]")
            .unwrap_err()
            .contains("none of the seals that were kept")
    );
}

#[test]
fn a_seal_of_the_same_day_with_another_digest_is_a_difference() {
    let head = PROOF.lines().next().unwrap();
    let mut seal = run_events::seal::proof::ProofHead::read(head)
        .unwrap()
        .seals[0]
        .seal;
    seal.events += 1;
    let kept = serde_json::to_string(&[seal]).unwrap();
    let said = compare(&kept).unwrap_err();
    assert!(
        said.starts_with("the seal of 2026-01-01 is 8c2ce1"),
        "{said}"
    );
    seal.day = "2020-02-29".parse().unwrap();
    let said = compare(&serde_json::to_string(&[seal]).unwrap()).unwrap_err();
    assert!(
        said.starts_with("none of the seals that were kept"),
        "{said}"
    );
}

#[test]
fn what_is_no_seal_is_not_read() {
    for text in [
        "",
        "null",
        "{}",
        "[1]",
        r#"{"seals": []}"#,
        &written("seal v1", "seal v2"),
        &written(":7", ":\"7\""),
    ] {
        assert!(read_seals(text).is_err(), "{text}");
    }
}
