//! What run_state_interval says.

use event_log::read::{self, Payloads, StreamEvent, stream_events};
use run_events::{LoggedEvent, Micros, RunState, RunStatus};
use runlog_projectors::RunTimelineProjection;
use runlog_projectors::projection::{Projection, ProjectionError};
use serde_json::{Value, json};
use sqlx::{PgConnection, Row};

use crate::logs;
use crate::support::{Database, Event, Log, TENANT, page, project_with, run, step};
use crate::tables::as_written;

/// One stay of a run in a state.
struct Stay {
    state: RunStatus,
    started: LoggedEvent,
    ended: Option<LoggedEvent>,
    last_event_seq: i64,
}

impl Stay {
    fn new(state: RunStatus, started: &LoggedEvent) -> Self {
        Self {
            state,
            started: started.clone(),
            ended: None,
            last_event_seq: started.run_seq,
        }
    }

    /// Microseconds by the log's clock, not below 0; an open one counts nothing.
    fn micros(&self) -> i64 {
        let ended = self.ended.as_ref();
        ended.map_or(0, |ended| {
            ended.persisted_at.micros_since(self.started.persisted_at)
        })
    }

    fn row(&self, number: usize, first: &LoggedEvent) -> Value {
        let ended = self.ended.as_ref();
        json!({
            "tenant_id": first.event.tenant_id, "run_id": first.event.run_id,
            "interval_no": number, "state": self.state.as_str(),
            "started_at": self.started.persisted_at.0,
            "ended_at": ended.map(|event| event.persisted_at.0),
            "duration_ms": ended.map(|_| self.micros() / 1_000),
            "emitted_started_at": self.started.event.emitted_at.0,
            "emitted_ended_at": ended.map(|event| event.event.emitted_at.0),
            "project_id": first.event.project_id, "environment_id": first.event.environment_id,
            "plan_id": first.event.plan_id, "plan_version": first.event.plan_version,
            "last_event_seq": self.last_event_seq,
        })
    }
}

/// The stays of one run, read off the whole fold of its events: a change of its status ends one.
fn stays(events: &[LoggedEvent]) -> (RunState, Vec<Stay>) {
    let mut state = RunState::before(&events[0]);
    let mut stays = vec![Stay::new(state.status, &events[0])];
    for event in events {
        let (status, queued_at) = (state.status, state.queued_at);
        state.apply(event);
        let last = stays.last_mut().unwrap();
        if state.status != status {
            last.ended = Some(event.clone());
            last.last_event_seq = event.run_seq;
            stays.push(Stay::new(state.status, event));
        } else if state.queued_at != queued_at {
            *last = Stay::new(state.status, event);
        }
    }
    (state, stays)
}

/// The rows that the log amounts to. Checks on the way that they add up to what run_current says.
async fn recomputed(database: &Database) -> Vec<Value> {
    let mut connection = database.pool.acquire().await.unwrap();
    let runs = sqlx::query("SELECT run_no FROM event_log.run ORDER BY run_id COLLATE \"C\"");
    let runs = runs.fetch_all(&mut *connection).await.unwrap();
    let mut rows = Vec::new();
    for row in runs {
        let events = read::run_events(&mut connection, row.get("run_no"), 1, i64::MAX, i64::MAX);
        let events: Vec<LoggedEvent> = events
            .await
            .unwrap()
            .into_iter()
            .map(|event| event.logged)
            .collect();
        let (state, stays) = stays(&events);
        let sum = |of: RunStatus| -> i64 {
            let stays = stays.iter().filter(|stay| stay.state == of);
            stays.map(Stay::micros).sum()
        };
        assert_eq!(sum(RunStatus::Running), state.active_micros);
        assert_eq!(sum(RunStatus::Paused), state.paused_micros);
        if let Some(wait) = state.queue_wait_ms() {
            assert_eq!(sum(RunStatus::Pending) / 1_000, wait);
        }
        let numbered = (1..).zip(&stays);
        rows.extend(numbered.map(|(number, stay)| stay.row(number, &events[0])));
    }
    rows
}

const ROWS: &str = "
    SELECT to_jsonb(i) FROM (
      SELECT tenant_id, run_id, interval_no, state,
             (extract(epoch FROM started_at) * 1000000)::bigint AS started_at,
             (extract(epoch FROM ended_at) * 1000000)::bigint AS ended_at, duration_ms,
             (extract(epoch FROM emitted_started_at) * 1000000)::bigint AS emitted_started_at,
             (extract(epoch FROM emitted_ended_at) * 1000000)::bigint AS emitted_ended_at,
             project_id, environment_id, plan_id, plan_version, last_event_seq
      FROM read_model.run_state_interval ORDER BY run_id, interval_no) i";

