//! The documented exit codes, and messages that say what to do.

use std::process::Stdio;

use crate::support::{Place, Ran};

/// A port of this host where nobody listens.
fn closed_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn ran(command: &mut std::process::Command) -> Ran {
    Ran::from(command.output().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_and_configuration_end_with_2() {
    let place = Place::migrated().await;
    place.runlog(&["no-such-command"]).ended(2);
    place.runlog(&["simulate", "--runs", "many"]).ended(2);
    let unknown = place
        .runlog(&["status", "--set", "ingest.wrters=2"])
        .ended(2);
    assert!(
        unknown.stderr().contains("did you mean ingest.writers"),
        "{}",
        unknown.stderr()
    );
    let missing = ran(place
        .command(&["migrate"])
        .env_remove("RUNLOG_DATABASE__URL"))
    .ended(2);
    assert!(
        missing.stderr().contains("RUNLOG_DATABASE__URL"),
        "{}",
        missing.stderr()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_ends_with_3_and_is_named() {
    let place = Place::migrated().await;
    let port = closed_port();
    let url = format!("postgres://someone:hidden-word@127.0.0.1:{port}/x");
    let postgres = ran(place
        .command(&["migrate", "--set", "database.connect_timeout=1s"])
        .env("RUNLOG_DATABASE__URL", url))
    .ended(3);
    assert!(
        postgres.stderr().contains(&port.to_string()),
        "{}",
        postgres.stderr()
    );
    assert!(
        !postgres.stderr().contains("hidden-word"),
        "{}",
        postgres.stderr()
    );
    // All at once: each gives a broker that may be slow its time.
    let started: Vec<_> = [&["status"][..], &["publish"], &["simulate", "--runs", "1"]]
        .into_iter()
        .map(|arguments| {
            let mut command = place.command(arguments);
            command
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .env(
                    "RUNLOG_KAFKA__BOOTSTRAP_SERVERS",
                    format!("127.0.0.1:{port}"),
                );
            command.spawn().unwrap()
        })
        .collect();
    for child in started {
        let kafka = Ran::from(child.wait_with_output().unwrap()).ended(3);
        let said = kafka.stderr();
        assert!(said.contains("RUNLOG_KAFKA__BOOTSTRAP_SERVERS"), "{said}");
        assert!(said.contains("Connection refused"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_not_there_ends_with_1_and_the_way_out() {
    let place = Place::migrated().await;
    for ran in [
        place.runlog_with(&["publish"], b"{}"),
        place.runlog(&["simulate", "--runs", "1"]),
    ] {
        let ran = ran.ended(1);
        assert!(ran.stderr().contains(&place.topic), "{}", ran.stderr());
        assert!(ran.stderr().contains("--create-topic"), "{}", ran.stderr());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_tells_a_good_place_from_a_bad_one() {
    let place = Place::with_topic(2).await;
    let verdict = |ran: &Ran, check: &str| {
        let checks = ran.json();
        let found = checks
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["check"] == check)
            .cloned();
        found.unwrap_or_else(|| panic!("no check {check}: {checks}"))["verdict"].clone()
    };
    let good = place.runlog(&["doctor", "-o", "json"]);
    for check in ["configuration", "PostgreSQL", "schema", "Kafka"] {
        assert_eq!(verdict(&good, check), "ok", "{check}");
    }
    assert_eq!(verdict(&good, &format!("topic {}", place.topic)), "ok");

    let bad = Place::empty().await;
    let bad_ran = bad.runlog(&["doctor", "-o", "json"]).ended(1);
    assert_eq!(verdict(&bad_ran, "schema"), "problem");
    assert_eq!(
        verdict(&bad_ran, &format!("topic {}", bad.topic)),
        "problem"
    );
    let misconfigured = bad
        .runlog(&["doctor", "-o", "json", "--set", "ingest.x=1"])
        .ended(1);
    assert_eq!(verdict(&misconfigured, "configuration"), "problem");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_is_shown_with_its_sources_and_without_secrets() {
    let place = Place::migrated().await;
    let url = "postgres://someone:hidden-word@127.0.0.1:1/x";
    let shown = ran(place
        .command(&["config", "show", "-o", "json"])
        .env("RUNLOG_DATABASE__URL", url));
    let shown = shown.done();
    assert!(
        !shown.stdout().contains("hidden-word"),
        "{}",
        shown.stdout()
    );
    let entries = shown.json();
    let entries = entries.as_array().unwrap();
    let source = |key: &str| {
        let entry = entries.iter().find(|entry| entry["key"] == key).unwrap();
        entry["source"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        source("database.url"),
        "environment variable RUNLOG_DATABASE__URL"
    );
    assert_eq!(source("ingest.writers"), "default");
    assert!(
        place
            .runlog(&["config", "show", "-o", "yaml"])
            .done()
            .stdout()
            .starts_with("- key: ")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_leaves_ends_the_program_quietly() {
    let place = Place::with_topic(1).await;
    let mut child = place
        .command(&["publish"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The summary is written when stdin ends, and by then nobody reads it.
    drop(child.stdout.take());
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
