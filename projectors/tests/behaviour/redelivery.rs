//! A log that is read again from any place: each projection knows what it has applied, and writes nothing.

use crate::each;
use crate::logs;
use crate::support::{Database, Log, project_with};
use crate::tables::as_written;

/// Sets every checkpoint so many offsets back, to its stream's start at most; the events from there on.
async fn set_back(database: &Database, offsets: i64) -> i64 {
    sqlx::query(
        "UPDATE read_model.projection_checkpoint c
         SET next_offset = to_offset, applied =
           (SELECT count(*) FROM event_log.event e
            WHERE e.stream_id = c.stream_id AND e.source_offset < to_offset)
         FROM (SELECT stream_id, greatest(start_offset, next_offset - $1) AS to_offset
               FROM event_log.stream) s
         WHERE s.stream_id = c.stream_id",
    )
    .bind(offsets)
    .execute(&database.pool)
    .await
    .unwrap();
    database
        .number(
            "SELECT count(*) FROM event_log.event e JOIN read_model.projection_checkpoint c USING (stream_id)
             WHERE e.source_offset >= c.next_offset",
        )
        .await
}

async fn writes_nothing_again(name: &str) {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let streams = logs::partitions(&log, 2).await;
    each::write(name, &mut log, &streams, 5, 300).await;
    project_with(&database, name, 2000).await;
    let before = as_written(&database, &each::first(name)).await;
    for back in [1, 6, 9, 25, 80, 1000] {
        let again = set_back(&database, back).await;
        let metrics = project_with(&database, name, 9).await;
        let read = metrics.events.with_label_values(&[name]).get();
        assert_eq!(read as i64, again, "{name}, {back} offsets back");
        assert_eq!(
            metrics.inconsistencies.get(),
            0,
            "{name}, {back} offsets back"
        );
        let rows = as_written(&database, &each::first(name)).await;
        assert!(rows == before, "{name} has written, {back} offsets back");
    }
    let all = database
        .number("SELECT count(*) FROM event_log.event")
        .await;
    assert_eq!((set_back(&database, 1000).await, all), (300, 300));
    each::assert_shown(name, &database, "after all").await;
}

#[tokio::test]
async fn redelivery_of_any_prefix_changes_nothing() {
    writes_nothing_again("run_status").await;
}

#[tokio::test]
async fn redelivery_of_any_prefix_writes_nothing() {
    writes_nothing_again("run_timeline").await;
}

#[tokio::test]
async fn redelivery_of_any_prefix_counts_nothing_twice() {
    writes_nothing_again("run_stats").await;
}
