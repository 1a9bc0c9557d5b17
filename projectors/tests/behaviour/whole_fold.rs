//! The rows of run_status worked out anew: every run of the log folded whole.

use std::collections::BTreeMap;

use event_log::read;
use run_events::{Applied, RunState};
use serde_json::{Value, json};
use sqlx::Row;

use crate::support::Database;

/// Every run of the log, folded whole, as the three tables should show it.
async fn whole_fold(database: &Database) -> (BTreeMap<String, RunState>, usize) {
    let mut connection = database.pool.acquire().await.unwrap();
    let runs = sqlx::query("SELECT run_no, run_id FROM event_log.run");
    let runs = runs.fetch_all(&mut *connection).await.unwrap();
    let mut states = BTreeMap::new();
    let mut alerts = 0;
    for row in runs {
        let events = read::run_events(&mut connection, row.get("run_no"), 1, i64::MAX, i64::MAX);
        let events = events.await.unwrap();
        let mut state = RunState::before(&events[0].logged);
        for event in &events {
            alerts += usize::from(matches!(state.apply(&event.logged), Applied::Invalid(_)));
        }
        states.insert(row.get("run_id"), state);
    }
    (states, alerts)
}

/// The row of run_current that a state amounts to, without what only the fold needs.
fn run_row(state: &RunState) -> Value {
    json!({
        "tenant_id": state.tenant_id, "run_id": state.run_id, "project_id": state.project_id,
        "environment_id": state.environment_id, "plan_id": state.plan_id,
        "plan_version": state.plan_version, "status": state.status.as_str(),
        "consistency": state.consistency(), "last_event_seq": state.last_event_seq,
        "queued_at": state.queued_at.map(|t| t.0), "started_at": state.started_at.map(|t| t.0),
        "ended_at": state.ended_at.map(|t| t.0), "sort_at": state.sort_at().0,
        "emitted_started_at": state.emitted_started_at.map(|t| t.0),
        "emitted_ended_at": state.emitted_ended_at.map(|t| t.0),
        "queue_wait_ms": state.queue_wait_ms(), "active_ms": state.active_ms(),
        "paused_ms": state.paused_ms(), "wall_ms": state.wall_ms(),
        "emitted_wall_ms": state.emitted_wall_ms(), "steps_running": state.step_counts.running,
        "steps_succeeded": state.step_counts.succeeded, "steps_failed": state.step_counts.failed,
        "steps_skipped": state.step_counts.skipped, "retries": state.retries,
        "has_error": state.error.is_some(), "error": state.error,
    })
}

fn attempt_rows(state: &RunState) -> Vec<Value> {
    let attempts = state.steps.iter().flat_map(|(step_id, attempts)| {
        attempts
            .iter()
            .map(move |(attempt_id, attempt)| (step_id, attempt_id, attempt))
    });
    let row = |(step_id, attempt_id, attempt): (&String, &i32, &run_events::StepAttempt)| {
        json!({
            "tenant_id": state.tenant_id, "run_id": state.run_id, "step_id": step_id,
            "logical_attempt_id": attempt_id, "engine_attempt_id": attempt.engine_attempt_id,
            "status": attempt.status.as_str(), "started_at": attempt.started_at.map(|t| t.0),
            "completed_at": attempt.completed_at.map(|t| t.0), "duration_ms": attempt.duration_ms(),
            "emitted_started_at": attempt.emitted_started_at.map(|t| t.0),
            "emitted_completed_at": attempt.emitted_completed_at.map(|t| t.0),
            "has_error": attempt.error.is_some(), "error": attempt.error,
        })
    };
    attempts.map(row).collect()
}

const RUN_ROWS: &str = "
    SELECT to_jsonb(r) FROM (
      SELECT tenant_id, run_id, project_id, environment_id, plan_id, plan_version, status,
             consistency, last_event_seq, micros(queued_at) AS queued_at,
             micros(started_at) AS started_at, micros(ended_at) AS ended_at,
             micros(sort_at) AS sort_at, micros(emitted_started_at) AS emitted_started_at,
             micros(emitted_ended_at) AS emitted_ended_at, queue_wait_ms, active_ms, paused_ms,
             wall_ms, emitted_wall_ms, steps_running, steps_succeeded, steps_failed, steps_skipped,
             retries, error IS NOT NULL AS has_error, error
      FROM read_model.run_current ORDER BY run_id) r";
const ATTEMPT_ROWS: &str = "
    SELECT to_jsonb(a) FROM (
      SELECT tenant_id, run_id, step_id, logical_attempt_id, engine_attempt_id, status,
             micros(started_at) AS started_at, micros(completed_at) AS completed_at, duration_ms,
             micros(emitted_started_at) AS emitted_started_at,
             micros(emitted_completed_at) AS emitted_completed_at,
             error IS NOT NULL AS has_error, error
      FROM read_model.step_attempt ORDER BY run_id, step_id, logical_attempt_id) a";

/// Compares the three tables with a whole fold of the log.
pub(crate) async fn assert_equals_whole_fold(database: &Database, context: &str) {
    database
        .execute(
            "CREATE OR REPLACE FUNCTION micros(t timestamptz) RETURNS bigint LANGUAGE sql
             RETURN (extract(epoch FROM t) * 1000000)::bigint",
        )
        .await;
    let (states, alerts) = whole_fold(database).await;
    let rows = |sql| sqlx::query_scalar::<_, Value>(sql).fetch_all(&database.pool);
    let expected: Vec<Value> = states.values().map(run_row).collect();
    assert_eq!(
        rows(RUN_ROWS).await.unwrap(),
        expected,
        "run_current, {context}"
    );
    let expected: Vec<Value> = states.values().flat_map(attempt_rows).collect();
    assert_eq!(
        rows(ATTEMPT_ROWS).await.unwrap(),
        expected,
        "step_attempt, {context}"
    );
    let found = database
        .number("SELECT count(*) FROM read_model.run_inconsistency")
        .await;
    assert_eq!(found, alerts as i64, "run_inconsistency, {context}");
}
