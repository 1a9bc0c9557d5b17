//! What the events of a long run cost: the rows that PostgreSQL reads and writes for them, whichever table
//! they are in, are those of short runs. Time says nothing here.

use std::collections::BTreeMap;

use runlog_projectors::projection::NAMES;
use sqlx::AssertSqlSafe;

use crate::each;
use crate::logs;
use crate::snapshots::assert_equal_the_fold;
use crate::support::{Database, Running, Settings, settings};

/// Events of each of the two logs.
const EVENTS: i64 = 100_000;

/// Rows of a table that were read, written and removed.
#[derive(Debug, Default, Clone, Copy)]
struct Rows {
    read: i64,
    written: i64,
    removed: i64,
}

/// By the table's name with its schema.
type Cost = BTreeMap<String, Rows>;

/// What the database has read and written of the log's events and of all projections' rows so far.
async fn counted(database: &Database) -> Cost {
    // What a connection has counted is told at the latest when it ends.
    database
        .holds("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'runner')")
        .await;
    let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as(
        "SELECT schemaname || '.' || relname, coalesce(idx_tup_fetch, 0) + seq_tup_read, n_tup_ins + n_tup_upd, n_tup_del
         FROM pg_stat_user_tables
         WHERE schemaname IN (SELECT read_model.version_schema(projection, version) FROM read_model.projection_version)
            OR (schemaname, relname) = ('event_log', 'event')",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    let row = |(table, read, written, removed)| {
        (
            table,
            Rows {
                read,
                written,
                removed,
            },
        )
    };
    rows.into_iter().map(row).collect()
}

/// What it costs the projections, one after the other, to fold runs of `events` events each in batches of
/// 500.
async fn cost_of(database: &Database, events: usize) -> Cost {
    logs::runs_of(database, events).await;
    // The connections that have written the log tell what they have counted when they are used again.
    let told = format!(
        "SELECT n_tup_ins = {EVENTS} AND pg_stat_force_next_flush() IS NOT NULL
         FROM pg_stat_user_tables WHERE (schemaname, relname) = ('event_log', 'event')"
    );
    database.holds(AssertSqlSafe(told)).await;
    let before = counted(database).await;
    for name in NAMES {
        let batches = Settings {
            batch_events: 500,
            ..settings()
        };
        let running = Running::start_with(database, "one", batches, each::projection(name));
        let all = format!(
            "SELECT EXISTS (SELECT FROM read_model.projection_checkpoints
               WHERE projection = '{name}' AND applied = {EVENTS})"
        );
        database.holds(AssertSqlSafe(all)).await;
        running.stop().await;
    }
    let mut cost = counted(database).await;
    for (table, before) in before {
        let rows = cost.get_mut(&table).unwrap();
        rows.read -= before.read;
        rows.written -= before.written;
    }
    cost
}

#[tokio::test]
async fn an_event_of_a_long_run_costs_what_one_of_a_short_run_does_but_for_two_attempts_in_snapshots()
 {
    let (short, long) = (Database::new().await, Database::new().await);
    let of_short = cost_of(&short, 2_000).await;
    let of_long = cost_of(&long, 100_000).await;
    // Each batch of 500 writes what it has changed; a few events fall into other batches.
    let few = EVENTS / 100;
    for (table, short) in &of_short {
        let long = of_long[table];
        assert!(
            long.written <= short.written + few,
            "{table}: {long:?}, not {short:?}"
        );
        // No batch reads more rows than it has events, but for the whole attempts of a run of which a
        // snapshot is due. The log is read once for each projection, and once more for the payloads of a
        // fifth of its events.
        let (in_snapshots, at_most) = match table.as_str() {
            "run_status_1.step_attempt" => (2 * EVENTS, 3 * EVENTS),
            "event_log.event" => (0, 3 * EVENTS + EVENTS / 5 + few),
            _ => (0, EVENTS),
        };
        for (cost, at_most) in [
            (long, short.read + few + in_snapshots),
            (long, at_most),
            (*short, at_most),
        ] {
            assert!(
                cost.read <= at_most,
                "{table}: {cost:?}, more than {at_most} rows read"
            );
        }
    }
    // Were they counted? A fifth of the events begin attempts, two fifths begin a state.
    for (table, written) in [
        ("run_status_1.step_attempt", EVENTS / 5),
        ("run_timeline_1.run_state_interval", EVENTS * 2 / 5 - few),
        ("run_stats_1.run_stats_attempt", EVENTS / 5),
        ("run_stats_1.step_daily", EVENTS / 5),
    ] {
        for cost in [&of_short, &of_long] {
            assert!(cost[table].written >= written, "{table}: {:?}", cost[table]);
        }
    }
    let read = of_long["event_log.event"].read;
    assert!(read >= 3 * EVENTS, "{read} events read");
    let read = of_long["run_status_1.step_attempt"].read;
    assert!(read >= EVENTS / 5, "{read} attempts read");
    let snapshots = of_long["run_status_1.run_snapshot"];
    assert_snapshots_double(&long, snapshots).await;
}

/// The snapshots of the long run: few, thinned, right, and all of the run at its end.
async fn assert_snapshots_double(long: &Database, snapshots: Rows) {
    assert!((10..=40).contains(&snapshots.written), "{snapshots:?}");
    let held: i64 = long
        .number(
            "SELECT sum(jsonb_array_length(state -> 'steps'))::bigint FROM read_model.run_snapshot",
        )
        .await;
    assert!(held <= 2 * EVENTS, "{held} attempts held");
    let places = assert_equal_the_fold(long, "run-0", "100,000 events").await;
    assert_eq!(places.len() as i64, snapshots.written - snapshots.removed);
    assert_eq!(places.last(), Some(&EVENTS));
    assert!(snapshots.removed > 0, "none was thinned");
    let whole = "SELECT jsonb_array_length(state -> 'steps')::bigint FROM read_model.run_snapshot WHERE at_end";
    assert_eq!(long.number(whole).await, EVENTS / 5);
}