pub(crate) async fn assert_equals_log(database: &Database, context: &str) {
    let shown = sqlx::query_scalar::<_, Value>(ROWS);
    let shown = shown.fetch_all(&database.pool).await.unwrap();
    assert_eq!(shown, recomputed(database).await, "{context}");
}

#[tokio::test]
async fn batches_of_any_size_give_what_the_log_says() {
    for (seed, batch) in [(1, 1), (2, 7), (3, 50), (4, 2000)] {
        let database = Database::new().await;
        let mut log = Log::new(&database);
        let streams = logs::partitions(&log, 2).await;
        logs::clocks_that_differ(&mut log, &streams, seed, 400).await;
        project_with(&database, RunTimelineProjection::NAME, batch).await;
        assert_equals_log(&database, &format!("seed {seed}, batches of {batch}")).await;
        let paused = "SELECT count(*) FROM read_model.run_state_interval WHERE state = 'PAUSED' AND duration_ms > 0";
        assert!(database.number(paused).await > 0, "seed {seed}");
        let negative =
            "SELECT count(*) FROM read_model.run_state_interval WHERE ended_at < started_at";
        assert!(database.number(negative).await > 0, "seed {seed}");
    }
}

#[tokio::test]
async fn a_run_reads_as_the_comment_of_the_table_says() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    let mut put = async |wait_ms, event| {
        log.wait_ms(wait_ms);
        log.append(stream, "r", event).await;
    };
    put(0, step("StepStarted", "a", 1)).await; // 12:00:00.000
    put(999, run("RunQueued")).await; // 01.000
    put(999, run("RunQueued")).await; // 02.000: the first one counts
    put(999, run("RunPaused")).await; // 03.000: invalid
    let late = Event {
        project: "late",
        ..run("RunStarted")
    };
    put(999, late).await; // 04.000
    put(999, run("RunPaused")).await; // 05.000
    put(999, run("RunStarted")).await; // 06.000: invalid
    put(999, run("RunAnnotated")).await; // 07.000: unknown
    put(999, run("RunResumed")).await; // 08.000
    put(1499, run("RunFailed")).await; // 09.500
    put(999, run("RunCompleted")).await; // 10.500: invalid
    project_with(&database, RunTimelineProjection::NAME, 3).await;
    let rows: Vec<String> = sqlx::query_scalar(
        "SELECT concat_ws(' ', interval_no, state, started_at::time, ended_at::time, duration_ms,
                          emitted_started_at::time, emitted_ended_at::time, 'by', last_event_seq)
         FROM read_model.run_state_interval
         WHERE (tenant_id, run_id, project_id, environment_id, plan_id, plan_version)
             = ($1, 'r', 'shop', 'live', 'plan', 'v1')
         ORDER BY interval_no",
    )
    .bind(TENANT)
    .fetch_all(&database.pool)
    .await
    .unwrap();
    let expected = [
        "1 PENDING 12:00:01 12:00:04 3000 11:00:01 11:00:04 by 5",
        "2 RUNNING 12:00:04 12:00:05 1000 11:00:04 11:00:05 by 6",
        "3 PAUSED 12:00:05 12:00:08 3000 11:00:05 11:00:08 by 9",
        "4 RUNNING 12:00:08 12:00:09.5 1500 11:00:08 11:00:09.5 by 10",
        "5 FAILED 12:00:09.5 11:00:09.5 by 10",
    ];
    assert_eq!(rows, expected);
}

async fn all_events(connection: &mut PgConnection, stream: i64) -> Vec<StreamEvent> {
    stream_events(connection, stream, 0, i64::MAX, page(10_000), Payloads::All)
        .await
        .unwrap()
}

/// Applies the first events of a stream, at most `count`, in a transaction of their own.
async fn apply_some(database: &Database, stream: i64, count: usize) -> Result<(), ProjectionError> {
    let mut transaction = database.pool.begin().await.unwrap();
    let events = all_events(&mut transaction, stream).await;
    let events = &events[..count.min(events.len())];
    RunTimelineProjection
        .apply(&mut transaction, events)
        .await?;
    transaction.commit().await.unwrap();
    Ok(())
}

