//! What the rows say.

use serde_json::{Value, json};

use crate::logs;
use crate::support::{Database, Event, Log, Running, TENANT, project, run, settings, step};
use crate::whole_fold::assert_equals_whole_fold;

#[tokio::test]
async fn batches_of_any_size_give_what_a_whole_fold_gives() {
    for (seed, batch) in [(1, 1), (2, 7), (3, 50), (4, 2000)] {
        let database = Database::new().await;
        let mut log = Log::new(&database);
        let streams = logs::partitions(&log, 2).await;
        logs::few_runs(&mut log, &streams, seed, 300).await;
        let metrics = project(&database, batch).await;
        assert_equals_whole_fold(&database, &format!("seed {seed}, batches of {batch}")).await;
        let mismatches = metrics
            .ledger_mismatches
            .with_label_values(&["run_status"])
            .get();
        assert_eq!(mismatches, 0, "seed {seed}");
        assert_eq!(
            database
                .number("SELECT sum(applied)::bigint FROM read_model.projection_checkpoints")
                .await,
            300
        );
    }
}

#[tokio::test]
async fn a_run_reads_as_the_contract_says() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    let mut put = async |wait_ms, event| {
        log.wait_ms(wait_ms);
        log.append(stream, "r", event).await;
    };
    put(0, run("RunQueued")).await; // 12:00:00.000
    put(1999, run("RunStarted")).await; // 02.000
    put(999, step("StepStarted", "a", 1)).await; // 03.000
    put(
        499,
        step("StepFailed", "a", 1).payload(json!({"error": {"code": 5}})),
    )
    .await; // 03.500
    put(499, step("StepStarted", "a", 2)).await; // 04.000
    put(0, step("StepSkipped", "b", 1)).await; // 04.001
    put(998, run("RunPaused")).await; // 05.000
    put(9, step("StepCompleted", "a", 2)).await; // 05.010: steps run on
    put(1989, run("RunResumed")).await; // 07.000
    put(0, run("RunAnnotated")).await; // 07.001: unknown
    put(
        2998,
        run("RunFailed").payload(json!({"error": "out of disk"})),
    )
    .await; // 10.000
    put(0, step("StepStarted", "c", 1)).await; // 10.001: a step may still run
    project(&database, 3).await;

    let run: Value = sqlx::query_scalar("SELECT to_jsonb(r) FROM read_model.run_current r")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    let expected = json!({
        "tenant_id": TENANT, "run_id": "r", "project_id": "shop", "environment_id": "live",
        "plan_id": "plan", "plan_version": "v1", "status": "FAILED", "consistency": "CONSISTENT",
        "last_event_seq": 12, "queued_at": "2026-03-01T12:00:00+00:00",
        "started_at": "2026-03-01T12:00:02+00:00", "ended_at": "2026-03-01T12:00:10+00:00",
        "sort_at": "2026-03-01T12:00:02+00:00",
        "emitted_started_at": "2026-03-01T11:00:02+00:00",
        "emitted_ended_at": "2026-03-01T11:00:10+00:00", "queue_wait_ms": 2000, "active_ms": 6000,
        "paused_ms": 2000, "wall_ms": 8000, "emitted_wall_ms": 8000, "steps_running": 1,
        "steps_succeeded": 1, "steps_failed": 0, "steps_skipped": 1, "retries": 1,
        "error": "out of disk",
    });
    for (column, value) in expected.as_object().unwrap() {
        assert_eq!(&run[column], value, "{column}");
    }
    let attempts: Vec<Value> = sqlx::query_scalar(
        "SELECT jsonb_build_array(step_id, logical_attempt_id, status, started_at::time,
                                  completed_at::time, duration_ms, error, last_event_seq)
         FROM read_model.step_attempt ORDER BY step_id, logical_attempt_id",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    let expected = [
        json!(["a", 1, "FAILED", "12:00:03", "12:00:03.5", 500, {"code": 5}, 4]),
        json!(["a", 2, "SUCCESS", "12:00:04", "12:00:05.01", 1010, null, 8]),
        json!(["b", 1, "SKIPPED", null, "12:00:04.001", null, null, 6]),
        json!(["c", 1, "RUNNING", "12:00:10.001", null, null, null, 12]),
    ];
    assert_eq!(attempts, expected);
}

