//! What somebody with a superuser's rights does who computes the chains and the ledger anew: only the
//! seals know. Each edit by itself, and every line that the verification of the log says of it.

use std::sync::Arc;

use event_log::seal::{ProofError, proof};
use event_log::verify::{self, verify};
use run_events::digest::{Content, chain_digest};
use run_events::{Digest, IdempotencyKey, json};
use sqlx::Row;

use crate::support::database::{Database, with_database};
use crate::{DAYS, log, run, seal_days, tamper};

const TABLES: [&str; 7] = [
    "event",
    "run",
    "stream",
    "seal",
    "sealed_head",
    "retired_run",
    "retired_events",
];

async fn said(database: &Database) -> Vec<String> {
    let found = verify(&database.options, 2, &Arc::new(verify::Progress::default()))
        .await
        .unwrap();
    let told = found.findings.by_kind().flat_map(|(_, _, first)| first);
    let mut told: Vec<String> = told.map(ToString::to_string).collect();
    told.sort_unstable();
    told
}

/// A sealed log, and a copy of it to go back to.
async fn sealed(database: &Database) {
    log(database).await;
    // Its times are years before those of its batches, which the ledger has: that is no finding.
    seal_days(database, &DAYS).await;
    for table in TABLES {
        run(
            database,
            &format!("CREATE TABLE saved_{table} AS TABLE event_log.{table}"),
        )
        .await;
    }
    assert_eq!(said(database).await, [""; 0]);
}

async fn put_back(database: &Database) {
    let back = TABLES.map(|table| {
        format!("TRUNCATE event_log.{table}; INSERT INTO event_log.{table} OVERRIDING SYSTEM VALUE TABLE saved_{table};")
    });
    tamper(database, &back.concat()).await;
}

/// Computes the digests of a run's events anew, as ingest does.
async fn rechain(database: &Database, run_id: &str) {
    let rows = sqlx::query(
        "SELECT e.*, e.payload::text AS text FROM event_log.event e JOIN event_log.run r USING (run_no)
         WHERE run_id = $1 ORDER BY run_seq",
    )
    .bind(run_id)
    .fetch_all(&database.pool)
    .await
    .unwrap();
    let mut chain = Digest::CHAIN_START;
    let mut updates = String::new();
    for row in rows {
        let payload: Option<String> = row.get("text");
        let payload = payload.map(|text| json::value(&text).unwrap());
        let content = Content {
            event_type: row.get("event_type"),
            step_id: row.get("step_id"),
            logical_attempt_id: row.get("logical_attempt_id"),
            plan_id: row.get("plan_id"),
            plan_version: row.get("plan_version"),
            project_id: row.get("project_id"),
            environment_id: row.get("environment_id"),
            payload: payload.as_ref().and_then(serde_json::Value::as_object),
        };
        let content = content.digest().unwrap();
        let emitted_at: chrono::DateTime<chrono::Utc> = row.get("emitted_at");
        let (run_no, run_seq): (i64, i64) = (row.get("run_no"), row.get("run_seq"));
        chain = chain_digest(
            chain,
            run_seq,
            row.get("event_id"),
            IdempotencyKey(row.get("idempotency_key")),
            emitted_at.into(),
            row.get("engine_attempt_id"),
            content,
        );
        updates += &format!(
            "UPDATE event_log.event SET content_digest = '\\x{content}', chain_digest = '\\x{chain}'
             WHERE run_no = {run_no} AND run_seq = {run_seq};"
        );
    }
    tamper(database, &updates).await;
}

/// Makes each edit, computes the run's chain anew where one is named, and compares all that is said.
async fn expect(database: &Database, edits: &[(&str, Option<&str>, &[&str])]) {
    for (edit, rechained, expected) in edits {
        let mut edit = (*edit).to_owned();
        for name in ["target", "moved", "other", "gone"] {
            let number = format!("(SELECT run_no FROM saved_run WHERE run_id = '{name}')");
            edit = edit.replace(&name.to_uppercase(), &number);
        }
        tamper(database, &edit).await;
        if let Some(run) = rechained {
            rechain(database, run).await;
        }
        let gone = database
            .number("SELECT run_no FROM saved_run WHERE run_id = 'gone'")
            .await;
        let mut expected: Vec<String> = expected
            .iter()
            .map(|line| line.replace("GONE", &gone.to_string()))
            .collect();
        expected.sort_unstable();
        assert_eq!(said(database).await, expected, "after {edit}");
        put_back(database).await;
    }
    assert_eq!(said(database).await, [""; 0]);
}

/// Of a ledger that has one event less.
const ONE_LESS: &str =
    "UPDATE event_log.stream SET appended = appended - 1, skipped = skipped + 1 WHERE partition =";

