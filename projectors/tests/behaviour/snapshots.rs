//! Snapshots of runs: each equals a fold of the log up to its event, and the rows follow from the events
//! alone. What they cost: [`crate::long_runs`].

use event_log::read;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use run_events::RunState;
use run_events::snapshot::Snapshot;
use runlog_projectors::RunStatusProjection;
use serde_json::json;

use crate::bulk;
use crate::by_hand::apply;
use crate::support::{Database, Event, Log, run, step};
use crate::tables::{as_written, forget, rows};

const SCHEMA: &str = "run_status_1";

/// A row as it must be: runSeq, whether at the end, status, consistency, digest, state, persisted_at.
type Row = (i64, bool, String, String, Vec<u8>, String, i64);

const ROWS: &str = "
    SELECT run_seq, at_end, status, consistency, digest, state::text,
           (extract(epoch FROM persisted_at) * 1000000)::bigint
    FROM read_model.run_snapshot WHERE run_id = $1 ORDER BY run_seq";

/// The distance that a snapshot's place is a multiple of: 1000, 2000, 4000 ...
fn widths() -> impl DoubleEndedIterator<Item = i64> {
    (0..20).map(|doubled| 1_000 << doubled)
}

/// What the run's events make of the table, worked out from the log alone.
async fn expected(database: &Database, run_id: &str) -> Vec<Row> {
    let mut connection = database.pool.acquire().await.unwrap();
    let run_no = read::run_no(&mut connection, crate::support::TENANT, run_id).await;
    let run_no = run_no.unwrap().unwrap();
    let events = read::run_events(&mut connection, run_no, 1, i64::MAX, i64::MAX).await;
    let events = events.unwrap();
    let mut state = RunState::before(&events[0].logged);
    let mut rows: Vec<Row> = Vec::new();
    for event in &events {
        let had_ended = state.status.is_terminal();
        state.apply(&event.logged);
        let seq = event.logged.run_seq;
        let at_end = state.status.is_terminal() && !had_ended;
        // Every width is a multiple of the first.
        if !at_end && seq % 1_000 != 0 {
            continue;
        }
        let attempts: usize = state.steps.values().map(|attempts| attempts.len()).sum();
        assert_eq!(state.attempts(), attempts as i64);
        let width = widths().find(|width| *width >= attempts as i64).unwrap();
        if !at_end && seq % width != 0 {
            continue;
        }
        let snapshot = Snapshot::from(&state);
        let document = serde_json::to_string(&snapshot).unwrap();
        let document: String = sqlx::query_scalar("SELECT $1::jsonb::text")
            .bind(document)
            .fetch_one(&mut *connection)
            .await
            .unwrap();
        if document.len() > 16 << 20 {
            continue;
        }
        rows.push((
            seq,
            at_end,
            state.status.as_str().to_owned(),
            state.consistency().to_owned(),
            snapshot.digest().unwrap().0.to_vec(),
            document,
            event.logged.persisted_at.0,
        ));
        rows.retain(|(row, at_end, ..)| {
            let width = widths().rev().find(|width| row % width == 0).unwrap_or(0);
            *at_end || seq - row <= 4 * width
        });
    }
    rows
}

/// Compares the run's snapshots with the log; returns where they are.
pub(crate) async fn assert_equal_the_fold(
    database: &Database,
    run_id: &str,
    context: &str,
) -> Vec<i64> {
    let rows: Vec<Row> = sqlx::query_as(ROWS)
        .bind(run_id)
        .fetch_all(&database.pool)
        .await
        .unwrap();
    let expected = expected(database, run_id).await;
    let places = |rows: &[Row]| rows.iter().map(|row| row.0).collect::<Vec<_>>();
    assert_eq!(places(&rows), places(&expected), "{run_id}, {context}");
    for (row, expected) in rows.iter().zip(&expected) {
        assert!(row == expected, "{run_id}, runSeq {}, {context}", row.0);
        let read_back = Snapshot::from_json(&row.5).unwrap();
        assert_eq!(read_back.digest().unwrap().0.as_slice(), row.4, "{context}");
    }
    places(&rows)
}

