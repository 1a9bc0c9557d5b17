//! What run_hourly, run_daily and step_daily say.

use std::collections::BTreeMap;
use std::sync::Arc;

use event_log::read;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use run_events::{Applied, EventType, LoggedEvent, Micros, RunEventType, RunState, StepEventType};
use runlog_projectors::RunStatsProjection;
use runlog_projectors::metrics::Metrics;
use serde_json::{Value, json};
use sqlx::Row;

use crate::fold::any_event;
use crate::support::{Database, Event, Log, Running, Settings, run, settings, step};

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

async fn assert_counts_what_the_log_holds(database: &Database, context: &str) {
    let (expected, found) = (expected(database).await, found(database).await);
    for (key, row) in &expected {
        assert_eq!(found.get(key), Some(row), "{key:?}, {context}");
    }
    assert_eq!(found.len(), expected.len(), "{context}");
}

fn start(database: &Database, owner: &str, batch_events: usize) -> Running {
    let settings = Settings {
        batch_events,
        ..settings()
    };
    Running::start_with(database, owner, settings, Arc::new(RunStatsProjection))
}

pub(crate) async fn project(database: &Database, batch_events: usize) -> Metrics {
    let running = start(database, "one", batch_events);
    database.caught_up().await;
    let metrics = running.metrics.clone();
    running.stop().await;
    metrics
}

/// Any event, and often a plausible one, so that many runs and attempts come to an end.
fn event(random: &mut StdRng) -> Event {
    let event = match random.random_range(0..8) {
        0 => run("RunStarted"),
        1 => run(["RunCompleted", "RunFailed", "RunCancelled"][random.random_range(0..3)]),
        2 => step("StepStarted", "step-0", random.random_range(1..9)),
        3 => step("StepCompleted", "step-0", random.random_range(1..9)),
        _ => any_event(random),
    };
    Event {
        project: ["shop", "other"][random.random_range(0..2)],
        plan: ["plan", "Plan", "plän"][random.random_range(0..3)],
        ..event
    }
}

/// Runs of random events through two partitions over some days, from producers whose clocks jump.
async fn random_log(database: &Database, seed: u64, events: usize) -> [i64; 2] {
    let mut random = StdRng::seed_from_u64(seed);
    let mut log = Log::new(database);
    let streams = [log.stream(0, 1, 0).await, log.stream(1, 1, 100).await];
    for _ in 0..events {
        let run_id = format!("run-{}", random.random_range(0..30));
        let stream = streams[random.random_range(0..2)];
        log.wait_ms(random.random_range(0..1_200_000));
        log.emit_ahead_ms(random.random_range(-200_000..200_000));
        log.append(stream, &run_id, event(&mut random)).await;
    }
    streams
}

#[tokio::test]
async fn batches_of_any_size_count_what_the_log_holds() {
    for (seed, batch) in [(1, 1), (2, 7), (3, 50), (4, 2000)] {
        let database = Database::new().await;
        random_log(&database, seed, 400).await;
        project(&database, batch).await;
        let context = format!("seed {seed}, batches of {batch}");
        assert_counts_what_the_log_holds(&database, &context).await;
        let has_all = "SELECT count(*) FROM read_model.run_daily
                       WHERE completed + failed + cancelled > 0 AND queued > 0";
        assert!(database.number(has_all).await > 0, "{context}");
    }
}

#[tokio::test]
async fn redelivery_of_any_prefix_counts_nothing_twice() {
    const WRITTEN: &str = "
        SELECT string_agg(projected_at::text, ',' ORDER BY projected_at) FROM (
          SELECT projected_at FROM read_model.run_hourly
          UNION ALL SELECT projected_at FROM read_model.run_daily
          UNION ALL SELECT projected_at FROM read_model.step_daily
          UNION ALL SELECT projected_at FROM read_model.run_stats_run
          UNION ALL SELECT projected_at FROM read_model.run_stats_attempt) every_row";
    let database = Database::new().await;
    let written = async || {
        let written = sqlx::query_scalar::<_, String>(WRITTEN);
        written.fetch_one(&database.pool).await.unwrap()
    };
    random_log(&database, 5, 200).await;
    project(&database, 2000).await;
    let before = written().await;
    for back in [1, 9, 25, 80, 1000] {
        sqlx::query(
            "UPDATE read_model.projection_checkpoint c
             SET next_offset = to_offset, applied =
               (SELECT count(*) FROM event_log.event e
                WHERE e.stream_id = c.stream_id AND e.source_offset < to_offset)
             FROM (SELECT stream_id, greatest(start_offset, next_offset - $1) AS to_offset
                   FROM event_log.stream) s
             WHERE s.stream_id = c.stream_id",
        )
        .bind(back)
        .execute(&database.pool)
        .await
        .unwrap();
        let metrics = project(&database, 9).await;
        assert!(metrics.events.with_label_values(&["run_stats"]).get() > 0);
        assert_eq!(written().await, before, "{back} offsets back");
    }
    assert_counts_what_the_log_holds(&database, "after all").await;
}

