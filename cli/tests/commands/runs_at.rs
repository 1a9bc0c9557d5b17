//! `runs show --at-seq` and `--at-time`: the state after every event of a run, with snapshots and without.

use event_log::read;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use run_events::snapshot::Snapshot;
use run_events::{Applied, Micros, RunState};
use serde_json::{Value, json};

use crate::log::{append, bytes, event};
use crate::support::{Place, Ran};

const RUN: &str = "hostile";

/// Any event of a run with two steps, so that many transitions are invalid; each has a key of its own.
fn any_event(random: &mut StdRng) -> Value {
    let types = [
        "RunStarted",
        "RunPaused",
        "RunResumed",
        "RunFailed",
        "RunNoted",
        "StepStarted",
        "StepCompleted",
        "StepFailed",
        "StepSkipped",
    ];
    let event_type = types[random.random_range(0..types.len())];
    let mut event = event("acme", RUN, event_type);
    if event_type.starts_with("Step") {
        event["stepId"] = json!(format!("step-{}", random.random_range(0..2)));
        event["logicalAttemptId"] = json!(random.random_range(1..3));
    }
    let key = [uuid::Uuid::now_v7(), uuid::Uuid::now_v7()].map(|id| id.simple().to_string());
    event["idempotencyKey"] = json!(key.concat());
    event["payload"] = json!({"error": {"code": 1e16, "exact": 9_007_199_254_740_993_u64}});
    event
}

/// What the log amounts to after one event.
struct After {
    persisted_at: Micros,
    state: RunState,
    /// The runSeqs of the invalid events up to it.
    invalid: Vec<i64>,
}

impl After {
    fn digest(&self) -> String {
        Snapshot::from(&self.state).digest().unwrap().to_string()
    }

    /// Compares what `runs show` says of it.
    fn assert_shown(&self, shown: &Value) {
        let state = &self.state;
        let seq = state.last_event_seq;
        let run = &shown["run"];
        assert_eq!(run["last_event_seq"], seq);
        assert_eq!(run["status"], state.status.as_str(), "runSeq {seq}");
        assert_eq!(run["consistency"], state.consistency(), "runSeq {seq}");
        assert_eq!(run["retries"], state.retries, "runSeq {seq}");
        assert_eq!(
            run["steps_failed"], state.step_counts.failed,
            "runSeq {seq}"
        );
        assert_eq!(
            run["error"].is_null(),
            state.error.is_none(),
            "runSeq {seq}"
        );
        assert_eq!(shown["at"]["run_seq"], seq);
        assert_eq!(shown["at"]["digest"], self.digest(), "runSeq {seq}");
        assert_eq!(shown["at"]["persisted_at"], self.persisted_at.to_string());
        let steps = shown["steps"].as_array().unwrap().iter();
        let mut steps: Vec<Value> = steps
            .map(|step| json!([step["step_id"], step["logical_attempt_id"], step["status"]]))
            .collect();
        steps.sort_by_key(Value::to_string);
        let attempts = state.steps.iter().flat_map(|(step_id, attempts)| {
            let shown = move |(id, attempt): (&i32, &run_events::StepAttempt)| {
                json!([step_id, id, attempt.status.as_str()])
            };
            attempts.iter().map(shown)
        });
        assert_eq!(steps, attempts.collect::<Vec<_>>(), "runSeq {seq}");
        let alerts = shown["inconsistencies"].as_array().unwrap().iter();
        let invalid: Vec<i64> = alerts
            .map(|alert| alert["run_seq"].as_i64().unwrap())
            .collect();
        assert_eq!(invalid, self.invalid, "runSeq {seq}");
    }
}

