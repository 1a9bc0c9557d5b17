//! From the log's rows to the read models.
//!
//! Called by the suites with the expected rows and the `persisted_at` that the log reports for
//! each of them (the database's clock is the one thing that cannot be computed). The state machine
//! stands here as tables of allowed steps, unlike the product's.

use super::envelope::Event;
use super::json::Json;
use super::log::Appended;
use super::table::{Cell, Row, Table};
use std::collections::BTreeMap;

/// (event type, states it may come from, state it leads to)
pub(super) const RUN_STEPS: [(&str, &[&str], &str); 7] = [
    ("RunQueued", &["PENDING"], "PENDING"),
    ("RunStarted", &["PENDING"], "RUNNING"),
    ("RunPaused", &["RUNNING"], "PAUSED"),
    ("RunResumed", &["PAUSED"], "RUNNING"),
    ("RunCompleted", &["RUNNING"], "COMPLETED"),
    ("RunFailed", &["RUNNING"], "FAILED"),
    ("RunCancelled", &["RUNNING", "PAUSED"], "CANCELLED"),
];
pub(super) const STEP_STEPS: [(&str, &[&str], &str); 4] = [
    ("StepStarted", &["PENDING"], "RUNNING"),
    ("StepCompleted", &["RUNNING"], "SUCCESS"),
    ("StepFailed", &["RUNNING"], "FAILED"),
    ("StepSkipped", &["PENDING"], "SKIPPED"),
];

/// The expected read models of the projection `run_status`.
#[derive(Debug, Default)]
pub struct ReadModels {
    /// By tenant and run.
    pub run_current: Table,
    /// By tenant, run, step and logical attempt.
    pub step_attempt: Table,
    /// By tenant, run and event.
    pub run_inconsistency: Table,
}

/// Times of one transition, in microseconds since 1970 UTC.
#[derive(Clone, Copy, Debug)]
struct Moment {
    persisted: i64,
    emitted: i64,
}

#[derive(Debug)]
struct Attempt {
    status: &'static str,
    engine_attempt_id: i64,
    started: Option<Moment>,
    completed: Option<Moment>,
    error: Option<Json>,
}

#[derive(Debug)]
struct Run {
    status: &'static str,
    consistent: bool,
    queued: Option<Moment>,
    started: Option<Moment>,
    ended: Option<Moment>,
    /// When the present RUNNING or PAUSED interval began.
    since: i64,
    active_micros: i64,
    paused_micros: i64,
    error: Option<Json>,
    attempts: BTreeMap<(String, i64), Attempt>,
}

/// Folds all rows. `persisted_at` is by (partition, offset), in microseconds.
///
/// # Panics
/// Where a row's `persisted_at` is not there.
#[must_use]
pub fn fold(rows: &[Appended], persisted_at: &BTreeMap<(i32, i64), i64>) -> ReadModels {
    let mut by_run: BTreeMap<(&str, &str), Vec<(&Appended, i64)>> = BTreeMap::new();
    for row in rows {
        let persisted = persisted_at[&(row.partition, row.offset)];
        by_run
            .entry((&row.event.tenant_id, &row.event.run_id))
            .or_default()
            .push((row, persisted));
    }
    let mut models = ReadModels::default();
    for ((tenant, run), mut events) in by_run {
        events.sort_by_key(|(row, _)| row.run_seq);
        fold_run(&mut models, &[tenant.to_owned(), run.to_owned()], &events);
    }
    models
}

fn fold_run(models: &mut ReadModels, identity: &[String], events: &[(&Appended, i64)]) {
    let mut run = Run {
        status: "PENDING",
        consistent: true,
        queued: None,
        started: None,
        ended: None,
        since: 0,
        active_micros: 0,
        paused_micros: 0,
        error: None,
        attempts: BTreeMap::new(),
    };
    for (row, persisted) in events {
        let moment = Moment {
            persisted: *persisted,
            emitted: row.event.emitted_at,
        };
        if let Err((prior, attempted)) = apply(&mut run, &row.event, moment) {
            run.consistent = false;
            let mut key = identity.to_vec();
            key.push(row.event.event_id.clone());
            models
                .run_inconsistency
                .insert(key, inconsistency_row(row, *persisted, prior, attempted));
        }
    }
    for ((step, number), attempt) in &run.attempts {
        let mut key = identity.to_vec();
        key.extend([step.clone(), number.to_string()]);
        models.step_attempt.insert(key, attempt_row(attempt));
    }
    models
        .run_current
        .insert(identity.to_vec(), run_row(&run, events));
}

/// Applies one event, or says which state refused which.
fn apply(run: &mut Run, event: &Event, moment: Moment) -> Result<(), (&'static str, &'static str)> {
    let kind = event.content.event_type.as_str();
    if let Some((_, from, to)) = RUN_STEPS.iter().find(|(name, ..)| *name == kind) {
        if !from.contains(&run.status) {
            return Err((run.status, to));
        }
        close_interval(run, moment.persisted);
        run.status = to;
        run.since = moment.persisted;
        match *to {
            "PENDING" => run.queued = run.queued.or(Some(moment)),
            "RUNNING" => run.started = run.started.or(Some(moment)),
            "PAUSED" => {}
            _ => run.ended = Some(moment),
        }
        if kind == "RunFailed" {
            run.error = error_of(event);
        }
    } else if let Some((_, from, to)) = STEP_STEPS.iter().find(|(name, ..)| *name == kind) {
        let step = event.content.step_id.clone().unwrap_or_default();
        let key = (step, event.content.logical_attempt_id);
        let prior = run
            .attempts
            .get(&key)
            .map_or("PENDING", |attempt| attempt.status);
        if !from.contains(&prior) {
            return Err((prior, to));
        }
        let attempt = run.attempts.entry(key).or_insert(Attempt {
            status: to,
            engine_attempt_id: 0,
            started: None,
            completed: None,
            error: None,
        });
        attempt.status = to;
        attempt.engine_attempt_id = event.engine_attempt_id;
        if *to == "RUNNING" {
            attempt.started = Some(moment);
        } else {
            attempt.completed = Some(moment);
        }
        if kind == "StepFailed" {
            attempt.error = error_of(event);
        }
    }
    Ok(())
}

