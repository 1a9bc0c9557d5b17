//! A writer's statements stay index lookups while the log grows under them.

use event_log::StreamWriter;
use run_events::RunEvent;
use sqlx::PgPool;

use crate::support::database::{Database, pool, with_database};
use crate::support::events::{batch, event};

/// Rows of the log that this pool's only session has read by scanning, so far.
async fn scanned(database: &Database, single: &PgPool) -> i64 {
    for statement in ["SELECT pg_stat_force_next_flush()", "SELECT 1"] {
        sqlx::raw_sql(statement).execute(single).await.unwrap();
    }
    database
        .number("SELECT seq_tup_read FROM pg_stat_user_tables WHERE relid = 'event_log.event'::regclass")
        .await
}

/// A batch that goes down both paths: new events, a repeated key and an event id that is taken.
fn both_paths(start: i64, taken: &RunEvent) -> event_log::Batch {
    let new = (0..10).map(|run| event("t", &format!("run {run}"), &format!("at {start}")));
    let reused = RunEvent {
        event_id: taken.event_id,
        ..event("t", "run 1", "reused")
    };
    batch(start, new.chain([reused, taken.clone()]))
}

#[tokio::test]
async fn plans_that_were_made_on_a_small_log_do_not_scan_a_large_one() {
    with_database(|database| async move {
        // One session, so that its prepared statements grow old.
        let single = pool(&database.options, 1).await;
        let mut writer = database.writer(0).await;
        let taken = event("t", "run 0", "taken");
        let mut start = 1;
        let first = batch(0, [taken.clone()]);
        writer.append(&single, &first).await.unwrap();
        for _ in 0..12 {
            let next = both_paths(start, &taken);
            writer.append(&single, &next).await.unwrap();
            start = next.end;
        }
        let grow = "INSERT INTO event_log.event
            SELECT 1000 + n, 1, 1000, n, now(), now(), gen_random_uuid(), 1, 1, sha256(n::text::bytea),
                   sha256(''), sha256(''), 't', 'e', 'p', 'e', 'p', 'v'
            FROM generate_series(1, 50000) n";
        database.run(grow).await.unwrap();
        let before = scanned(&database, &single).await;
        for cold in [false, true] {
            if cold {
                writer = StreamWriter::new(writer.claim().clone());
            }
            let next = both_paths(start, &taken);
            writer.append(&single, &next).await.unwrap();
            // And once more, as after a commit whose answer was lost.
            writer.append(&single, &next).await.unwrap();
            start = next.end;
        }
        assert_eq!(scanned(&database, &single).await - before, 0);
    })
    .await;
}