#[tokio::test]
async fn history_that_was_written_anew_with_its_chain_and_ledger_is_found_and_the_run_is_named() {
    const OF_4: &str = r#"tenant "acme" run "target": seal of 2001-01-02: sealed up to runSeq 4, and its events up to there, or its name, are others now"#;
    const OF_5: &str = r#"tenant "acme" run "target": seal of 2001-01-04: sealed up to runSeq 5, and its events up to there, or its name, are others now"#;
    const OF_2: &str = r#"tenant "acme" run "target": seal of 2001-01-01: sealed up to runSeq 2, and its events up to there, or its name, are others now"#;
    with_database(async |database| {
        sealed(&database).await;
        let two_less = format!("DELETE FROM event_log.event WHERE run_no = GONE; DELETE FROM event_log.run WHERE run_no = GONE; {ONE_LESS} 1");
        let tail = format!("DELETE FROM event_log.event WHERE run_no = TARGET AND run_seq = 5; {ONE_LESS} 1");
        let edits: [(&str, Option<&str>, &[&str]); 8] = [
            // An edited event.
            (r#"UPDATE event_log.event SET payload = '{"step": 7}' WHERE run_no = TARGET AND run_seq = 3"#, Some("target"), &[OF_4, OF_5]),
            ("UPDATE event_log.event SET emitted_at = emitted_at + interval '1 hour' WHERE run_no = TARGET AND run_seq = 1", Some("target"), &[OF_2, OF_4, OF_5]),
            // Events that changed places.
            ("UPDATE event_log.event e SET payload = o.payload, step_id = o.step_id, idempotency_key = sha256(o.idempotency_key)
              FROM event_log.event o WHERE e.run_no = TARGET AND o.run_no = TARGET AND (e.run_seq, o.run_seq) IN ((3, 4), (4, 3))",
             Some("target"), &[OF_4, OF_5]),
            // A tail.
            (&tail, Some("target"), &[r#"tenant "acme" run "target": seal of 2001-01-04: sealed up to runSeq 5, and the log has no event of it from that day"#]),
            // A whole run, and its row.
            (&two_less, None, &["run number GONE: seal of 2001-01-02: sealed up to runSeq 1, and the log has no event of it from that day"]),
            // Its name.
            ("UPDATE event_log.run SET run_id = 'renamed' WHERE run_no = OTHER", None, &[
                r#"tenant "umbrella" run "renamed": seal of 2001-01-02: sealed up to runSeq 1, and its events up to there, or its name, are others now"#,
                r#"tenant "umbrella" run "renamed": seal of 2001-01-04: sealed up to runSeq 2, and its events up to there, or its name, are others now"#]),
            // A time that keeps the order, over the end of the day.
            ("UPDATE event_log.event SET persisted_at = '2001-01-02Z' WHERE run_no = TARGET AND run_seq = 2", None, &[
                r#"tenant "acme" run "target": seal of 2001-01-01: sealed up to runSeq 2, and that day's events end at 1 now"#,
                r#"tenant "acme" run "target": seal of 2001-01-02: sealed with 2 events of that day, and the log has 3 now"#]),
            // An event that was invented, on a day without any, at an offset that is free.
            ("INSERT INTO event_log.run (tenant_id, run_id) VALUES ('acme', 'invented');
              INSERT INTO event_log.event SELECT r.run_no, 1, stream_id, source_offset + 1, emitted_at, '2001-01-03Z', gen_random_uuid(), 1, 1,
                idempotency_key, content_digest, chain_digest, e.tenant_id, event_type, project_id, environment_id, plan_id, plan_version, step_id, payload
              FROM event_log.event e, event_log.run r WHERE r.run_id = 'invented' AND e.run_no = TARGET AND e.run_seq = 4;
              UPDATE event_log.stream SET appended = appended + 1, skipped = skipped - 1 WHERE partition = 0",
             Some("invented"), &[r#"tenant "acme" run "invented": seal of 2001-01-03: the log has events of it from that day, and none were sealed"#]),
        ];
        expect(&database, &edits).await;
    })
    .await;
}

#[tokio::test]
async fn a_run_without_its_row_is_found_by_the_log_and_by_the_seals() {
    with_database(async |database| {
        sealed(&database).await;
        let what = "sealed up to runSeq 1; the log has events of it, and event_log.run does not have the run";
        let edits: [(&str, Option<&str>, &[&str]); 1] = [(
            "DELETE FROM event_log.run WHERE run_no = GONE",
            None,
            &[
                &format!("run number GONE: seal of 2001-01-02: {what}"),
                "run number GONE: the log has events of it, and event_log.run does not have the run",
            ],
        )];
        expect(&database, &edits).await;
    })
    .await;
}

#[tokio::test]
async fn seals_that_were_changed_are_found_and_named() {
    const LEAVES: &str = "seal of 2001-01-02: the leaves that are stored are not those that were sealed (event_log.sealed_head)";
    const NOT_ITS: &str = "seal of 2001-01-02: the seal is not what its digest was computed from";
    const NOT_AFTER: &str = "seal of 2001-01-03: it does not follow on the seal of 2001-01-02: seals were changed or are missing";
    const OTHER: &str = r#"tenant "umbrella" run "other": seal of 2001-01-02: sealed up to runSeq 1, and its events up to there, or its name, are others now"#;
    with_database(async |database| {
        sealed(&database).await;
        let edits: [(&str, Option<&str>, &[&str]); 8] = [
            ("UPDATE event_log.sealed_head SET leaf = sha256('x') WHERE day = '2001-01-02' AND run_no = OTHER", None, &[LEAVES, OTHER]),
            ("DELETE FROM event_log.sealed_head WHERE day = '2001-01-02' AND run_no = OTHER", None,
             &[LEAVES, r#"tenant "umbrella" run "other": seal of 2001-01-02: the log has events of it from that day, and none were sealed"#]),
            ("UPDATE event_log.seal SET events = events + 1 WHERE day = '2001-01-02'", None, &[
                NOT_ITS, NOT_AFTER, "seal of 2001-01-02: 6 events of 4 runs were sealed; the log has 5 of 4, with another root"]),
            ("UPDATE event_log.seal SET digest = sha256('x') WHERE day = '2001-01-02'", None, &[NOT_ITS]),
            ("UPDATE event_log.seal SET previous = sha256('x') WHERE day = '2001-01-02'", None, &[
                NOT_ITS, NOT_AFTER, "seal of 2001-01-02: it does not follow on the seal of 2001-01-01: seals were changed or are missing"]),
            ("UPDATE event_log.seal SET version = 2 WHERE day = '2001-01-02'", None,
             &["seal of 2001-01-02: its version is 2, and this program knows 1"]),
            ("DELETE FROM event_log.seal WHERE day = '2001-01-02'", None,
             &["seal of 2001-01-03: it does not follow on the seal of 2001-01-01: seals were changed or are missing"]),
            ("DELETE FROM event_log.seal WHERE day = '2001-01-01'", None, &["seal of 2001-01-02: the seals before it are missing"]),
        ];
        expect(&database, &edits).await;
    })
    .await;
}

#[tokio::test]
async fn who_computes_the_seals_anew_as_well_is_found_by_one_that_was_kept() {
    with_database(async |database| {
        sealed(&database).await;
        let kept = event_log::seal::seals(&mut database.pool.acquire().await.unwrap(), None).await.unwrap();
        tamper(&database, "UPDATE event_log.event SET payload = '{}' WHERE run_seq = 1; TRUNCATE event_log.seal, event_log.sealed_head").await;
        for run in ["target", "moved", "other", "gone"] {
            rechain(&database, run).await;
        }
        let anew = seal_days(&database, &DAYS).await;
        // The log is whole in itself.
        assert_eq!(said(&database).await, [""; 0]);
        for (kept, anew) in kept.iter().zip(anew) {
            assert_ne!(kept.written.digest, anew.digest());
        }
    })
    .await;
}

/// What retention leaves of the run `target`, up to one of its events.
fn tombstone(head_seq: i64) -> String {
    format!(
        "INSERT INTO event_log.retired_run
         SELECT e.run_no, r.tenant_id, r.run_id, {head_seq}, e.chain_digest, now(), now(), now(), 1, '3'
         FROM event_log.event e JOIN event_log.run r USING (run_no)
         WHERE r.run_id = 'target' AND e.run_seq = {head_seq};
         INSERT INTO event_log.retired_events
         SELECT run_no, stream_id, count(*) FROM event_log.event
         WHERE run_no = TARGET AND run_seq <= {head_seq} GROUP BY run_no, stream_id;
         DELETE FROM event_log.event WHERE run_no = TARGET;"
    )
    .replace("TARGET", "(SELECT run_no FROM saved_run WHERE run_id = 'target')")
}

#[tokio::test]
async fn a_run_that_was_retired_after_its_days_were_sealed_is_stood_for_by_its_tombstone() {
    with_database(async |database| {
        sealed(&database).await;
        tamper(&database, &tombstone(5)).await;
        assert_eq!(said(&database).await, [""; 0]);
        let mut connection = database.pool.acquire().await.unwrap();
        let proof = proof(&mut connection, "acme", "target", None).await;
        assert!(matches!(proof, Err(ProofError::Retired)), "{proof:?}");

        tamper(
            &database,
            "UPDATE event_log.retired_run SET chain_digest = sha256('x')",
        )
        .await;
        let told = said(&database).await;
        assert!(
            told.iter().any(|line| line.contains("seal")
                && line.contains("2001-01-04")
                && line.contains("target")),
            "{told:?}"
        );
        put_back(&database).await;

        tamper(&database, &tombstone(4)).await;
        let told = said(&database).await;
        assert!(
            told.iter()
                .any(|line| line.contains("2001-01-04") && line.contains("runSeq 5")),
            "{told:?}"
        );
    })
    .await;
}
