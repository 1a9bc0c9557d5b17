//! `read_model.runs_in_state`: who was in a state at a time.

use crate::support::Database;

/// RUNNING intervals of every length at which `duration_class` changes, a millisecond less and a
/// millisecond more, some microseconds beside, all around one time; and one without an end.
const INTERVALS: &str = "
    INSERT INTO run_timeline_1.run_state_interval
      (tenant_id, run_id, interval_no, state, started_at, ended_at, duration_ms, emitted_started_at, emitted_ended_at,
       project_id, environment_id, plan_id, plan_version, last_event_seq)
    SELECT tenant_id, format('%s %s %s', tenant_id, state, row_number() OVER ()), 1, state, started_at,
           started_at + duration, floor(extract(epoch FROM duration) * 1000), started_at, started_at + duration,
           'p', 'e', 'plan', '1', 1
    FROM (VALUES ('acme', 'RUNNING'), ('acme', 'PAUSED'), ('other', 'RUNNING')) AS of (tenant_id, state),
         generate_series(0, 17) AS class, unnest(ARRAY[-1000, -1, 0, 1, 999, 1000]) AS beside,
         make_interval(secs => (4 ^ class)::bigint + beside / 1e6) AS duration,
         unnest(ARRAY[0, 0.5, 1]) AS share,
         LATERAL (SELECT timestamptz '2026-03-01 12:00:00Z' - duration * share AS started_at) AS start
    UNION ALL
    SELECT 'acme', 'open', 1, 'RUNNING', '1900-01-01', NULL, NULL, '1900-01-01', NULL, 'p', 'e', 'plan', '1', 1";

/// The times, of those at which anything begins or ends and a microsecond beside, at which a plain
/// reading of the table says something else.
const DIFFERENCES: &str = "
    SELECT count(*) FROM (
      SELECT DISTINCT edge + make_interval(secs => beside / 1e6) AS at
      FROM read_model.run_state_interval, unnest(ARRAY[started_at, ended_at]) AS edge,
           unnest(ARRAY[-1, 0, 1]) AS beside
      WHERE edge IS NOT NULL) AS times
    WHERE ARRAY(SELECT run_id FROM read_model.runs_in_state('acme', 'RUNNING', at) ORDER BY run_id)
       <> ARRAY(SELECT run_id FROM read_model.run_state_interval
                WHERE tenant_id = 'acme' AND state = 'RUNNING'
                  AND started_at <= at AND (ended_at > at OR ended_at IS NULL)
                ORDER BY run_id)";

#[tokio::test]
async fn it_finds_what_a_reading_of_the_whole_table_finds_whatever_the_length_of_the_stays() {
    let database = Database::new().await;
    assert_eq!(database.execute(INTERVALS).await, 973);
    assert_eq!(database.number(DIFFERENCES).await, 0);
    let found =
        "SELECT count(*) FROM read_model.runs_in_state('acme', 'RUNNING', '2026-03-01 12:00:00Z')";
    assert!(database.number(found).await > 200);
}