#[tokio::test]
async fn two_processes_that_count_in_the_same_rows_lose_nothing_and_do_not_deadlock() {
    const PLANS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    const BOTH_WAIT: &str = "SELECT count(*) = 2 FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'runner' AND wait_event_type = 'Lock'";
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let streams = [log.stream(0, 1, 0).await, log.stream(1, 1, 0).await];
    let (one, two) = (start(&database, "one", 2000), start(&database, "two", 2000));
    database
        .holds("SELECT count(DISTINCT owner) = 2 FROM read_model.projection_checkpoints")
        .await;
    let barrier = async |sql: &str| {
        let mut transaction = database.pool.begin().await.unwrap();
        let lock = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()));
        lock.execute(&mut *transaction).await.unwrap();
        transaction
    };
    let tables = ["run_hourly", "run_daily", "step_daily"].iter().cycle();
    for (round, table) in tables.take(9).enumerate() {
        // Nobody gets anywhere until all events of the round are there.
        let start = barrier("LOCK TABLE run_stats_1.run_stats_run IN EXCLUSIVE MODE").await;
        for (stream, stream_id) in streams.iter().enumerate() {
            for plan in PLANS {
                let run_id = format!("run-{round}-{stream}-{plan}");
                // Whoever counts runs in the same rows does not come to the steps' at once.
                let events = match *table {
                    "step_daily" => vec![step("StepStarted", "s", 1)],
                    _ => vec![
                        run("RunStarted"),
                        step("StepStarted", "s", 1),
                        run("RunFailed"),
                    ],
                };
                for event in events {
                    log.append(*stream_id, &run_id, Event { plan, ..event })
                        .await;
                }
            }
        }
        // Both stop in the middle of the rows that they share, with locks on some of them.
        let row = format!("SELECT FROM run_stats_1.{table} WHERE plan_id = 'd' FOR UPDATE");
        let middle = barrier(&row).await;
        start.commit().await.unwrap();
        // The first round makes the rows.
        if round > 0 {
            database.holds(BOTH_WAIT).await;
        }
        middle.commit().await.unwrap();
        database.caught_up().await;
    }
    for process in [one, two] {
        let failures = process
            .metrics
            .batch_failures
            .with_label_values(&["run_stats"]);
        assert_eq!(failures.get(), 0, "a deadlock");
        process.stop().await;
    }
    assert_counts_what_the_log_holds(&database, "two processes").await;
}

#[tokio::test]
async fn a_day_reads_as_the_contract_says() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    let mut put = async |wait_ms, event| {
        log.wait_ms(wait_ms);
        log.append(stream, "r", event).await;
    };
    put(0, run("RunQueued")).await; // 12:00:00.000
    put(0, run("RunQueued")).await; // counted once
    put(0, run("RunStarted")).await; // 00.002
    put(0, step("StepStarted", "a", 1)).await; // 00.003
    put(59_996, step("StepFailed", "a", 1)).await; // 01:00.000
    put(0, step("StepStarted", "a", 2)).await;
    put(0, run("RunStarted")).await; // invalid
    put(0, step("StepFailed", "a", 1)).await; // invalid
    put(0, step("StepSkipped", "b", 1)).await;
    put(12 * 3_600_000, run("RunPaused")).await; // the next day
    put(3_600_000, run("RunCancelled")).await; // 01:01:00.006 there
    put(0, step("StepCompleted", "a", 2)).await; // steps run on
    project(&database, 5).await;
    let rows = |sql: &'static str| sqlx::query_scalar::<_, Value>(sql).fetch_all(&database.pool);
    let runs = rows(
        "SELECT jsonb_build_array(hour AT TIME ZONE 'UTC', project_id, environment_id, plan_id, queued,
           started, completed, failed, cancelled, duration_ms_sum,
           read_model.quantile(durations, 0.5), last_event_seq)
         FROM read_model.run_hourly ORDER BY hour",
    );
    let expected = [
        json!([
            "2026-03-01T12:00:00",
            "shop",
            "live",
            "plan",
            1,
            1,
            0,
            0,
            0,
            0,
            null,
            3
        ]),
        // 13 h 1 min 0.006 s; the quantile is the middle of its bucket.
        json!([
            "2026-03-02T01:00:00",
            "shop",
            "live",
            "plan",
            0,
            0,
            0,
            0,
            1,
            46_860_004,
            47_185_919,
            11
        ]),
    ];
    assert_eq!(runs.await.unwrap(), expected);
    let days = rows(
        "SELECT jsonb_build_array(day AT TIME ZONE 'UTC', started, cancelled) FROM read_model.run_daily ORDER BY day",
    );
    let expected = [
        json!(["2026-03-01T00:00:00", 1, 0]),
        json!(["2026-03-02T00:00:00", 0, 1]),
    ];
    assert_eq!(days.await.unwrap(), expected);
    let steps = rows(
        "SELECT jsonb_build_array(day AT TIME ZONE 'UTC', step_id, started, succeeded, failed, skipped,
           retries, duration_ms_sum, last_event_seq)
         FROM read_model.step_daily ORDER BY day, step_id",
    );
    let expected = [
        json!(["2026-03-01T00:00:00", "a", 2, 0, 1, 0, 1, 59_997, 6]),
        json!(["2026-03-01T00:00:00", "b", 0, 0, 0, 1, 0, 0, 9]),
        json!(["2026-03-02T00:00:00", "a", 0, 1, 0, 0, 0, 46_800_006, 12]),
    ];
    assert_eq!(steps.await.unwrap(), expected);
}

#[tokio::test]
async fn a_sum_that_no_bigint_holds_stops_nobody() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    for run_id in ["r", "s"] {
        log.emit_ahead_ms(0);
        log.append(stream, run_id, run("RunStarted")).await;
        log.emit_ahead_ms(999);
        log.append(stream, run_id, run("RunCompleted")).await;
        project(&database, 30).await;
        database
            .execute("UPDATE run_stats_1.run_daily SET duration_ms_sum = 9223372036854775807 WHERE completed = 1")
            .await;
    }
    database
        .holds("SELECT duration_ms_sum = 9223372036854776807 AND completed = 2 FROM read_model.run_daily")
        .await;
}