#[tokio::test]
async fn an_invalid_transition_gives_one_alert_and_changes_no_state() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    log.append(stream, "r", run("RunStarted")).await;
    log.append(stream, "r", run("RunCompleted")).await;
    log.append(
        stream,
        "r",
        Event {
            project: "other",
            ..run("RunStarted")
        },
    )
    .await;
    log.append(stream, "r", step("StepCompleted", "a", 3)).await;
    assert_eq!(project(&database, 2).await.inconsistencies.get(), 2);
    // Applied again: the rows are gone but for the alerts, so every event is new to the run.
    database.execute("DELETE FROM read_model.run_current").await;
    database
        .execute("DELETE FROM read_model.run_snapshot")
        .await;
    database
        .execute("UPDATE read_model.projection_checkpoint SET next_offset = 0, applied = 0")
        .await;
    assert_eq!(project(&database, 2).await.inconsistencies.get(), 0);

    let alerts: Vec<Value> = sqlx::query_scalar(
        "SELECT jsonb_build_array(i.tenant_id, i.run_id, i.event_type, i.run_seq, i.step_id,
           i.logical_attempt_id, prior_state, attempted_state, code, i.project_id,
           i.environment_id, i.last_event_seq, e.persisted_at = i.persisted_at)
         FROM read_model.run_inconsistency i JOIN event_log.event e USING (event_id)
         ORDER BY i.run_seq",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    let code = "INVALID_TRANSITION";
    let expected = [
        json!([
            TENANT,
            "r",
            "RunStarted",
            3,
            null,
            null,
            "COMPLETED",
            "RUNNING",
            code,
            "other",
            "live",
            3,
            true
        ]),
        json!([
            TENANT,
            "r",
            "StepCompleted",
            4,
            "a",
            3,
            "PENDING",
            "SUCCESS",
            code,
            "shop",
            "live",
            4,
            true
        ]),
    ];
    assert_eq!(alerts, expected);
    let run = "SELECT count(*) FROM read_model.run_current
               WHERE status = 'COMPLETED' AND consistency = 'INCONSISTENT' AND last_event_seq = 4";
    assert_eq!(database.number(run).await, 1);
    assert_eq!(
        database
            .number("SELECT count(*) FROM read_model.step_attempt")
            .await,
        0
    );
}

/// An object in an object ... `levels` of them.
fn nested(levels: usize) -> Value {
    (1..levels).fold(json!({}), |inner, _| json!({"error": inner}))
}

#[tokio::test]
async fn a_null_error_is_kept_apart_from_none_and_a_deep_one_survives() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    for (run_id, payload) in [
        ("absent", Some(json!({"other": 1}))),
        ("deep", Some(nested(128))),
        ("no payload", None),
        ("null", Some(json!({"error": null}))),
    ] {
        log.append(stream, run_id, run("RunStarted")).await;
        log.append(stream, run_id, step("StepStarted", "a", 1))
            .await;
        log.append(
            stream,
            run_id,
            Event {
                payload: payload.clone(),
                ..step("StepFailed", "a", 1)
            },
        )
        .await;
        log.append(
            stream,
            run_id,
            Event {
                payload,
                ..run("RunFailed")
            },
        )
        .await;
        // Read back and written again.
        log.append(stream, run_id, run("RunFailed")).await;
    }
    project(&database, 4).await;
    let deep = nested(127).to_string();
    for table in ["run_current", "step_attempt"] {
        let errors: Vec<(String, Option<String>)> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
            "SELECT run_id, error::text FROM read_model.{table} ORDER BY run_id"
        )))
        .fetch_all(&database.pool)
        .await
        .unwrap();
        let plain = |text: &Option<String>| text.as_ref().map(|text| text.replace(' ', ""));
        let errors: Vec<_> = errors
            .iter()
            .map(|(run, text)| (run.as_str(), plain(text)))
            .collect();
        let expected = [
            ("absent", None),
            ("deep", Some(deep.clone())),
            ("no payload", None),
            ("null", Some("null".to_owned())),
        ];
        assert_eq!(errors, expected, "{table}");
    }
}

#[tokio::test]
async fn new_events_are_projected_as_they_come() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    let running = Running::start(&database, "one", settings());
    for event_type in ["RunStarted", "RunPaused", "RunResumed", "RunCompleted"] {
        log.append(stream, "r", run(event_type)).await;
        database.caught_up().await;
    }
    database
        .holds("SELECT status = 'COMPLETED' FROM read_model.run_current")
        .await;
    // A partition that was not there at the start.
    let second = log.stream(5, 1, 40).await;
    log.append(second, "s", run("RunStarted")).await;
    database.caught_up().await;
    assert_eq!(
        database
            .number("SELECT count(*) FROM read_model.run_current")
            .await,
        2
    );
    running.stop().await;
}
