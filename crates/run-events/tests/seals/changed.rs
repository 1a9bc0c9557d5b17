//! A proof in which one thing was changed is refused; nothing that anybody writes makes the check panic.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{PROOF, check};

/// How a changed proof is refused: `None` = it is not.
fn refused(lines: &[String]) -> Option<String> {
    match check(lines.iter().map(String::as_str)) {
        Err(error) => Some(error.to_string()),
        Ok(checked) => checked.told.problems.first().cloned(),
    }
}

fn lines() -> Vec<String> {
    PROOF.lines().map(str::to_owned).collect()
}

/// Every value in this one with its place, from the outermost on.
fn places(value: &Value, place: String, all: &mut Vec<String>) {
    all.push(place.clone());
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                places(inner, format!("{place}/{key}"), all);
            }
        }
        Value::Array(items) => {
            for (at, inner) in items.iter().enumerate() {
                places(inner, format!("{place}/{at}"), all);
            }
        }
        _ => {}
    }
}

/// What may stand in the place of a value.
fn others(value: &Value) -> Vec<Value> {
    let mut others = vec![
        json!(null),
        json!(true),
        json!(0),
        json!(""),
        json!([]),
        json!({}),
        json!({"x": 1}),
    ];
    match value {
        Value::Number(number) => {
            let number = number.as_i64().unwrap();
            others.extend([
                json!(number + 1),
                json!(number - 1),
                json!(-number),
                json!(number as f64 + 0.5),
            ]);
            others.push(json!(number.to_string()));
        }
        Value::String(text) => {
            others.push(json!(format!("{text}x")));
            others.push(json!(format!(" {text}")));
            others.push(json!(text.to_uppercase()));
            others.push(json!(text.replace(['1', 'a'], "2")));
            others.push(json!(text.chars().rev().collect::<String>()));
        }
        Value::Array(items) => {
            others.push(json!(items.iter().rev().collect::<Vec<_>>()));
            others.push(json!(items.get(1..)));
            others.push(json!(
                [items.as_slice(), &items[..items.len().min(1)]].concat()
            ));
        }
        Value::Object(map) => {
            for key in map.keys() {
                let mut without = map.clone();
                without.remove(key);
                others.push(Value::Object(without));
            }
            let mut more = map.clone();
            more.insert("more".to_owned(), json!(1));
            others.push(Value::Object(more));
        }
        _ => {}
    }
    others.retain(|other| other != value);
    others
}

#[test]
fn every_value_that_is_changed_added_or_left_out_is_refused() {
    let mut tried = 0;
    for (at, line) in lines().iter().enumerate() {
        let whole: Value = serde_json::from_str(line).unwrap();
        let mut all = Vec::new();
        places(&whole, String::new(), &mut all);
        for place in all {
            for other in others(whole.pointer(&place).unwrap()) {
                let mut changed = whole.clone();
                *changed.pointer_mut(&place).unwrap() = other.clone();
                let mut proof = lines();
                proof[at] = changed.to_string();
                tried += 1;
                // That a content is withheld is no lie: it is told, and everything else still fits.
                if place == "/content" && other.is_null() {
                    let checked = check(proof.iter().map(String::as_str)).unwrap();
                    assert!(checked.fits());
                    assert!(checked.told.withheld.contains(&(at as i64)));
                } else {
                    assert!(refused(&proof).is_some(), "line {at}, {place}: {other}");
                }
            }
        }
    }
    // It did not pass for want of places.
    assert!(tried > 1_000, "{tried}");
}

#[test]
fn every_byte_that_is_changed_is_refused() {
    let proof = PROOF.trim_end().as_bytes();
    for at in 0..proof.len() {
        for mask in [0x01, 0x02, 0x20] {
            let mut changed = proof.to_vec();
            changed[at] ^= mask;
            // A program refuses what is not UTF-8 when it reads the file.
            if let Ok(text) = String::from_utf8(changed) {
                let lines: Vec<String> = text.split('\n').map(str::to_owned).collect();
                assert!(refused(&lines).is_some(), "byte {at}, {mask:#x}: {text}");
            }
        }
    }
}

#[test]
fn lines_that_are_left_out_repeated_or_moved_are_refused() {
    for at in 0..5 {
        let mut proof = lines();
        let line = proof.remove(at);
        assert!(refused(&proof).is_some(), "without line {at}");
        for to in (0..5).filter(|to| *to != at) {
            let mut proof = proof.clone();
            proof.insert(to, line.clone());
            assert!(refused(&proof).is_some(), "line {at} at {to}");
        }
        let mut proof = lines();
        proof.insert(at, line);
        assert!(refused(&proof).is_some(), "line {at} twice");
    }
    assert!(refused(&[]).is_some());
}

