//! The example of docs/projections.md: what stands there is what is compiled and run here.

mod run_last_event;

use std::sync::Arc;

use runlog_projectors::runner::versions::Version;
use runlog_projectors::verify::Verifier;

use crate::logs;
use crate::support::{Database, Log, Running, settings};
use run_last_event::RunLastEvent;

const MIGRATION: &str = include_str!("migration.sql");

#[test]
fn the_guide_shows_the_example_as_it_is() {
    let guide = include_str!("../../../../docs/projections.md");
    for part in [MIGRATION, include_str!("run_last_event.rs")] {
        assert!(
            guide.contains(part),
            "docs/projections.md has not this text:\n{part}"
        );
    }
}

#[tokio::test]
async fn the_guide_s_projection_keeps_up_is_verified_and_rebuilt() {
    let database = Database::new().await;
    database.execute(MIGRATION).await;
    let mut log = Log::new(&database);
    let streams = logs::partitions(&log, 2).await;
    logs::few_runs(&mut log, &streams, 31, 300).await;
    let batches = crate::support::Settings {
        batch_events: 7,
        ..settings()
    };
    let running = Running::start_with(&database, "one", batches, Arc::new(RunLastEvent));
    database.caught_up().await;
    let wrong = "SELECT count(*) FROM (
        SELECT tenant_id, run_id, run_seq, event_type, persisted_at FROM (
          SELECT *, max(run_seq) OVER (PARTITION BY tenant_id, run_id) AS last FROM event_log.run_events) e
        WHERE run_seq = last
        EXCEPT
        SELECT tenant_id, run_id, last_event_seq, event_type, persisted_at FROM read_model.run_last_event) d";
    assert_eq!(database.number(wrong).await, 0);
    assert_eq!(
        database
            .number("SELECT count(*) FROM read_model.run_last_event")
            .await,
        6
    );

    let mut connection = database.pool.acquire().await.unwrap();
    let version = Version {
        projection: "run_last_event".to_owned(),
        version: 1,
        is_live: true,
    };
    let verifier = Verifier::new(&mut connection, version).await.unwrap();
    let verified = verifier
        .runs(&mut connection, &RunLastEvent, 0, i64::MAX)
        .await
        .unwrap();
    assert_eq!(
        (verified.rows, verified.differences),
        (6, 0),
        "{:?}",
        verified.lines
    );
    connection.close_on_drop();

    database
        .execute("SELECT read_model.begin_rebuild('run_last_event')")
        .await;
    database
        .holds(
            "SELECT count(*) = 2 AND bool_and(c.next_offset = s.next_offset)
             FROM read_model.projection_checkpoint c JOIN event_log.stream s USING (stream_id) WHERE c.version = 2",
        )
        .await;
    let differing = "SELECT count(*) FROM (
        SELECT tenant_id, run_id, last_event_seq, event_type, persisted_at FROM run_last_event_1.run_last_event
        EXCEPT SELECT tenant_id, run_id, last_event_seq, event_type, persisted_at FROM run_last_event_2.run_last_event) d";
    assert_eq!(database.number(differing).await, 0);
    running.stop().await;
}
