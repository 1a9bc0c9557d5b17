//! Proofs of single runs.

use event_log::seal::{ProofError, proof};
use run_events::seal::proof::{Checked, Kept, ProofCheck};

use crate::support::database::{Database, with_database};
use crate::{DAYS, day, log, seal_days, tamper};

/// Writes a proof, and reads it as an outsider.
async fn proved(database: &Database, run: &str, of: Option<&str>) -> (Vec<String>, Checked) {
    let mut connection = database.pool.acquire().await.unwrap();
    let tenant = if run == "other" { "umbrella" } else { "acme" };
    let mut proof = proof(&mut connection, tenant, run, of.map(day))
        .await
        .unwrap();
    let mut lines = vec![proof.head.line()];
    let mut check = ProofCheck::begin(&lines[0]).unwrap();
    loop {
        let more = proof.lines(&mut connection).await.unwrap();
        if more.is_empty() {
            return (lines, check.end());
        }
        more.iter().for_each(|line| check.event(line).unwrap());
        lines.extend(more);
    }
}

#[tokio::test]
async fn a_proof_fits_by_any_later_seal_and_names_nobody_else() {
    with_database(async |database| {
        log(&database).await;
        let seals = seal_days(&database, &DAYS).await;
        // (run, day asked for, day found, runSeq)
        for (run, of, found, run_seq) in [
            ("target", None, DAYS[3], 5),
            ("target", Some(DAYS[1]), DAYS[1], 4),
            ("target", Some(DAYS[0]), DAYS[0], 2),
            // Its last day is not that of its last event.
            ("moved", None, DAYS[0], 3),
            ("moved", Some(DAYS[1]), DAYS[1], 2),
            ("other", None, DAYS[3], 2),
        ] {
            let (lines, checked) = proved(&database, run, of).await;
            assert_eq!(checked.told.problems, [""; 0], "{run}, {of:?}");
            assert_eq!(checked.told.withheld_count, 0);
            assert_eq!(
                (checked.head.run_seq, lines.len() as i64),
                (run_seq, run_seq + 1)
            );
            assert_eq!(checked.head.seals[0].seal.day, day(found));
            for seal in &seals {
                let is_there = seal.day >= day(found);
                let compared = checked.compare(&Kept::Digest(seal.digest()));
                assert_eq!(compared.ok(), is_there.then_some(seal.day), "{run}, {of:?}");
            }
            let whole = lines.concat();
            for name in ["target", "moved", "other", "gone", "acme", "umbrella"] {
                let of_run = name == run || name == checked.head.tenant_id;
                assert_eq!(whole.contains(name), of_run, "{name} in the proof of {run}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_not_sealed_is_not_proved() {
    with_database(async |database| {
        log(&database).await;
        let mut connection = database.pool.acquire().await.unwrap();
        let none = proof(&mut connection, "acme", "target", None).await;
        assert!(matches!(none, Err(ProofError::NotSealed { .. })), "{none:?}");
        seal_days(&database, &DAYS).await;
        for (tenant, run, of) in [("acme", "target", Some(DAYS[2])), ("umbrella", "target", None), ("acme", "x", None)] {
            let none = proof(&mut connection, tenant, run, of.map(day)).await;
            assert!(matches!(none, Err(ProofError::NotSealed { .. })), "{none:?}");
        }
        tamper(&database, "UPDATE event_log.sealed_head SET leaf = sha256('x') WHERE run_no = (SELECT run_no FROM event_log.run WHERE run_id = 'other')").await;
        let none = proof(&mut connection, "acme", "target", None).await;
        assert!(matches!(none, Err(ProofError::Changed { .. })), "{none:?}");
    })
    .await;
}

#[tokio::test]
async fn an_erased_payload_is_withheld_and_an_edit_is_shown() {
    with_database(async |database| {
        log(&database).await;
        seal_days(&database, &DAYS).await;
        let set = |what: &str| format!("UPDATE event_log.event SET {what} WHERE run_seq = 2 AND run_no = (SELECT run_no FROM event_log.run WHERE run_id = 'target')");
        tamper(&database, &set("payload = NULL")).await;
        let (lines, checked) = proved(&database, "target", None).await;
        assert_eq!(checked.told.problems, [""; 0]);
        assert_eq!((checked.told.withheld, checked.told.withheld_count), (vec![2], 1));
        assert!(lines[2].contains(r#""content":null"#), "{}", lines[2]);
        tamper(&database, &set(r#"payload = '{"step": 3}'"#)).await;
        let (_, checked) = proved(&database, "target", None).await;
        assert_eq!(checked.told.problems, ["event 2: its content or payload is not what content_digest was computed from"]);
        tamper(&database, "DELETE FROM event_log.event WHERE run_seq = 5").await;
        let (_, checked) = proved(&database, "target", None).await;
        assert_eq!(checked.told.problems[1], "the events end at runSeq 4, and 5 is what was sealed");
    })
    .await;
}