/// Changes a line's text, and compares all that is said.
fn expect(at: usize, from: &str, to: &str, expected: &[&str]) {
    let mut proof = lines();
    assert!(proof[at].contains(from), "{from}");
    proof[at] = proof[at].replacen(from, to, 1);
    let said = match check(proof.iter().map(String::as_str)) {
        Err(error) => vec![error.to_string()],
        Ok(checked) => checked.told.problems,
    };
    assert_eq!(said, expected, "{from} -> {to}");
}

#[test]
fn what_does_not_fit_is_named() {
    let path =
        "path: it does not lead from the run's last event to the root of the seal of 2026-01-01";
    let content = "event 2: its content or payload is not what content_digest was computed from";
    expect(2, r#""rows":1"#, r#""rows":2"#, &[content]);
    expect(2, "StepStarted", "StepFailed", &[content]);
    let chain =
        "chain at event 3: chain_digest does not follow from the event and the one before it";
    expect(
        3,
        r#""engine_attempt_id":3"#,
        r#""engine_attempt_id":4"#,
        &[chain],
    );
    expect(3, "00:00:00.000003Z", "00:00:00.000002Z", &[chain]);
    let chain =
        "chain at event 4: chain_digest does not follow from the event and the one before it";
    expect(
        4,
        r#""chain_digest":"9"#,
        r#""chain_digest":"8"#,
        &[chain, path],
    );
    expect(
        4,
        r#""run_seq":4"#,
        r#""run_seq":5"#,
        &[
            "event 5: it stands behind event 3",
            "chain at event 5: chain_digest does not follow from the event and the one before it",
            "the events end at runSeq 5, and 4 is what was sealed",
        ],
    );
    expect(
        0,
        r#""tenant_id":"acme""#,
        r#""tenant_id":"umbrella""#,
        &[path],
    );
    expect(0, r#""leaf_index":1"#, r#""leaf_index":0"#, &[path]);
    expect(0, r#""path":["2b"#, r#""path":["2c"#, &[path]);
    expect(
        0,
        r#""runs":7"#,
        r#""runs":8"#,
        &[
            "seal of 2026-01-01: it is not what its digest was computed from",
            "seal of 2026-01-02: it does not follow on that of 2026-01-01",
        ],
    );
    expect(
        0,
        r#""digest":"dd"#,
        r#""digest":"de"#,
        &["seal of 2026-01-02: it is not what its digest was computed from"],
    );
    expect(
        0,
        r#""run_seq":4"#,
        r#""run_seq":5"#,
        &["the events end at runSeq 4, and 5 is what was sealed"],
    );
    // These are no proof at all.
    expect(
        0,
        "proof v1",
        "proof v2",
        &[r#"the first line: format is no "runlog proof v1", which is what this version reads"#],
    );
    expect(
        0,
        r#""run_seq":4"#,
        r#""run_seq":0"#,
        &["the first line: run_seq is no whole number from 1"],
    );
    expect(
        0,
        "2026-01-02",
        "2026-1-2",
        &["a seal: day is no day as 2026-01-31"],
    );
    expect(
        1,
        r#""content_digest""#,
        r#""digest""#,
        &["the event: content_digest is missing"],
    );
    expect(
        1,
        "{",
        r#"{"x":1,"#,
        &[r#"the event: "x" is no field of it"#],
    );
    expect(
        1,
        ".000001Z",
        ".0000011Z",
        &["the event: emitted_at is no UTC time with six digits"],
    );
}

#[test]
fn many_problems_are_counted_and_the_first_are_told() {
    let mut proof = lines();
    let again = proof[2].clone();
    proof.extend(vec![again; 50]);
    let checked = check(proof.iter().map(String::as_str)).unwrap();
    assert_eq!(checked.told.problems.len(), 20);
    assert!(checked.told.problem_count > 50);
}

#[test]
fn deep_nesting_is_refused_and_not_followed() {
    for nested in ["[".repeat(100_000), r#"{"a":"#.repeat(100_000)] {
        assert!(refused(std::slice::from_ref(&nested)).is_some());
        let mut proof = lines();
        proof[2] = proof[2].replace(r#""rows":1"#, &format!(r#""rows":{nested}"#));
        assert!(refused(&proof).is_some());
    }
}

proptest! {
    #[test]
    fn no_line_makes_the_check_panic(
        line in ".*",
        at in 0..5_usize,
        from in 0..400_usize,
        length in 0..40_usize,
    ) {
        let _ = refused(std::slice::from_ref(&line));
        let mut proof = lines();
        proof[at] = line.clone();
        let _ = refused(&proof);
        let mut proof = lines();
        let chars: Vec<char> = proof[at].chars().collect();
        let cut = chars.iter().take(from).copied().chain(line.chars()).chain(chars.iter().skip(from + length).copied());
        proof[at] = cut.collect();
        let _ = refused(&proof);
    }
}
