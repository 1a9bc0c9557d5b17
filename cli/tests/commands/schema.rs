//! migrate and wait-schema.

use serde_json::json;

use crate::support::Place;

#[tokio::test(flavor = "multi_thread")]
async fn migrating_twice_applies_once() {
    let place = Place::empty().await;
    let first = place.runlog(&["migrate", "-o", "json"]).done().json();
    let applied = first["applied"].as_array().unwrap();
    assert!(!applied.is_empty());
    assert_eq!(applied[0]["version"], 1);
    let second = place.runlog(&["migrate", "-o", "json"]).done().json();
    assert_eq!(second, json!({"applied": []}));
    assert!(
        place
            .runlog(&["migrate"])
            .done()
            .stdout()
            .starts_with("Nothing to do")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_a_schema_ends_when_it_is_there() {
    let place = Place::empty().await;
    let late = place.runlog(&["wait-schema", "--timeout", "1s"]).ended(1);
    assert!(
        late.stderr().contains("runlog migrate"),
        "{}",
        late.stderr()
    );

    let waiting = place
        .command(&["wait-schema", "--timeout", "60s"])
        .stdout(std::process::Stdio::null())
        .spawn();
    place.runlog(&["migrate"]).done();
    assert!(waiting.unwrap().wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_without_its_schema_says_what_to_run() {
    let place = Place::empty().await;
    let ran = place.runlog(&["runs", "list", "--all-tenants"]).ended(1);
    assert!(ran.stderr().contains("runlog migrate"), "{}", ran.stderr());
}
