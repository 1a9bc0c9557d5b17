//! Two appends that need the same rows, in opposite order and stopped half-way: whoever comes second
//! waits at the first of them, so that none holds what the other one needs.

use event_log::{Appended, Outcome};
use run_events::RunEvent;
use sqlx::{Postgres, Transaction};
use tokio::task::JoinHandle;

use crate::support::database::{Database, with_database};
use crate::support::events::{batch, event};

/// Sessions that wait for a lock, but the first.
const TWO_WAIT: &str = "SELECT count(*) - 1 FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'";

async fn append(
    database: &Database,
    partition: i32,
    events: Vec<RunEvent>,
) -> JoinHandle<Appended> {
    let mut writer = database.writer(partition).await;
    let pool = database.pool.clone();
    // A deadlock is an error, and fails the test.
    tokio::spawn(async move { writer.append(&pool, &batch(0, events)).await.unwrap() })
}

/// Appends to the runs a, b and c through one partition, and to c, b and a through another, while
/// `middle` holds what both need of b; then lets both go on. The runSeqs that they were given.
async fn both_ways(database: &Database, middle: Transaction<'static, Postgres>) -> Vec<i64> {
    let events = |partition: usize| {
        let step = format!("of {partition}");
        ["a", "b", "c"].map(|run| event("t", run, &step)).to_vec()
    };
    let mut backwards = events(1);
    backwards.reverse();
    let one = append(database, 0, events(0)).await;
    let other = append(database, 1, backwards).await;
    database.wait_until(true, TWO_WAIT).await;
    middle.rollback().await.unwrap();
    let mut seqs = Vec::new();
    for append in [one, other] {
        for outcome in append.await.unwrap().outcomes {
            match outcome {
                Outcome::Appended { run_seq } => seqs.push(run_seq),
                other => panic!("{other:?}"),
            }
        }
    }
    seqs.sort();
    seqs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_new_runs_in_opposite_order() {
    with_database(|database| async move {
        let mut middle = database.pool.begin().await.unwrap();
        sqlx::query("INSERT INTO event_log.run (tenant_id, run_id) VALUES ('t', 'b')")
            .execute(&mut *middle)
            .await
            .unwrap();
        assert_eq!(both_ways(&database, middle).await, [1, 1, 1, 2, 2, 2]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_the_same_runs_in_opposite_order() {
    with_database(|database| async move {
        let firsts = ["a", "b", "c"].map(|run| event("t", run, "first"));
        append(&database, 2, firsts.to_vec()).await.await.unwrap();
        let mut middle = database.pool.begin().await.unwrap();
        sqlx::query(
            "INSERT INTO event_log.event
             SELECT run_no, 2, 9, 9, emitted_at, persisted_at, gen_random_uuid(), 1, 1, sha256('other'),
                    content_digest, chain_digest, 't', 'e', 'p', 'e', 'p', 'v'
             FROM event_log.event JOIN event_log.run USING (run_no) WHERE run_id = 'b'",
        )
        .execute(&mut *middle)
        .await
        .unwrap();
        assert_eq!(both_ways(&database, middle).await, [2, 2, 2, 3, 3, 3]);
    })
    .await;
}
