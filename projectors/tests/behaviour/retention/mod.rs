//! Retention: what an act leaves, and what is refused. The interleavings with ingest: [`interleavings`].

mod interleavings;
mod refused;

use event_log::generation::Operator;
use event_log::{Outcome, StreamWriter};
use run_events::Reason;
use runlog_projectors::projection::{NAMES, ProjectionError};
use runlog_projectors::retention::Retirer;
use sqlx::Connection as _;

use crate::ingested::{Partition, event, failed_run, project_all, rebuild_all, run_no, verify_log};
use crate::support::Database;
use crate::verify::verify_version;

const BY: Operator<'static> = Operator {
    name: "anna@host",
    reason: "older than a year",
};

/// Retires these runs of tenant `acme` as they are.
pub(crate) async fn retire(database: &Database, runs: &[&str]) -> Result<i64, ProjectionError> {
    let mut wanted = Vec::new();
    for run in runs {
        let run_no = run_no(database, run).await;
        let head = sqlx::query_scalar("SELECT max(run_seq) FROM event_log.event WHERE run_no = $1");
        let head: Option<i64> = head.bind(run_no).fetch_one(&database.pool).await.unwrap();
        wanted.push((run_no, head.unwrap_or(0)));
    }
    let options = database.pool.connect_options();
    let mut connection = sqlx::PgConnection::connect_with(&options).await.unwrap();
    let retirer = Retirer::new(&mut connection).await.unwrap();
    retirer.retire(&mut connection, &wanted, BY).await
}

/// The SQLSTATE and the message of the database's refusal.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, ProjectionError>) -> (String, String) {
    match result.unwrap_err() {
        ProjectionError::Database { cause, .. } => {
            let error = cause.as_database_error().unwrap();
            (
                error.code().unwrap().into_owned(),
                error.message().to_owned(),
            )
        }
        error => panic!("{error:?}"),
    }
}

/// `count` rows of these runs in every table of every version that has a run_id.
async fn rows_of_runs(database: &Database, runs: &str) -> i64 {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT a.attrelid::regclass::text FROM read_model.projection_version v
         JOIN pg_class c ON c.relnamespace = read_model.version_schema(v.projection, v.version)::regnamespace
         JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'run_id' AND c.relkind = 'r'",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    assert!(tables.len() >= 2 * 8, "{tables:?}");
    let mut rows = 0;
    for table in tables {
        let count = format!("SELECT count(*) FROM {table} WHERE run_id ~ '{runs}'");
        let count = sqlx::query_scalar::<_, i64>(sqlx::AssertSqlSafe(count));
        rows += count.fetch_one(&database.pool).await.unwrap();
    }
    rows
}

const SUMS: &str = "SELECT jsonb_build_array(
    (SELECT jsonb_agg(to_jsonb(h) - 'projected_at' ORDER BY h) FROM read_model.run_hourly h),
    (SELECT jsonb_agg(to_jsonb(d) - 'projected_at' ORDER BY d) FROM read_model.run_daily d),
    (SELECT jsonb_agg(to_jsonb(s) - 'projected_at' ORDER BY s) FROM read_model.step_daily s))::text";

