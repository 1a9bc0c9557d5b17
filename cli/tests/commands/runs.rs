//! runs and events: scopes, pages, and what is found.

use serde_json::{Value, json};

use crate::log::{append, bytes, event, project};
use crate::support::Place;

/// Two tenants, each with a run; one name is shared.
async fn two_tenants() -> (Place, Vec<Value>) {
    let place = Place::migrated().await;
    let events = vec![
        event("acme", "run-a", "RunStarted"),
        event("acme", "run-a", "RunCompleted"),
        event("acme", "shared", "RunStarted"),
        event("globex", "run-g", "RunStarted"),
        event("globex", "shared", "RunStarted"),
    ];
    append(&place, &bytes(&events)).await;
    for (tenant, run, status) in [
        ("acme", "run-a", "COMPLETED"),
        ("acme", "shared", "RUNNING"),
        ("globex", "run-g", "RUNNING"),
        ("globex", "shared", "FAILED"),
    ] {
        project(&place, tenant, run, status).await;
    }
    (place, events)
}

fn names(listed: &Value) -> Vec<&str> {
    let rows = listed.as_array().unwrap().iter();
    let mut names: Vec<&str> = rows.filter_map(|row| row["run_id"].as_str()).collect();
    names.sort_unstable();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_reads_without_a_scope() {
    let place = Place::migrated().await;
    for line in [
        "runs list",
        "runs summary",
        "runs show run-a",
        "runs events run-a",
        "events find 0d3c6a9e-4f0c-4a8e-9d5d-3d4c0f7dbb8a",
        "dlq list",
        "dlq show 1",
    ] {
        let ran = place.runlog(&line.split(' ').collect::<Vec<_>>()).ended(2);
        assert!(
            ran.stderr().contains("--all-tenants"),
            "{line}: {}",
            ran.stderr()
        );
        assert_eq!(ran.stdout(), "", "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_holds_the_scopes_runs_and_no_others() {
    let (place, _) = two_tenants().await;
    let list = |scope: &[&str]| {
        let arguments = [&["runs", "list", "-o", "json"], scope].concat();
        place.runlog(&arguments).done().json()
    };
    assert_eq!(names(&list(&["--tenant", "acme"])), ["run-a", "shared"]);
    assert_eq!(names(&list(&["--tenant", "nobody"])), [""; 0]);
    assert_eq!(
        names(&list(&["--all-tenants"])),
        ["run-a", "run-g", "shared", "shared"]
    );
    assert_eq!(
        names(&list(&["--all-tenants", "--status", "running"])),
        ["run-g", "shared"]
    );
    assert_eq!(
        list(&["--all-tenants", "--limit", "1"])
            .as_array()
            .unwrap()
            .len(),
        1
    );

    let by_variable = place
        .command(&["runs", "list", "-o", "json"])
        .env("RUNLOG_TENANT", "globex")
        .output()
        .unwrap();
    let listed = serde_json::from_slice(&by_variable.stdout).unwrap();
    assert_eq!(names(&listed), ["run-g", "shared"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_summary_counts_by_status() {
    let (place, _) = two_tenants().await;
    let summary = place
        .runlog(&["runs", "summary", "--all-tenants", "-o", "json"])
        .done()
        .json();
    assert_eq!(
        summary,
        json!({"runs": 4, "runs_by_status": {"COMPLETED": 1, "FAILED": 1, "RUNNING": 2},
               "inconsistent_runs": 0})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_run_is_as_absent_as_one_that_is_not_there() {
    let (place, _) = two_tenants().await;
    for command in ["show", "events"] {
        let say = |run: &str| {
            let ran = place
                .runlog(&["runs", command, run, "--tenant", "acme"])
                .ended(1);
            assert_eq!(ran.stdout(), "");
            ran.stderr().replace(run, "RUN")
        };
        assert_eq!(say("run-g"), say("run-x"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_shown_and_a_name_that_two_tenants_have_must_be_told_apart() {
    let (place, _) = two_tenants().await;
    let shown = place
        .runlog(&["runs", "show", "run-a", "--tenant", "acme", "-o", "json"])
        .done()
        .json();
    assert_eq!(shown["run"]["status"], "COMPLETED");
    assert_eq!(
        (&shown["steps"], &shown["inconsistencies"]),
        (&json!([]), &json!([]))
    );
    let ran = place
        .runlog(&["runs", "show", "shared", "--all-tenants"])
        .ended(1);
    assert!(ran.stderr().contains("acme, globex"), "{}", ran.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_not_projected_yet_is_said_to_be_on_its_way() {
    let place = Place::migrated().await;
    append(&place, &bytes(&[event("acme", "run-a", "RunStarted")])).await;
    let ran = place
        .runlog(&["runs", "show", "run-a", "--tenant", "acme"])
        .ended(1);
    assert!(
        ran.stderr().contains("not yet in the read model"),
        "{}",
        ran.stderr()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_in_order_page_by_page() {
    let place = Place::migrated().await;
    let types = [
        "RunQueued",
        "RunStarted",
        "RunPaused",
        "RunResumed",
        "RunCompleted",
    ];
    let events: Vec<Value> = types
        .iter()
        .map(|name| event("acme", "run-a", name))
        .collect();
    append(&place, &bytes(&events)).await;
    let page = |after: &str| {
        let scope = [
            "--tenant", "acme", "--limit", "2", "--after", after, "-o", "json",
        ];
        place
            .runlog(&[&["runs", "events", "run-a"], &scope[..]].concat())
            .done()
            .json()
    };
    let mut seen = Vec::new();
    let mut after = json!(0);
    while !after.is_null() {
        let page = page(&after.to_string());
        seen.extend(page["events"].as_array().unwrap().clone());
        after = page["next_after"].clone();
    }
    let seqs: Vec<i64> = seen
        .iter()
        .filter_map(|event| event["run_seq"].as_i64())
        .collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5]);
    let found: Vec<&str> = seen
        .iter()
        .filter_map(|event| event["event_type"].as_str())
        .collect();
    assert_eq!(found, types);
    assert_eq!(seen[2]["payload"], json!({"type": "RunPaused"}));
    assert_eq!(seen[2]["source_offset"], 2);
    assert_eq!(seen[0]["emitted_at"], "2026-01-02T03:04:05.000000Z");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_found_by_id_and_by_key_within_the_scope_only() {
    let (place, events) = two_tenants().await;
    let find = |wanted: &str, scope: &[&str]| {
        let arguments = [&["events", "find", wanted, "-o", "json"], scope].concat();
        place.runlog(&arguments)
    };
    let id = events[1]["eventId"].as_str().unwrap();
    let key = events[1]["idempotencyKey"].as_str().unwrap();
    for wanted in [id, key, &id.to_uppercase()] {
        let found = find(wanted, &["--tenant", "acme"]).done().json();
        assert_eq!(found["appended"].as_array().unwrap().len(), 1);
        assert_eq!(found["appended"][0]["run_seq"], 2);
        assert_eq!(found["appended"][0]["source_offset"], 1);
        find(wanted, &["--tenant", "globex"]).ended(1);
    }
    // The same run name, plan and type derive the same key for both tenants.
    let shared = events[2]["idempotencyKey"].as_str().unwrap();
    let found = find(shared, &["--all-tenants", "--run", "shared"])
        .done()
        .json();
    assert_eq!(found["appended"].as_array().unwrap().len(), 2);
    find(shared, &["--all-tenants", "--run", "run-a"]).ended(1);
}
