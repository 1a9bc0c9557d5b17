//! `runlog audit`: the commands as people use them. What seals find is tested where it is found, in
//! `crates/event-log/tests/seal`; what a changed proof is refused with, in `crates/run-events/tests/seals`.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sqlx::Executor;

use crate::log::{append, bytes, event};
use crate::support::{Place, Ran};

const TYPES: [&str; 3] = ["RunQueued", "RunStarted", "RunCompleted"];

/// A log of two tenants' runs with three events each, from 2001-01-01 to 2001-01-03, and a command line
/// that ends there: the days since then would be sealed, too.
async fn place() -> Place {
    let place = Place::migrated().await;
    let events: Vec<_> = [("acme", "r1"), ("umbrella", "r2")]
        .into_iter()
        .flat_map(|(tenant, run)| TYPES.map(|event_type| event(tenant, run, event_type)))
        .collect();
    append(&place, &bytes(&events)).await;
    tamper(
        &place,
        "UPDATE event_log.event SET persisted_at = '2001-01-01Z'::timestamptz + source_offset * interval '11 hours'",
    )
    .await;
    place
}

/// Does what the log's triggers refuse, as a superuser can.
async fn tamper(place: &Place, statement: &'static str) {
    let mut connection = place.connection().await;
    for table in ["event", "seal", "sealed_head"] {
        let off = format!("ALTER TABLE event_log.{table} DISABLE TRIGGER USER");
        connection.execute(sqlx::AssertSqlSafe(off)).await.unwrap();
    }
    connection.execute(sqlx::raw_sql(statement)).await.unwrap();
}

const SEAL: [&str; 4] = ["audit", "seal", "--until", "2001-01-03"];

