//! `runlog verify --chain`: what is shown, and the exit codes. What is found is tested where it is found,
//! in `crates/event-log/tests/verify`.

use sqlx::Executor;

use crate::log::{append, bytes, event, project};
use crate::support::Place;

const TYPES: [&str; 3] = ["RunQueued", "RunStarted", "RunCompleted"];

/// A log of two runs, with three events each.
async fn place() -> Place {
    let place = Place::migrated().await;
    let events: Vec<_> = ["r1", "r2"]
        .into_iter()
        .flat_map(|run| TYPES.map(|event_type| event("acme", run, event_type)))
        .collect();
    append(&place, &bytes(&events)).await;
    place
}

/// Does what the log's triggers refuse, as a superuser can.
async fn tamper(place: &Place, statement: &'static str) {
    let mut connection = place.connection().await;
    for table in ["event", "run"] {
        let off = format!("ALTER TABLE event_log.{table} DISABLE TRIGGER USER");
        connection.execute(sqlx::AssertSqlSafe(off)).await.unwrap();
    }
    connection.execute(sqlx::raw_sql(statement)).await.unwrap();
}

#[tokio::test]
async fn an_untouched_log_is_verified_and_its_digest_is_always_the_same() {
    let place = place().await;
    let json = place
        .runlog(&["verify", "--chain", "-o", "json"])
        .done()
        .json();
    let digest = json["chain"]["digest"].as_str().unwrap().to_owned();
    assert_eq!(digest.len(), 64);
    let expected = serde_json::json!({"chain": {
        "runs": 2, "events": 6, "streams": 1, "seals": 0, "retired": 0, "erased": 0, "findings": 0, "digest": digest, "found": []
    }});
    assert_eq!(json, expected);
    let table = place
        .runlog(&["verify", "--chain", "--workers", "3"])
        .done();
    let stdout = table.stdout();
    let row = stdout.lines().nth(1).unwrap().split_whitespace();
    assert_eq!(
        row.collect::<Vec<_>>(),
        ["2", "6", "1", "0", "0", "0", "0", &digest]
    );
    let stderr = table.stderr();
    assert!(
        stderr.contains("6 events in ") && stderr.contains(" events/s"),
        "{stderr}"
    );
}

#[tokio::test]
async fn findings_are_lines_on_stderr_and_in_the_document_and_the_exit_code_is_1() {
    let place = place().await;
    project(&place, "acme", "r1", "COMPLETED").await;
    tamper(
        &place,
        "UPDATE read_model.run_current SET last_event_seq = 3;
         DELETE FROM event_log.event WHERE run_no = 1 AND run_seq = 3;
         UPDATE event_log.event SET payload = '{}' WHERE run_no = 2 AND run_seq = 2",
    )
    .await;
    let lines = [
        r#"tenant "acme" run "r2": runSeq 2: its content is not what was appended (content_digest)"#,
        r#"tenant "acme" run "r1": runSeq 3 is missing at the end: the read model has applied runSeq 3, and the log ends at 2"#,
        &format!(
            "{}/0 generation 1: by its ledger 6 events were appended, and the log has 5",
            place.topic
        ),
    ];
    let ran = place.runlog(&["verify", "--chain"]).ended(1);
    let stderr = ran.stderr();
    for line in lines {
        assert!(stderr.lines().any(|said| said == line), "{line}: {stderr}");
    }
    assert!(stderr.contains("Findings: 3."), "{stderr}");

    let json = place
        .runlog(&["verify", "--chain", "-o", "json"])
        .ended(1)
        .json();
    assert_eq!(json["chain"]["findings"], 3);
    let content = serde_json::json!({
        "kind": "content", "count": 1, "first": [{
            "tenant_id": "acme", "run_id": "r2", "at": 2,
            "what": "runSeq 2: its content is not what was appended (content_digest)",
        }],
    });
    assert_eq!(json["chain"]["found"][0], content);
    let kinds = json["chain"]["found"].as_array().unwrap().iter();
    let kinds: Vec<_> = kinds
        .map(|of_kind| of_kind["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["content", "tail", "ledger"]);
    let yaml = place.runlog(&["verify", "--chain", "-o", "yaml"]).ended(1);
    assert!(yaml.stdout().contains("kind: tail"), "{}", yaml.stdout());
}

#[tokio::test]
async fn a_run_that_is_gone_from_the_log_is_known_by_the_read_model() {
    let place = place().await;
    project(&place, "acme", "r1", "RUNNING").await;
    tamper(
        &place,
        "DELETE FROM event_log.event WHERE run_no = 1; DELETE FROM event_log.run WHERE run_no = 1",
    )
    .await;
    let stderr = place.runlog(&["verify", "--chain"]).ended(1).stderr();
    let line = "runSeq 1 is missing at the end: the read model has applied runSeq 1, and the log does not have the run";
    assert!(stderr.contains(line), "{stderr}");
}

#[tokio::test]
async fn the_log_and_the_read_models_are_verified_alone_or_together() {
    let place = place().await;
    let both = place
        .runlog(&["verify", "--chain", "--projections", "-o", "json"])
        .done()
        .json();
    assert_eq!(both["chain"]["runs"], 2);
    let alone = place
        .runlog(&["verify", "--projections", "-o", "json"])
        .done()
        .json();
    assert_eq!(alone.as_array().unwrap().len(), 3);
    assert_eq!(both["projections"], alone);
    let tables = place
        .runlog(&["verify", "--chain", "--projections"])
        .done()
        .stdout();
    assert!(
        tables.contains("STREAMS") && tables.contains("PROJECTION"),
        "{tables}"
    );
    // A difference counts, whatever the log is like.
    tamper(
        &place,
        "DELETE FROM event_log.event WHERE run_no = 1 AND run_seq = 2",
    )
    .await;
    place.runlog(&["verify", "--projections"]).done();
    place
        .runlog(&["verify", "--chain", "--projections"])
        .ended(1);
}

#[test]
fn one_of_both_is_required_and_only_belongs_to_projections() {
    let runlog = |arguments: &[&str]| {
        let program = env!("CARGO_BIN_EXE_runlog");
        let ran = std::process::Command::new(program).args(arguments).output();
        ran.unwrap().status.code()
    };
    assert_eq!(runlog(&["verify"]), Some(2));
    assert_eq!(
        runlog(&["verify", "--chain", "--only", "run_status"]),
        Some(2)
    );
    assert_eq!(runlog(&["verify", "--only", "run_status"]), Some(2));
}
