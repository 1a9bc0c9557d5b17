//! What run_hourly, run_daily and step_daily say.

use std::sync::Arc;

use runlog_projectors::RunStatsProjection;
use serde_json::{Value, json};

use crate::logs;
use crate::recount::assert_counts_what_the_log_holds;
use crate::support::{Database, Event, Log, Running, project_with, run, settings, step};

#[tokio::test]
async fn batches_of_any_size_count_what_the_log_holds() {
    for (seed, batch) in [(1, 1), (2, 7), (3, 50), (4, 2000)] {
        let database = Database::new().await;
        let mut log = Log::new(&database);
        let streams = logs::partitions(&log, 2).await;
        logs::some_days(&mut log, &streams, seed, 400).await;
        project_with(&database, RunStatsProjection::NAME, batch).await;
        let context = format!("seed {seed}, batches of {batch}");
        assert_counts_what_the_log_holds(&database, &context).await;
        let has_all = "SELECT count(*) FROM read_model.run_daily
                       WHERE completed + failed + cancelled > 0 AND queued > 0";
        assert!(database.number(has_all).await > 0, "{context}");
    }
}

#[tokio::test]
async fn two_processes_that_count_in_the_same_rows_lose_nothing_and_do_not_deadlock() {
    const PLANS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
    const BOTH_WAIT: &str = "SELECT count(*) = 2 FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'runner' AND wait_event_type = 'Lock'";
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let streams = [log.stream(0, 1, 0).await, log.stream(1, 1, 0).await];
    let start =
        |owner| Running::start_with(&database, owner, settings(), Arc::new(RunStatsProjection));
    let (one, two) = (start("one"), start("two"));
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
    project_with(&database, RunStatsProjection::NAME, 5).await;
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
        project_with(&database, RunStatsProjection::NAME, 30).await;
        database
            .execute("UPDATE run_stats_1.run_daily SET duration_ms_sum = 9223372036854775807 WHERE completed = 1")
            .await;
    }
    database
        .holds("SELECT duration_ms_sum = 9223372036854776807 AND completed = 2 FROM read_model.run_daily")
        .await;
}
