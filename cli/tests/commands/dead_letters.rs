//! dlq: what was refused, with its bytes.

use serde_json::{Value, json};

use crate::log::{append, append_within, bytes, event};
use crate::support::Place;

const BINARY: &[u8] = b"\x00\xffnot text";

/// Three dead letters: text that is no JSON, bytes that are no text, and a tenant's conflict.
async fn letters() -> (Place, Value) {
    let place = Place::migrated().await;
    let good = event("acme", "run-a", "RunStarted");
    let mut conflict = good.clone();
    conflict["eventId"] = json!(uuid::Uuid::now_v7());
    conflict["payload"] = json!({"other": true});
    let mut values = bytes(&[good, conflict.clone()]);
    values.push(b"{\"half\": \x1b[31m".to_vec());
    values.push(BINARY.to_vec());
    append(&place, &values).await;
    (place, conflict)
}

fn list(place: &Place, more: &[&str]) -> Vec<Value> {
    let arguments = [&["dlq", "list", "-o", "json"], more].concat();
    place
        .runlog(&arguments)
        .done()
        .json()
        .as_array()
        .unwrap()
        .clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_oldest_first_by_scope_and_filter() {
    let (place, _) = letters().await;
    let all = list(&place, &["--all-tenants"]);
    let found: Vec<_> = all
        .iter()
        .map(|letter| {
            (
                letter["reason"].as_str().unwrap(),
                letter["source_offset"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("idempotency_conflict", 1),
            ("invalid_json", 2),
            ("invalid_json", 3)
        ]
    );
    assert_eq!(all[0]["tenant_id"], "acme");
    assert_eq!(all[1]["tenant_id"], Value::Null);
    assert_eq!(list(&place, &["--tenant", "acme"]).len(), 1);
    assert_eq!(list(&place, &["--tenant", "globex"]).len(), 0);
    assert_eq!(
        list(&place, &["--all-tenants", "--reason", "invalid_json"]).len(),
        2
    );
    assert_eq!(
        list(&place, &["--all-tenants", "--topic", "elsewhere"]).len(),
        0
    );
    let first = list(&place, &["--all-tenants", "--limit", "2"]);
    let after = first[1]["dead_letter_id"].to_string();
    assert_eq!(
        list(&place, &["--all-tenants", "--after", &after]),
        all[2..]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_is_shown_with_its_bytes_and_decoded_headers() {
    let (place, conflict) = letters().await;
    let ids: Vec<String> = list(&place, &["--all-tenants"])
        .iter()
        .map(|letter| letter["dead_letter_id"].to_string())
        .collect();
    let show = |id: &str, more: &[&str]| {
        place
            .runlog(&[&["dlq", "show", id, "--all-tenants"], more].concat())
            .done()
    };
    let shown = show(&ids[0], &["-o", "json"]).json();
    assert_eq!(shown["value"]["text"], json!(conflict.to_string()));
    assert_eq!(shown["key"]["text"], "the-key");
    assert_eq!(
        shown["headers"],
        json!([
            {"name": {"bytes": 11, "text": "traceparent"}, "value": {"bytes": 9, "text": "00-1-2-01"}},
            {"name": {"bytes": 2, "hex": "ff78"}, "value": null}
        ])
    );
    let binary = show(&ids[2], &["-o", "json"]).json();
    assert_eq!(binary["value"]["hex"], json!(hex::encode(BINARY)));
    assert_eq!(show(&ids[2], &["--raw"]).bytes(), BINARY);
    assert!(show(&ids[2], &[]).stdout().contains("00 ff 6e 6f"));
    // Escape sequences in a record must not reach a terminal.
    let text = show(&ids[1], &[]).stdout();
    assert!(
        text.contains("\\u{1b}[31m") && !text.contains('\u{1b}'),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_letter_that_was_cut_says_so_with_the_length_and_digest_of_the_whole_value() {
    let place = Place::migrated().await;
    let whole = vec![b'x'; 5_000];
    append_within(&place, &[whole.clone(), b"{".to_vec()], 0).await;
    let letters = list(&place, &["--all-tenants"]);
    let found: Vec<_> = letters
        .iter()
        .map(|letter| (&letter["truncated"], &letter["value_bytes"]))
        .collect();
    let (cut, bytes, small) = (json!(true), json!(5_000), json!(1));
    assert_eq!(found, [(&cut, &bytes), (&json!(false), &small)]);
    let listed = place.runlog(&["dlq", "list", "--all-tenants"]).done();
    assert!(listed.stdout().contains("5,000 (cut)"));
    let show = |id: &Value, more: &[&str]| {
        let id = id.to_string();
        let arguments = [&["dlq", "show", &id, "--all-tenants"], more].concat();
        place.runlog(&arguments).done()
    };
    // sha256sum of five thousand x.
    let digest = "c59d3c0480cc2d71d8f646e735e92da65450311eec46e81a5db8c7e6e8a92054";
    let id = &letters[0]["dead_letter_id"];
    let shown = show(id, &["-o", "json"]).json();
    assert_eq!(shown["value"]["bytes"], 1_024);
    assert_eq!(shown["value_digest"], json!(digest));
    let text = show(id, &[]).stdout();
    for part in [
        "the first 1,024 of 5,000 bytes",
        "5,000 (cut)",
        digest,
        "ingest.dead_letters.max_bytes_per_tenant",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let raw = show(id, &["--raw"]);
    assert_eq!(raw.bytes(), &whole[..1_024]);
    assert!(raw.stderr().contains("only the first KiB"));
    // One that is whole says nothing of the kind.
    let small = &letters[1]["dead_letter_id"];
    assert_eq!(show(small, &["--raw"]).stderr(), "");
    assert!(!show(small, &[]).stdout().contains("cut"));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_letter_is_as_absent_as_one_that_is_not_there() {
    let (place, _) = letters().await;
    let id = list(&place, &["--tenant", "acme"])[0]["dead_letter_id"].to_string();
    let say = |id: &str| {
        let ran = place
            .runlog(&["dlq", "show", id, "--tenant", "globex"])
            .ended(1);
        ran.stderr().replace(&format!(" {id} "), " ID ")
    };
    assert_eq!(say(&id), say("999999"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_event_is_found_among_the_dead_letters() {
    let (place, conflict) = letters().await;
    let id = conflict["eventId"].as_str().unwrap();
    let ran = place.runlog(&["events", "find", id, "--tenant", "acme", "-o", "json"]);
    let found = ran.done().json();
    assert_eq!(found["appended"], json!([]));
    assert_eq!(found["dead_letters"][0]["reason"], "idempotency_conflict");
}