/// Events of which most begin attempts, many are invalid, and one ends the run if `ends` says so.
fn hostile(random: &mut StdRng, streams: [i64; 2], ends: Option<usize>) -> Vec<(i64, Event)> {
    let mut events = vec![(streams[0], run("RunStarted"))];
    let mut stream = streams[0];
    for n in 1..4_200 {
        // In bursts, as a run is that has moved to another partition and back.
        if random.random_range(0..150) == 0 {
            stream = streams[random.random_range(0..2)];
        }
        let step_id = format!("step-{}", random.random_range(0..900));
        let attempt = random.random_range(1..5);
        let error = match random.random_range(0..4) {
            0 => json!({"error": [1e16, 1.0, 1e300, 9_007_199_254_740_993_u64, 0.1]}),
            1 => json!({"error": null}),
            _ => json!({"rows": 3}),
        };
        let event = match random.random_range(0..10) {
            _ if ends == Some(n) => run("RunFailed").payload(json!({"error": 1e16})),
            0 => run("RunQueued"),
            1 => run("RunAnnotated"),
            2 => step("StepFailed", &step_id, attempt).payload(error),
            3 => step("StepCompleted", &step_id, attempt),
            4 => step("StepSkipped", &step_id, attempt),
            _ => step("StepStarted", &step_id, attempt),
        };
        events.push((stream, event));
    }
    events
}

#[tokio::test]
async fn batches_of_any_size_through_two_streams_in_any_order_leave_the_snapshots_of_a_whole_fold()
{
    let database = Database::new().await;
    let log = Log::new(&database);
    let streams = [log.stream(0, 1, 0).await, log.stream(1, 1, 0).await];
    let mut random = StdRng::seed_from_u64(11);
    for (run_id, ends) in [
        ("open", None),
        ("ended", Some(2_345)),
        ("even", Some(1_999)),
    ] {
        let events = hostile(&mut random, streams, ends);
        bulk::append(&database, run_id, &events).await;
    }
    let mut first: Option<Vec<String>> = None;
    let turned = [streams[1], streams[0]];
    for (size, turns, streams) in [
        (2_000, 1, streams),
        (2_000, usize::from(u8::MAX), turned),
        (7, 1, streams),
        (7, 200, turned),
        (1, 50, streams),
    ] {
        forget(&database, SCHEMA).await;
        apply(&database, &RunStatusProjection, &streams, size, turns).await;
        let rows = rows(&database, SCHEMA).await;
        assert!(
            *first.get_or_insert_with(|| rows.clone()) == rows,
            "batches of {size}, {turns} in turn"
        );
    }
    // The attempts outgrow 1000 before event 2000, and 2000 before event 3000.
    for (run_id, places) in [
        ("open", [1_000, 2_000, 4_000].as_slice()),
        ("ended", &[1_000, 2_000, 2_346, 4_000]),
        ("even", &[1_000, 2_000, 4_000]),
    ] {
        let found = assert_equal_the_fold(&database, run_id, "any batches").await;
        assert_eq!(found, places, "{run_id}");
    }
    let at_end = "SELECT count(*) FROM read_model.run_snapshot
                  WHERE at_end AND status = 'FAILED' AND run_seq IN (2000, 2346)";
    assert_eq!(database.number(at_end).await, 2);

    // Redelivery of any prefix.
    let written = as_written(&database, SCHEMA).await;
    for (size, turns) in [(1_000, 1), (2_000, 2), (900, 5)] {
        apply(&database, &RunStatusProjection, &streams, size, turns).await;
        let rows = as_written(&database, SCHEMA).await;
        assert!(rows == written, "again, {size}");
    }
}

#[tokio::test]
async fn a_state_that_is_too_large_is_not_kept_whatever_the_batches() {
    let database = Database::new().await;
    let log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    let long = json!({"error": "x".repeat((1 << 20) - 100)});
    // Short as it is sent, and three hundred digits for each number where PostgreSQL writes it.
    let numbers = json!({"error": vec![1e300; 60_000]});
    for (run_id, errors, payload) in [
        ("fits", 15, &long),
        ("errors", 17, &long),
        ("wide", 1, &numbers),
    ] {
        let mut events = vec![(stream, run("RunStarted"))];
        for n in 0..errors {
            let step_id = format!("step-{n}");
            events.push((stream, step("StepStarted", &step_id, 1)));
            let failed = step("StepFailed", &step_id, 1).payload(payload.clone());
            events.push((stream, failed));
        }
        events.push((stream, run("RunCompleted")));
        bulk::append(&database, run_id, &events).await;
    }
    for size in [1, 5, 2_000] {
        forget(&database, SCHEMA).await;
        apply(&database, &RunStatusProjection, &[stream], size, 1).await;
        for (run_id, places) in [("fits", [32].as_slice()), ("errors", &[]), ("wide", &[])] {
            let context = format!("batches of {size}");
            let found = assert_equal_the_fold(&database, run_id, &context).await;
            assert_eq!(found, places, "{run_id}, {context}");
        }
    }
}