/// Every state of the run, folded from the log.
async fn states(place: &Place) -> Vec<After> {
    let mut connection = place.connection().await;
    let run_no = read::run_no(&mut connection, "acme", RUN)
        .await
        .unwrap()
        .unwrap();
    let events = read::run_events(&mut connection, run_no, 1, i64::MAX, i64::MAX)
        .await
        .unwrap();
    let mut state = RunState::before(&events[0].logged);
    let mut invalid = Vec::new();
    let mut states = Vec::new();
    for event in &events {
        if matches!(state.apply(&event.logged), Applied::Invalid(_)) {
            invalid.push(event.logged.run_seq);
        }
        states.push(After {
            persisted_at: event.logged.persisted_at,
            state: state.clone(),
            invalid: invalid.clone(),
        });
    }
    states
}

/// A run of any events whose clock goes back now and then, as two partitions' can.
async fn hostile_run() -> (Place, Vec<After>) {
    let place = Place::migrated().await;
    let mut random = StdRng::seed_from_u64(8);
    let events: Vec<Value> = (0..36).map(|_| any_event(&mut random)).collect();
    append(&place, &bytes(&events)).await;
    let clock = "ALTER TABLE event_log.event DISABLE TRIGGER ALL;
        UPDATE event_log.event SET persisted_at = timestamptz '2026-03-01 12:00Z'
          + (run_seq - CASE WHEN run_seq % 7 = 0 THEN 3 ELSE 0 END) * interval '1 second';
        ALTER TABLE event_log.event ENABLE TRIGGER ALL";
    sqlx::raw_sql(clock)
        .execute(&mut place.connection().await)
        .await
        .unwrap();
    let states = states(&place).await;
    assert!(states.last().unwrap().invalid.len() > 5);
    (place, states)
}

/// The read model has these snapshots of the run, and its inconsistencies so far, as a projector would
/// have written them.
async fn project_snapshots(place: &Place, states: &[After], at: &[usize]) {
    let mut connection = place.connection().await;
    for after in at.iter().map(|seq| &states[seq - 1]) {
        let snapshot = Snapshot::from(&after.state);
        sqlx::query(
            "INSERT INTO read_model.run_snapshot (tenant_id, run_id, run_seq, status, consistency, at_end,
               state, digest, persisted_at)
             VALUES ('acme', $1, $2, $3, $4, false, $5::jsonb, $6, $7)",
        )
        .bind(RUN)
        .bind(after.state.last_event_seq)
        .bind(after.state.status.as_str())
        .bind(after.state.consistency())
        .bind(serde_json::to_string(&snapshot).unwrap())
        .bind(snapshot.digest().unwrap().0)
        .bind(after.persisted_at.to_datetime())
        .execute(&mut connection)
        .await
        .unwrap();
    }
    let alerts = &states[at[at.len() - 1] - 1].invalid;
    sqlx::query(
        "INSERT INTO read_model.run_inconsistency (tenant_id, run_id, event_id, event_type, run_seq,
           persisted_at, prior_state, attempted_state, code, project_id, environment_id)
         SELECT tenant_id, run_id, event_id, event_type, run_seq, persisted_at, 'PENDING', 'RUNNING',
                'INVALID_TRANSITION', project_id, environment_id
         FROM event_log.run_events WHERE run_id = $1 AND run_seq = ANY ($2)",
    )
    .bind(RUN)
    .bind(alerts)
    .execute(&mut connection)
    .await
    .unwrap();
}

