//! The rows of run_stats worked out anew: every event of the log counted by itself.

use std::collections::BTreeMap;

use event_log::read;
use run_events::{Applied, EventType, LoggedEvent, Micros, RunEventType, RunState, StepEventType};
use serde_json::{Value, json};
use sqlx::Row;

use crate::support::Database;

const HOUR: i64 = 3_600_000_000;
const DAY: i64 = 24 * HOUR;

/// The bucket of a duration, by counting them up from 0 ms: 32 of 1 ms, then 16 of each width.
pub(crate) fn bucket(millis: i64) -> usize {
    let (mut next, mut width, mut bucket) = (32, 1, 31);
    if millis < next {
        return usize::try_from(millis).unwrap();
    }
    loop {
        width *= 2;
        for _ in 0..16 {
            next += width;
            bucket += 1;
            if millis < next {
                return bucket;
            }
        }
    }
}

/// A histogram as PostgreSQL writes it: the subscript is the bucket.
pub(crate) fn array(counts: &BTreeMap<usize, i64>) -> String {
    let Some((&first, &last)) = counts.keys().next().zip(counts.keys().last()) else {
        return "{}".to_owned();
    };
    let count = |bucket| {
        counts
            .get(&bucket)
            .map_or("NULL".to_owned(), i64::to_string)
    };
    let list = (first..=last).map(count).collect::<Vec<_>>().join(",");
    // The bounds of an array that begins at 1 are not written.
    match first {
        1 => format!("{{{list}}}"),
        _ => format!("[{first}:{last}]={{{list}}}"),
    }
}

/// A row as it must be, but for its key.
#[derive(Default)]
struct Expected {
    counts: BTreeMap<&'static str, i64>,
    sum: i64,
    durations: BTreeMap<usize, i64>,
    last_event_seq: i64,
}