async fn sums(database: &Database) -> String {
    sqlx::query_scalar(SUMS)
        .fetch_one(&database.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn retired_runs_leave_a_tombstone_their_counts_and_nothing_else() {
    let database = Database::new().await;
    let mut first = Partition::claim(&database, 0).await;
    let mut second = Partition::claim(&database, 1).await;
    for run in ["old-1", "old-2", "new-1"] {
        // The last two events come through the other partition.
        let mut events = failed_run(run);
        let tail = events.split_off(5);
        first.append(&database, events).await;
        second.append(&database, tail).await;
    }
    second
        .append(&database, vec![event("running", "RunStarted", None)])
        .await;
    project_all(&database).await;
    rebuild_all(&database).await;
    let (counted, untouched) = (sums(&database).await, verify_log(&database).await);

    let act = retire(&database, &["old-1", "old-2"]).await.unwrap();

    assert_eq!(
        database
            .number("SELECT count(*) FROM event_log.run_events WHERE run_id ~ 'old'")
            .await,
        0
    );
    assert_eq!(
        database
            .number("SELECT count(*) FROM event_log.event")
            .await,
        8
    );
    assert_eq!(rows_of_runs(&database, "old").await, 0);
    assert!(rows_of_runs(&database, "new").await > 0);
    assert_eq!(sums(&database).await, counted);
    let audit: (String, String, String, String, String) = sqlx::query_as(
        "SELECT operator, action, subject, detail::text, reason FROM event_log.audit WHERE audit_id = $1",
    )
    .bind(act)
    .fetch_one(&database.pool)
    .await
    .unwrap();
    let expected = [
        "anna@host",
        "run.retire",
        "2 runs of tenant acme",
        r#"{"runs": 2, "events": 14}"#,
        "older than a year",
    ];
    assert_eq!([&audit.0, &audit.1, &audit.2, &audit.3, &audit.4], expected);
    // Nothing is found, and the digest of all heads is what it was.
    assert_eq!(verify_log(&database).await, (Vec::new(), untouched.1));
    for name in NAMES {
        let verified = verify_version(&database, name, 2, 2).await;
        assert_eq!(
            (verified.runs, verified.differences),
            (2, 0),
            "{name}: {:?}",
            verified.lines
        );
    }

    // A rebuild reads fewer events, and says the same.
    rebuild_all(&database).await;
    assert_eq!(sums(&database).await, counted);
    // And once more, after a second act.
    retire(&database, &["new-1"]).await.unwrap();
    rebuild_all(&database).await;
    assert_eq!(
        database
            .number("SELECT sum(failed)::bigint FROM read_model.run_daily")
            .await,
        3
    );
    assert_eq!(verify_log(&database).await.0, Vec::<String>::new());
}

#[tokio::test]
async fn a_late_event_of_a_retired_run_is_a_dead_letter_and_never_a_second_history() {
    let database = Database::new().await;
    let mut cached = Partition::claim(&database, 0).await;
    cached.append(&database, failed_run("old")).await;
    project_all(&database).await;
    retire(&database, &["old"]).await.unwrap();

    let retired = Outcome::DeadLetter(Reason::RunRetired);
    // Who wrote the run knows its keys: a duplicate is one still. A new key finds that the run is gone.
    let mut duplicate = failed_run("old");
    let known = cached.append(&database, vec![duplicate.remove(0)]).await;
    assert!(matches!(known[..], [Outcome::Duplicate(_)]), "{known:?}");
    let late = vec![
        event("old", "StepStarted", Some("late")),
        event("other", "RunQueued", None),
    ];
    assert_eq!(
        cached.append(&database, late).await,
        [retired, Outcome::Appended { run_seq: 1 }]
    );
    // Who does not know it decides so before the key is looked at.
    let mut fresh = Partition::claim(&database, 1).await;
    let mut events = failed_run("old");
    events.push(event("old", "RunStarted", Some("late")));
    assert_eq!(fresh.append(&database, events).await, vec![retired; 8]);
    // And remembers it.
    let again = fresh
        .append(&database, vec![event("old", "RunQueued", None)])
        .await;
    assert_eq!(again, [retired]);

    assert_eq!(
        database
            .number("SELECT count(*) FROM event_log.dead_letter WHERE reason = 'run_retired' AND tenant_id = 'acme' AND run_id = 'old'")
            .await,
        10
    );
    assert_eq!(
        database
            .number("SELECT count(*) FROM event_log.run_events WHERE run_id = 'old'")
            .await,
        0
    );
    project_all(&database).await;
    assert_eq!(verify_log(&database).await.0, Vec::<String>::new());
}

#[tokio::test]
async fn a_lost_answer_to_a_commit_is_found_again_after_its_run_was_retired() {
    let database = Database::new().await;
    let mut partition = Partition::claim(&database, 0).await;
    let batch = partition.batch(failed_run("old"));
    partition
        .writer
        .append(&database.pool, &batch)
        .await
        .unwrap();
    project_all(&database).await;
    retire(&database, &["old"]).await.unwrap();
    // The same batch again, as after a commit whose answer was lost.
    let mut writer = StreamWriter::new(partition.writer.claim().clone());
    let appended = writer.append(&database.pool, &batch).await.unwrap();
    assert_eq!(
        appended.outcomes,
        vec![Outcome::DeadLetter(Reason::RunRetired); 7]
    );
    assert_eq!(verify_log(&database).await.0, Vec::<String>::new());
}