fn show(place: &Place, more: &[&str]) -> Ran {
    let arguments = ["runs", "show", RUN, "--tenant", "acme", "-o", "json"];
    place.runlog(&[&arguments, more].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_shown_as_it_was_after_each_event_without_a_snapshot_and_from_the_nearest_one() {
    let (place, states) = hostile_run().await;
    for snapshots in [[].as_slice(), &[1, 11, 29]] {
        if !snapshots.is_empty() {
            project_snapshots(&place, &states, snapshots).await;
        }
        for (seq, after) in (1..).zip(&states) {
            let shown = show(&place, &["--at-seq", &seq.to_string()]).done().json();
            after.assert_shown(&shown);
            let nearest = snapshots.iter().rev().find(|at| **at <= seq);
            let used = &shown["at"]["snapshot"];
            match nearest {
                None => assert_eq!(used, &Value::Null),
                Some(at) => assert_eq!(
                    used,
                    &json!({"run_seq": at, "digest": states[at - 1].digest()})
                ),
            }
            let folded = seq - nearest.copied().unwrap_or(0);
            assert_eq!(shown["at"]["events_folded"], folded);
            assert_eq!(shown["at"]["last_run_seq"], states.len());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_means_the_last_event_that_the_log_had_by_then() {
    let (place, states) = hostile_run().await;
    let first = states.iter().map(|after| after.persisted_at).min().unwrap();
    for second in 1..=37 {
        let time = Micros(first.0 + second * 1_000_000 - 500_000);
        let meant = states.iter().rev().find(|after| after.persisted_at <= time);
        let shown = show(&place, &["--at-time", &time.to_string()])
            .done()
            .json();
        meant.unwrap().assert_shown(&shown);
    }
    // Exactly then, by another offset.
    let shown = show(&place, &["--at-time", "2026-03-01T13:00:01+01:00"]).done();
    states[0].assert_shown(&shown.json());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_shown_is_said_with_what_can() {
    let (place, states) = hostile_run().await;
    let said = |code, more: &[&str]| {
        let ran = show(&place, more).ended(code);
        assert_eq!(ran.stdout(), "");
        ran.stderr()
    };
    assert!(
        said(1, &["--at-seq", "37"]).contains("36 events so far: --at-seq must be from 1 to 36")
    );
    assert!(said(2, &["--at-seq", "0"]).contains("its first one has runSeq 1"));
    let early = said(1, &["--at-time", "2026-03-01T12:00:00.999999Z"]);
    assert!(
        early.contains("persisted at 2026-03-01T12:00:01.000000Z"),
        "{early}"
    );
    assert!(said(2, &["--at-time", "yesterday"]).contains("RFC 3339"));
    said(2, &["--at-time", "2026-03-01T12:00:00Z", "--at-seq", "1"]);

    let scoped = |run: &str, tenant: &str| {
        let ran = place.runlog(&["runs", "show", run, "--tenant", tenant, "--at-seq", "1"]);
        ran.ended(1)
            .stderr()
            .replace(run, "RUN")
            .replace(tenant, "TENANT")
    };
    assert_eq!(scoped(RUN, "globex"), scoped("nowhere", "acme"));
    let ran = place
        .runlog(&["runs", "show", RUN, "--at-seq", "1"])
        .ended(2);
    assert!(ran.stderr().contains("--all-tenants"), "{}", ran.stderr());

    project_snapshots(&place, &states, &[11]).await;
    let changed =
        "UPDATE read_model.run_snapshot SET state = jsonb_set(state, '{status}', '\"CANCELLED\"')";
    sqlx::raw_sql(changed)
        .execute(&mut place.connection().await)
        .await
        .unwrap();
    let words = said(1, &["--at-seq", "12"]);
    assert!(
        words.contains("snapshot") && words.contains("runlog rebuild run_status"),
        "{words}"
    );
    // Before it, nothing of it is needed.
    states[9].assert_shown(&show(&place, &["--at-seq", "10"]).done().json());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_names_the_event_the_snapshot_and_the_digest() {
    let (place, states) = hostile_run().await;
    project_snapshots(&place, &states, &[11]).await;
    let line = ["runs", "show", RUN, "--all-tenants", "--at-seq", "13"];
    let table = place.runlog(&line).done().stdout();
    for part in [
        "runSeq 13 of 36, 2026-03-01T12:00:13.000000Z",
        "the snapshot at runSeq 11, 2 events on",
        states[12].digest().as_str(),
    ] {
        assert!(table.contains(part), "{part}: {table}");
    }
}