/// Rows by table and key.
type Rows = BTreeMap<(&'static str, Vec<String>), Expected>;

impl Expected {
    fn count(&mut self, column: &'static str, logged: &LoggedEvent, millis: Option<i64>) {
        *self.counts.entry(column).or_default() += 1;
        self.last_event_seq = self.last_event_seq.max(logged.run_seq);
        if let Some(millis) = millis {
            let millis = millis.max(0);
            self.sum += millis;
            *self.durations.entry(bucket(millis)).or_default() += 1;
        }
    }

    /// As to_jsonb of the row shows it, but for the array.
    fn row(&self) -> Value {
        let mut row = json!({"last_event_seq": self.last_event_seq, "duration_ms_sum": self.sum});
        for (column, count) in &self.counts {
            row[*column] = json!(count);
        }
        row["durations"] = json!(array(&self.durations));
        row
    }
}

fn window(logged: &LoggedEvent, length: i64) -> String {
    (logged.persisted_at.0.div_euclid(length) * length).to_string()
}

/// Counts one event of a run; `before` is the run's state before it, `after` the one after.
fn count(rows: &mut Rows, before: &RunState, after: &RunState, logged: &LoggedEvent) {
    let millis =
        |from: Option<Micros>| Some((logged.event.emitted_at.0 - from?.0).div_euclid(1000));
    match &logged.event.event_type {
        EventType::Run(kind) => {
            let column = match kind {
                RunEventType::RunQueued if before.queued_at.is_none() => "queued",
                RunEventType::RunStarted => "started",
                RunEventType::RunCompleted => "completed",
                RunEventType::RunFailed => "failed",
                RunEventType::RunCancelled => "cancelled",
                _ => return,
            };
            let ended = after.ended_at.and(millis(after.emitted_started_at));
            for (table, length) in [("run_hourly", HOUR), ("run_daily", DAY)] {
                let [project, environment, plan] =
                    [&after.project_id, &after.environment_id, &after.plan_id].map(String::clone);
                let key = vec![window(logged, length), project, environment, plan];
                let row = rows.entry((table, key)).or_default();
                row.count(column, logged, ended);
            }
        }
        EventType::Step(kind) => {
            let step_id = logged.event.step_id.clone().unwrap();
            let (column, ended) = match kind {
                StepEventType::StepStarted => ("started", false),
                StepEventType::StepCompleted => ("succeeded", true),
                StepEventType::StepFailed => ("failed", true),
                StepEventType::StepSkipped => ("skipped", false),
            };
            let attempt = &after.steps[&step_id][&logged.event.logical_attempt_id];
            let key = vec![window(logged, DAY), after.plan_id.clone(), step_id];
            let row = rows.entry(("step_daily", key)).or_default();
            let duration = millis(attempt.emitted_started_at).filter(|_| ended);
            row.count(column, logged, duration);
            *row.counts.entry("retries").or_default() += after.retries - before.retries;
        }
        EventType::Unknown(_) => {}
    }
}

/// Every row that the log amounts to.
async fn expected(database: &Database) -> BTreeMap<(String, Vec<String>), Value> {
    let mut connection = database.pool.acquire().await.unwrap();
    let runs = sqlx::query("SELECT run_no FROM event_log.run");
    let mut rows = Rows::new();
    for run in runs.fetch_all(&mut *connection).await.unwrap() {
        let events = read::run_events(&mut connection, run.get("run_no"), 1, i64::MAX, i64::MAX);
        let events = events.await.unwrap();
        let mut state = RunState::before(&events[0].logged);
        for event in &events {
            let before = state.clone();
            if state.apply(&event.logged) == Applied::Valid {
                count(&mut rows, &before, &state, &event.logged);
            }
        }
    }
    rows.into_iter()
        .map(|((table, key), row)| ((table.to_owned(), key), row.row()))
        .collect()
}

/// Every row that is there; counts of 0 are left out, as in [`expected`] (where retries may be 0).
async fn found(database: &Database) -> BTreeMap<(String, Vec<String>), Value> {
    let sql = "
        SELECT 'run_hourly' AS of, extract(epoch FROM hour)::bigint AS window, tenant_id,
               ARRAY[project_id, environment_id, plan_id] AS rest, durations::text AS durations,
               to_jsonb(t) - '{hour,project_id,environment_id,plan_id}'::text[] AS row
        FROM read_model.run_hourly t
        UNION ALL
        SELECT 'run_daily', extract(epoch FROM day)::bigint, tenant_id,
               ARRAY[project_id, environment_id, plan_id], durations::text,
               to_jsonb(t) - '{day,project_id,environment_id,plan_id}'::text[]
        FROM read_model.run_daily t
        UNION ALL
        SELECT 'step_daily', extract(epoch FROM day)::bigint, tenant_id, ARRAY[plan_id, step_id],
               durations::text, to_jsonb(t) - '{day,plan_id,step_id}'::text[]
        FROM read_model.step_daily t";
    let rows = sqlx::query(sql).fetch_all(&database.pool).await.unwrap();
    let row = |row: &sqlx::postgres::PgRow| {
        let mut key = vec![(row.get::<i64, _>("window") * 1_000_000).to_string()];
        key.extend(row.get::<Vec<String>, _>("rest"));
        let mut value: Value = row.get("row");
        value["durations"] = json!(row.get::<String, _>("durations"));
        let columns = value.as_object_mut().unwrap();
        columns.remove("tenant_id");
        columns.remove("projected_at");
        columns.retain(|column, value| {
            ["duration_ms_sum", "retries"].contains(&column.as_str()) || *value != json!(0)
        });
        ((row.get::<String, _>("of"), key), value)
    };
    rows.iter().map(row).collect()
}

pub(crate) async fn assert_counts_what_the_log_holds(database: &Database, context: &str) {
    let (expected, found) = (expected(database).await, found(database).await);
    for (key, row) in &expected {
        assert_eq!(found.get(key), Some(row), "{key:?}, {context}");
    }
    assert_eq!(found.len(), expected.len(), "{context}");
}
