//! From the log's rows to the counts by hour and day.
//!
//! Called by [`crate::pipeline`] beside [`super::fold`], whose tables of allowed steps it reads. It
//! goes through each run once and adds every valid step to the rows of its hour and day.

use super::fold::{RUN_STEPS, STEP_STEPS};
use super::log::Appended;
use super::table::{Cell, Row, Table};
use std::collections::BTreeMap;

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

/// The expected read models of the projection `run_stats`.
#[derive(Debug, Default)]
pub struct Stats {
    /// By tenant, hour, project, environment and plan.
    pub run_hourly: Table,
    /// By tenant, day, project, environment and plan.
    pub run_daily: Table,
    /// By tenant, day, plan and step.
    pub step_daily: Table,
}

/// What is counted in a row, by column, and the durations in milliseconds.
#[derive(Debug, Default)]
struct Sum {
    counts: BTreeMap<&'static str, i64>,
    durations: Vec<i64>,
    last_event_seq: i64,
}

type Sums = BTreeMap<Vec<String>, Sum>;

const RUN_COLUMNS: [&str; 5] = ["queued", "started", "completed", "failed", "cancelled"];
const STEP_COLUMNS: [&str; 5] = ["started", "succeeded", "failed", "skipped", "retries"];

/// Counts all rows. `persisted_at` is by (partition, offset), in microseconds.
///
/// # Panics
/// Where a row's `persisted_at` is not there.
#[must_use]
pub fn stats(rows: &[Appended], persisted_at: &BTreeMap<(i32, i64), i64>) -> Stats {
    let mut by_run: BTreeMap<(&str, &str), Vec<&Appended>> = BTreeMap::new();
    for row in rows {
        let run = (row.event.tenant_id.as_str(), row.event.run_id.as_str());
        by_run.entry(run).or_default().push(row);
    }
    let (mut hourly, mut daily, mut steps) = (Sums::new(), Sums::new(), Sums::new());
    for mut events in by_run.into_values() {
        events.sort_by_key(|row| row.run_seq);
        let persisted = |row: &Appended| persisted_at[&(row.partition, row.offset)];
        count_run(&events, persisted, HOUR, &mut hourly);
        count_run(&events, persisted, DAY, &mut daily);
        count_steps(&events, persisted, &mut steps);
    }
    Stats {
        run_hourly: table(&hourly, &RUN_COLUMNS),
        run_daily: table(&daily, &RUN_COLUMNS),
        step_daily: table(&steps, &STEP_COLUMNS),
    }
}

fn count_run(
    events: &[&Appended],
    persisted: impl Fn(&Appended) -> i64,
    window: i64,
    sums: &mut Sums,
) {
    let first = &events[0].event;
    let (mut status, mut is_queued, mut started) = ("PENDING", false, 0);
    for row in events {
        let kind = row.event.content.event_type.as_str();
        let Some((_, from, to)) = RUN_STEPS.iter().find(|(name, ..)| *name == kind) else {
            continue;
        };
        if !from.contains(&status) {
            continue;
        }
        status = to;
        let column = match kind {
            "RunQueued" if !is_queued => "queued",
            "RunStarted" => "started",
            "RunCompleted" => "completed",
            "RunFailed" => "failed",
            "RunCancelled" => "cancelled",
            _ => continue,
        };
        let key = vec![
            first.tenant_id.clone(),
            beginning(persisted(row), window),
            first.content.project_id.clone(),
            first.content.environment_id.clone(),
            first.content.plan_id.clone(),
        ];
        let sum = add(sums, key, column, row.run_seq);
        match column {
            "queued" => is_queued = true,
            "started" => started = row.event.emitted_at,
            _ => sum.durations.push(millis(started, row.event.emitted_at)),
        }
    }
}