fn json(arguments: &[&'static str]) -> Vec<&'static str> {
    [arguments, &["-o", "json"]].concat()
}

/// The command as an outsider runs it: there is no configuration, and no database.
fn check(arguments: &[&Path]) -> Ran {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_runlog"));
    command
        .args(["audit", "check", "-o", "json"])
        .args(arguments);
    command.env_clear().current_dir(std::env::temp_dir());
    Ran::from(command.output().unwrap())
}

/// Writes a file that goes when the test ends.
struct File(PathBuf);

impl File {
    fn new(bytes: &[u8]) -> Self {
        let name = format!("runlog-audit-{}", uuid::Uuid::now_v7().simple());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn days_are_sealed_once_listed_and_compared() {
    let place = place().await;
    let dry = place
        .runlog(&[&SEAL[..], &["--dry-run", "-o", "json"]].concat())
        .done()
        .json();
    assert_eq!(
        place.runlog(&json(&["audit", "list"])).done().json(),
        serde_json::json!([])
    );
    let sealed = place.runlog(&json(&SEAL)).done();
    assert!(sealed.stderr().contains("outside"), "{}", sealed.stderr());
    let sealed = sealed.json();
    let days: Vec<_> = sealed
        .as_array()
        .unwrap()
        .iter()
        .map(|seal| seal["day"].as_str().unwrap())
        .collect();
    assert_eq!(days, ["2001-01-01", "2001-01-02", "2001-01-03"]);
    let events: Vec<_> = sealed
        .as_array()
        .unwrap()
        .iter()
        .map(|seal| seal["events"].as_u64().unwrap())
        .collect();
    assert_eq!(events, [3, 2, 1]);
    for (dry, sealed) in dry
        .as_array()
        .unwrap()
        .iter()
        .zip(sealed.as_array().unwrap())
    {
        assert_eq!(dry["digest"], sealed["digest"]);
        assert_eq!(
            (dry["sealed_at"].is_null(), sealed["sealed_at"].is_string()),
            (true, true)
        );
    }
    assert_eq!(
        place.runlog(&json(&["audit", "list"])).done().json(),
        sealed
    );

    // Again there is nothing to do, and a day is what it was.
    let again = place.runlog(&SEAL).done();
    assert_eq!(again.stdout(), "Nothing to seal.\n");
    assert!(
        again
            .stderr()
            .contains("The next day to be sealed is 2001-01-04."),
        "{}",
        again.stderr()
    );
    let same = place
        .runlog(&json(&["audit", "seal", "--day", "2001-01-02"]))
        .done();
    assert_eq!(same.json()[0]["digest"], sealed[1]["digest"]);
    place
        .runlog(&["audit", "seal", "--day", "2000-12-31"])
        .ended(1);
    let later = place
        .runlog(&["audit", "seal", "--day", "2001-01-06"])
        .ended(1);
    assert!(
        later.stderr().contains("--until 2001-01-06"),
        "{}",
        later.stderr()
    );
    place
        .runlog(&["audit", "seal", "--day", "2001-01-04"])
        .done();
    let table = place.runlog(&["audit", "list"]).done().stdout();
    assert_eq!(table.lines().count(), 5, "{table}");
    let future = place
        .runlog(&["audit", "seal", "--until", "2999-01-01"])
        .ended(1);
    assert!(
        future
            .stderr()
            .contains("2999-01-01 can be sealed from 2999-01-02T00:10:00Z on"),
        "{}",
        future.stderr()
    );
}

#[tokio::test]
async fn history_that_has_changed_since_is_said_by_seal_and_by_verify() {
    let place = place().await;
    place.runlog(&SEAL).done();
    let well = place
        .runlog(&["verify", "--chain", "-o", "json"])
        .done()
        .json();
    assert_eq!(
        (&well["chain"]["seals"], &well["chain"]["findings"]),
        (&3.into(), &0.into())
    );
    // Within its stream the order of times is kept.
    tamper(
        &place,
        "UPDATE event_log.event SET persisted_at = '2001-01-02Z' WHERE source_offset = 2",
    )
    .await;
    let changed = place
        .runlog(&["audit", "seal", "--day", "2001-01-01"])
        .ended(1);
    let line =
        r#"tenant "acme" run "r1": sealed up to runSeq 3, and that day's events end at 2 now"#;
    assert!(
        changed.stderr().lines().any(|said| said == line),
        "{}",
        changed.stderr()
    );
    let verified = place
        .runlog(&["verify", "--chain", "-o", "json"])
        .ended(1)
        .json();
    let found = &verified["chain"]["found"];
    assert_eq!(
        (&found[0]["kind"], &found[0]["count"]),
        (&"seal_differs".into(), &2.into())
    );
    assert_eq!(
        (
            &found[0]["first"][0]["tenant_id"],
            &found[0]["first"][0]["run_id"]
        ),
        (&"acme".into(), &"r1".into())
    );

    tamper(
        &place,
        "DELETE FROM event_log.seal WHERE day = '2001-01-01'",
    )
    .await;
    for arguments in [
        &["audit", "list"][..],
        &["audit", "seal", "--until", "2001-01-04"],
    ] {
        let broken = place.runlog(arguments).ended(1);
        let line = "seal of 2001-01-02: the seals before it are missing";
        assert!(
            broken.stderr().lines().any(|said| said == line),
            "{}",
            broken.stderr()
        );
    }
    let verified = place
        .runlog(&["verify", "--chain", "-o", "json"])
        .ended(1)
        .json();
    let found = verified["chain"]["found"].as_array().unwrap();
    let chain = found
        .iter()
        .find(|of_kind| of_kind["kind"] == "seal_chain")
        .unwrap();
    assert_eq!(chain["first"][0]["day"], "2001-01-02");
}

#[tokio::test]
async fn an_outsider_checks_a_proof_with_a_seal_that_was_kept() {
    let place = place().await;
    let prove = ["audit", "prove", "r1", "--tenant", "acme"];
    place.runlog(&prove).ended(1);
    let seals = File::new(place.runlog(&json(&SEAL)).done().bytes());
    let kept: Value = serde_json::from_slice(&std::fs::read(&seals.0).unwrap()).unwrap();
    let digest = kept[2]["digest"].as_str().unwrap().to_uppercase();
    let proof = place.runlog(&prove).done();
    assert!(!proof.stdout().contains("umbrella"), "{}", proof.stdout());
    let file = File::new(proof.bytes());
    let seal = Path::new("--seal");

    let fits = check(&[&file.0, seal, &seals.0]).done().json();
    let expected = serde_json::json!({
        "fits": true, "tenant_id": "acme", "run_id": "r1", "run_seq": 3, "day": "2001-01-01",
        "kept": "2001-01-03", "withheld": 0, "problems": 0, "first": [],
    });
    assert_eq!(fits, expected);
    assert_eq!(
        check(&[&file.0, seal, Path::new(&digest)]).done().json()["kept"],
        "2001-01-03"
    );
    let alone = check(&[&file.0]).done();
    assert!(alone.json()["kept"].is_null());
    assert!(
        alone.stderr().contains("That proves nothing yet"),
        "{}",
        alone.stderr()
    );

    let other = "00".repeat(32);
    let differs = check(&[&file.0, seal, Path::new(&other)]).ended(1).json();
    assert!(
        differs["first"][0]
            .as_str()
            .unwrap()
            .contains("the digest of none of the seals"),
        "{differs}"
    );
    let changed = File::new(
        proof
            .stdout()
            .replacen("RunStarted", "RunFailed", 1)
            .as_bytes(),
    );
    let differs = check(&[&changed.0, seal, &seals.0]).ended(1);
    assert!(
        differs.stderr().contains("event 2: its content or payload"),
        "{}",
        differs.stderr()
    );
    assert_eq!(differs.json()["fits"], false);
    // Another tenant's run is answered as one that is not there.
    let foreign = place
        .runlog(&["audit", "prove", "r2", "--tenant", "acme"])
        .ended(1)
        .stderr();
    let absent = place
        .runlog(&["audit", "prove", "r3", "--tenant", "acme"])
        .ended(1)
        .stderr();
    assert_eq!(foreign.replace("r2", "r3"), absent);
    let day = place
        .runlog(&[
            "audit",
            "prove",
            "r1",
            "--tenant",
            "acme",
            "--day",
            "2001-01-02",
        ])
        .ended(1);
    assert!(
        day.stderr().contains("the run is in no seal of 2001-01-02"),
        "{}",
        day.stderr()
    );
}

#[tokio::test]
async fn a_log_that_is_not_what_was_sealed_gives_no_proof() {
    let place = place().await;
    place.runlog(&SEAL).done();
    tamper(
        &place,
        "UPDATE event_log.event SET payload = '{}' WHERE source_offset = 1",
    )
    .await;
    let ran = place
        .runlog(&["audit", "prove", "r1", "--tenant", "acme"])
        .ended(1);
    assert!(
        ran.stderr().contains("event 2: its content or payload"),
        "{}",
        ran.stderr()
    );
    assert!(
        ran.stderr().contains("runlog verify --chain"),
        "{}",
        ran.stderr()
    );
    tamper(
        &place,
        "UPDATE event_log.event SET payload = NULL WHERE source_offset = 1",
    )
    .await;
    let erased = place
        .runlog(&["audit", "prove", "r1", "--tenant", "acme"])
        .done();
    let file = File::new(erased.bytes());
    let checked = check(&[&file.0]).done();
    assert_eq!(checked.json()["withheld"], 1);
    assert!(
        checked
            .stderr()
            .contains("The content of 1 events is withheld, of [2] first"),
        "{}",
        checked.stderr()
    );
}

#[test]
fn what_is_no_proof_or_no_seal_ends_with_2() {
    let empty = File::new(b"");
    let binary = File::new(&[0xff, 0xfe]);
    let json = File::new(b"{}\n{}\n");
    let deep = File::new("[".repeat(1 << 20).as_bytes());
    let none = Path::new("/does/not/exist");
    for file in [
        &empty.0,
        &binary.0,
        &json.0,
        &deep.0,
        &std::env::temp_dir(),
        &none.to_owned(),
    ] {
        let ran = check(&[file]).ended(2);
        assert!(
            ran.stderr().contains("cannot be read as a proof"),
            "{}",
            ran.stderr()
        );
        assert!(ran.bytes().is_empty());
    }
    let ran = check(&[&json.0, Path::new("--seal"), &json.0]).ended(2);
    assert!(
        ran.stderr().contains("is no digest and no file of seals"),
        "{}",
        ran.stderr()
    );
    let ran = check(&[&json.0, Path::new("--seal"), none]).ended(2);
    assert!(
        ran.stderr().contains("is no digest and no file of seals"),
        "{}",
        ran.stderr()
    );
}