async fn apply_stream(database: &Database, stream: i64) -> Result<(), ProjectionError> {
    apply_some(database, stream, usize::MAX).await
}

/// A run whose events come through two streams, in turn. Whoever applies the second one is further.
async fn run_through_two_streams(database: &Database) -> [i64; 2] {
    let mut log = Log::new(database);
    let streams = [log.stream(0, 1, 0).await, log.stream(1, 1, 0).await];
    let events = [
        run("RunAnnotated"),
        run("RunQueued"),
        run("RunStarted"),
        run("RunPaused"),
        step("StepStarted", "a", 1),
        run("RunResumed"),
        run("RunQueued"),
        run("RunPaused"),
        run("RunResumed"),
        run("RunCompleted"),
    ];
    for (n, event) in events.into_iter().enumerate() {
        log.wait_us(1_234);
        log.append(streams[n % 2], "r", event).await;
    }
    streams
}

#[tokio::test]
async fn either_stream_first_fills_its_gaps_from_the_log_and_the_other_one_changes_nothing() {
    for (early, late) in [(0, 1), (1, 0)] {
        let database = Database::new().await;
        let streams = run_through_two_streams(&database).await;
        apply_stream(&database, streams[early]).await.unwrap();
        apply_stream(&database, streams[late]).await.unwrap();
        assert_equals_log(&database, &format!("stream {early} first")).await;
        let rows = as_written(&database, "run_timeline_1").await;
        for stream in streams {
            apply_stream(&database, stream).await.unwrap();
        }
        assert_eq!(as_written(&database, "run_timeline_1").await, rows);
    }
}

/// One worker holds the run's row in its open transaction and the other waits for it.
async fn meet_at_a_run(is_known: bool, holds: usize, waits: usize) {
    let database = Database::new().await;
    let streams = run_through_two_streams(&database).await;
    if is_known {
        apply_some(&database, streams[0], 2).await.unwrap();
    }
    let mut early = database.pool.begin().await.unwrap();
    let events = all_events(&mut early, streams[holds]).await;
    RunTimelineProjection
        .apply(&mut early, &events)
        .await
        .unwrap();
    let late = async {
        // As the runner does: again where the other one was first at a new run.
        match apply_stream(&database, streams[waits]).await {
            Err(ProjectionError::Met) if !is_known => apply_stream(&database, streams[waits]).await,
            applied => applied,
        }
    };
    let commit = async {
        database
            .holds(
                "SELECT EXISTS (SELECT FROM pg_stat_activity
                  WHERE datname = current_database() AND wait_event_type = 'Lock')",
            )
            .await;
        early.commit().await.unwrap();
    };
    let (applied, ()) = tokio::join!(late, commit);
    applied.unwrap();
    let when = format!("known before: {is_known}, stream {holds} first");
    assert_equals_log(&database, &when).await;
}

#[tokio::test]
async fn a_worker_that_waits_for_another_goes_on_from_the_interval_that_it_left() {
    for is_known in [false, true] {
        meet_at_a_run(is_known, 0, 1).await;
        meet_at_a_run(is_known, 1, 0).await;
    }
}

#[tokio::test]
async fn runs_that_were_active_at_a_time_are_found() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    let mut put = async |wait_ms, run_id, event_type| {
        log.wait_ms(wait_ms);
        log.append(stream, run_id, run(event_type)).await;
    };
    put(0, "before", "RunStarted").await; // 12:00:00.000
    put(0, "ends at it", "RunStarted").await;
    put(0, "open", "RunStarted").await;
    put(0, "paused", "RunStarted").await;
    put(0, "ended", "RunStarted").await;
    put(0, "paused", "RunPaused").await;
    put(993, "before", "RunCompleted").await; // 00.999
    put(0, "ends at it", "RunCompleted").await; // 01.000
    put(999, "ended", "RunCompleted").await; // 02.000
    put(0, "later", "RunStarted").await;
    project_with(&database, RunTimelineProjection::NAME, 2000).await;
    let active: Vec<String> = sqlx::query_scalar(
        "SELECT run_id FROM read_model.runs_in_state($1, 'RUNNING', $2) ORDER BY run_id",
    )
    .bind(TENANT)
    .bind(Micros::parse_rfc3339("2026-03-01T12:00:01Z").map(Micros::to_datetime))
    .fetch_all(&database.pool)
    .await
    .unwrap();
    assert_eq!(active, ["ended", "open"]);
}