fn close_interval(run: &mut Run, now: i64) {
    let length = (now - run.since).max(0);
    match run.status {
        "RUNNING" => run.active_micros += length,
        "PAUSED" => run.paused_micros += length,
        _ => {}
    }
}

fn error_of(event: &Event) -> Option<Json> {
    event
        .content
        .payload
        .as_ref()?
        .members()?
        .get("error")
        .cloned()
}

/// Whole milliseconds from `from` to `to`, floored once; a negative interval counts 0.
fn millis(from: Option<Moment>, to: Option<Moment>) -> Option<i64> {
    Some((to?.persisted - from?.persisted).max(0).div_euclid(1000))
}

fn persisted(moment: Option<Moment>) -> Cell {
    Cell::int(moment.map(|moment| moment.persisted))
}

fn emitted(moment: Option<Moment>) -> Cell {
    Cell::int(moment.map(|moment| moment.emitted))
}

fn run_row(run: &Run, events: &[(&Appended, i64)]) -> Row {
    let first = &events[0].0.event.content;
    let sort_at = run
        .started
        .or(run.queued)
        .map_or(events[0].1, |moment| moment.persisted);
    let emitted_wall = run
        .started
        .zip(run.ended)
        .map(|(from, to)| (to.emitted - from.emitted).div_euclid(1000));
    let mut highest: BTreeMap<&str, &'static str> = BTreeMap::new();
    for ((step, _), attempt) in &run.attempts {
        // Attempts come in rising order, so the last one stays.
        highest.insert(step, attempt.status);
    }
    let count = |status: &str| {
        Cell::Int(
            i64::try_from(highest.values().filter(|found| **found == status).count())
                .unwrap_or(i64::MAX),
        )
    };
    let retries = run.attempts.len() - highest.len();
    Row::from([
        ("project_id", Cell::Text(first.project_id.clone())),
        ("environment_id", Cell::Text(first.environment_id.clone())),
        ("plan_id", Cell::Text(first.plan_id.clone())),
        ("plan_version", Cell::Text(first.plan_version.clone())),
        ("status", Cell::Text(run.status.to_owned())),
        (
            "consistency",
            Cell::Text(
                if run.consistent {
                    "CONSISTENT"
                } else {
                    "INCONSISTENT"
                }
                .to_owned(),
            ),
        ),
        (
            "last_event_seq",
            Cell::Int(events[events.len() - 1].0.run_seq),
        ),
        ("queued_at", persisted(run.queued)),
        ("started_at", persisted(run.started)),
        ("ended_at", persisted(run.ended)),
        ("sort_at", Cell::Int(sort_at)),
        ("emitted_started_at", emitted(run.started)),
        ("emitted_ended_at", emitted(run.ended)),
        ("queue_wait_ms", Cell::int(millis(run.queued, run.started))),
        ("active_ms", Cell::Int(run.active_micros.div_euclid(1000))),
        ("paused_ms", Cell::Int(run.paused_micros.div_euclid(1000))),
        ("wall_ms", Cell::int(millis(run.started, run.ended))),
        ("emitted_wall_ms", Cell::int(emitted_wall)),
        ("steps_running", count("RUNNING")),
        ("steps_succeeded", count("SUCCESS")),
        ("steps_failed", count("FAILED")),
        ("steps_skipped", count("SKIPPED")),
        (
            "retries",
            Cell::Int(i64::try_from(retries).unwrap_or(i64::MAX)),
        ),
        ("error", Cell::json(run.error.clone())),
        ("projected_at", Cell::Present),
    ])
}

fn attempt_row(attempt: &Attempt) -> Row {
    Row::from([
        ("engine_attempt_id", Cell::Int(attempt.engine_attempt_id)),
        ("status", Cell::Text(attempt.status.to_owned())),
        ("started_at", persisted(attempt.started)),
        ("completed_at", persisted(attempt.completed)),
        (
            "duration_ms",
            Cell::int(millis(attempt.started, attempt.completed)),
        ),
        ("emitted_started_at", emitted(attempt.started)),
        ("emitted_completed_at", emitted(attempt.completed)),
        ("error", Cell::json(attempt.error.clone())),
    ])
}

fn inconsistency_row(row: &Appended, persisted: i64, prior: &str, attempted: &str) -> Row {
    let content = &row.event.content;
    // Null for run events, which are the events without a step.
    let attempt = content.step_id.as_ref().map(|_| content.logical_attempt_id);
    Row::from([
        ("event_type", Cell::Text(content.event_type.clone())),
        ("run_seq", Cell::Int(row.run_seq)),
        ("persisted_at", Cell::Int(persisted)),
        ("step_id", Cell::text(content.step_id.clone())),
        ("logical_attempt_id", Cell::int(attempt)),
        ("prior_state", Cell::Text(prior.to_owned())),
        ("attempted_state", Cell::Text(attempted.to_owned())),
        ("code", Cell::Text("INVALID_TRANSITION".to_owned())),
        ("project_id", Cell::Text(content.project_id.clone())),
        ("environment_id", Cell::Text(content.environment_id.clone())),
    ])
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