fn count_steps(events: &[&Appended], persisted: impl Fn(&Appended) -> i64, sums: &mut Sums) {
    let first = &events[0].event;
    // Status and start of each attempt with a valid event.
    let mut attempts: BTreeMap<(&str, i64), (&str, i64)> = BTreeMap::new();
    for row in events {
        let content = &row.event.content;
        let kind = content.event_type.as_str();
        let Some((_, from, to)) = STEP_STEPS.iter().find(|(name, ..)| *name == kind) else {
            continue;
        };
        let step = content.step_id.as_deref().unwrap_or_default();
        let attempt = (step, content.logical_attempt_id);
        let (prior, started) = attempts.get(&attempt).copied().unwrap_or(("PENDING", 0));
        if !from.contains(&prior) {
            continue;
        }
        let column = match *to {
            "RUNNING" => "started",
            "SUCCESS" => "succeeded",
            "FAILED" => "failed",
            _ => "skipped",
        };
        let key = vec![
            first.tenant_id.clone(),
            beginning(persisted(row), DAY),
            first.content.plan_id.clone(),
            step.to_owned(),
        ];
        let sum = add(sums, key, column, row.run_seq);
        if ["succeeded", "failed"].contains(&column) {
            sum.durations.push(millis(started, row.event.emitted_at));
        }
        if prior == "PENDING" && attempts.keys().any(|(other, _)| *other == step) {
            *sum.counts.entry("retries").or_default() += 1;
        }
        attempts.insert(attempt, (*to, row.event.emitted_at));
    }
}

fn add<'s>(
    sums: &'s mut Sums,
    key: Vec<String>,
    column: &'static str,
    run_seq: i64,
) -> &'s mut Sum {
    let sum = sums.entry(key).or_default();
    *sum.counts.entry(column).or_default() += 1;
    sum.last_event_seq = sum.last_event_seq.max(run_seq);
    sum
}

/// Where the window begins, in microseconds, as identities say it.
fn beginning(at: i64, window: i64) -> String {
    (at - at.rem_euclid(window)).to_string()
}

/// Whole milliseconds, floored; a negative interval counts 0.
fn millis(from: i64, to: i64) -> i64 {
    (to - from).max(0) / 1000
}

fn table(sums: &Sums, columns: &[&'static str]) -> Table {
    let row = |(key, sum): (&Vec<String>, &Sum)| {
        let count = |name: &&'static str| {
            let count = sum.counts.get(name).copied().unwrap_or_default();
            (*name, Cell::Int(count))
        };
        let mut row: Row = columns.iter().map(count).collect();
        let total = sum.durations.iter().sum();
        row.insert("duration_ms_sum", Cell::Int(total));
        row.insert("durations", Cell::Text(histogram(&sum.durations)));
        row.insert("last_event_seq", Cell::Int(sum.last_event_seq));
        row.insert("projected_at", Cell::Present);
        (key.clone(), row)
    };
    sums.iter().map(row).collect()
}

/// The array as PostgreSQL writes it: the count of bucket n has the subscript n, from the lowest
/// bucket in use to the highest.
fn histogram(durations: &[i64]) -> String {
    let mut buckets: BTreeMap<i64, i64> = BTreeMap::new();
    for duration in durations {
        *buckets.entry(bucket(*duration)).or_default() += 1;
    }
    let Some(((lowest, _), (highest, _))) = buckets.first_key_value().zip(buckets.last_key_value())
    else {
        return "{}".to_owned();
    };
    let counts: Vec<String> = (*lowest..=*highest)
        .map(|n| buckets.get(&n).map_or("NULL".to_owned(), i64::to_string))
        .collect();
    let counts = counts.join(",");
    // The bounds of an array that begins at 1 are not written.
    if *lowest == 1 {
        format!("{{{counts}}}")
    } else {
        format!("[{lowest}:{highest}]={{{counts}}}")
    }
}

/// Below 32 ms one each, then 16 for each doubling.
fn bucket(mut millis: i64) -> i64 {
    let mut doublings = 0;
    while millis >= 32 {
        millis /= 2;
        doublings += 1;
    }
    16 * doublings + millis
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
