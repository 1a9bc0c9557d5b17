//! One run through several partitions at the same time.

use std::collections::BTreeMap;

use event_log::fault::sqlstate;
use event_log::{AppendError, Appended, Batch, FaultClass, Outcome, StreamWriter};
use run_events::{Reason, RunEvent};
use sqlx::PgPool;
use uuid::Uuid;

use crate::support::database::{Database, WAITING_FOR_A_LOCK, with_database};
use crate::support::events::{batch, event};

/// Appends until it is appended; how often another writer was in the way. A deadlock is a failure.
async fn append(writer: &mut StreamWriter, pool: &PgPool, batch: &Batch) -> (Appended, u32) {
    let mut lost = 0;
    loop {
        match writer.append(pool, batch).await {
            Ok(appended) => return (appended, lost),
            Err(AppendError::Fault {
                class: FaultClass::Environment,
                source,
                ..
            }) => {
                assert_eq!(sqlstate(&source).as_deref(), Some("23505"), "{source}");
                lost += 1;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// Every partition appends its batches, all at the same time. Outcomes by (partition, offset).
async fn race(
    database: &Database,
    partitions: Vec<Vec<Vec<RunEvent>>>,
) -> BTreeMap<(i32, i64), Outcome> {
    let mut tasks = Vec::new();
    for (partition, batches) in (0..).zip(partitions) {
        let database = database.clone();
        tasks.push(tokio::spawn(async move {
            let mut writer = database.writer(partition).await;
            let (mut outcomes, mut start) = (Vec::new(), 0);
            for events in batches {
                let batch = batch(start, events);
                start = batch.end;
                let (appended, _) = append(&mut writer, &database.pool, &batch).await;
                outcomes.extend(appended.outcomes);
            }
            let at = move |(offset, outcome)| ((partition, offset), outcome);
            (0..).zip(outcomes).map(at).collect::<Vec<_>>()
        }));
    }
    let mut all = BTreeMap::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    all
}

/// Whatever happened, each run is 1..n with a whole chain, and each answer was true.
async fn assert_sound(database: &Database, outcomes: &BTreeMap<(i32, i64), Outcome>) {
    let broken: Vec<String> = sqlx::query_scalar(
        "SELECT run_id FROM event_log.run_events GROUP BY tenant_id, run_id
         HAVING min(run_seq) <> 1 OR max(run_seq) <> count(*)",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    assert_eq!(broken, Vec::<String>::new(), "runs with holes");
    let rows: Vec<(i32, i64, i64, Uuid)> = sqlx::query_as(
        "SELECT partition, source_offset, run_seq, event_id FROM event_log.run_events",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    let by_id: BTreeMap<Uuid, i64> = rows.iter().map(|r| (r.3, r.2)).collect();
    let by_place: BTreeMap<(i32, i64), i64> = rows.iter().map(|r| ((r.0, r.1), r.2)).collect();
    for (place, outcome) in outcomes {
        match outcome {
            Outcome::Appended { run_seq } => assert_eq!(by_place.get(place), Some(run_seq)),
            Outcome::Duplicate(original) | Outcome::Conflict(original) => {
                assert_eq!(by_id.get(&original.event_id), Some(&original.run_seq));
                assert_eq!(by_place.get(place), None);
            }
            Outcome::DeadLetter(_) => assert_eq!(by_place.get(place), None),
        }
    }
    let appended = outcomes
        .values()
        .filter(|o| matches!(o, Outcome::Appended { .. }));
    assert_eq!(appended.count(), rows.len());
    assert_chains(database).await;
}

/// Each event's chain digest follows from the one before.
async fn assert_chains(database: &Database) {
    let broken: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM (
           SELECT chain_digest, sha256(
             lag(chain_digest, 1, decode(repeat('00', 32), 'hex')) OVER (PARTITION BY run_no ORDER BY run_seq)
             || int8send(run_seq) || uuid_send(event_id) || idempotency_key
             || int8send((extract(epoch FROM emitted_at) * 1000000)::bigint)
             || int4send(engine_attempt_id) || content_digest) AS expected
           FROM event_log.event) links
         WHERE chain_digest <> expected",
    )
    .fetch_one(&database.pool)
    .await
    .unwrap();
    assert_eq!(broken, 0, "broken links");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_partitions_with_the_same_new_runs_number_them_once() {
    with_database(|database| async move {
        // Forty batches, each with three runs that neither knows, in opposite order.
        let batches = |partition: usize| {
            let batch = move |n: usize| {
                let mut runs = vec![3 * n, 3 * n + 1, 3 * n + 2];
                if partition == 1 {
                    runs.reverse();
                }
                let event = |run| event("t", &format!("run {run}"), &format!("of {partition}"));
                runs.into_iter().map(event).collect()
            };
            (0..40).map(batch).collect()
        };
        let outcomes = race(&database, vec![batches(0), batches(1)]).await;
        assert_sound(&database, &outcomes).await;
        assert_eq!(
            database.number("SELECT count(*) FROM event_log.run").await,
            120
        );
        assert_eq!(
            database
                .number("SELECT count(*) FROM event_log.event")
                .await,
            240
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_rounds_on_one_run_leave_one_to_n() {
    with_database(|database| async move {
        let batches = |partition: usize| {
            let step = move |n: usize, i: usize| event("t", "run", &format!("{partition} {n} {i}"));
            (0..60)
                .map(|n| (0..5).map(|i| step(n, i)).collect())
                .collect()
        };
        let outcomes = race(&database, vec![batches(0), batches(1), batches(2)]).await;
        assert!(
            outcomes
                .values()
                .all(|o| matches!(o, Outcome::Appended { .. }))
        );
        assert_sound(&database, &outcomes).await;
        for partition in 0..3 {
            let seqs =
                outcomes
                    .iter()
                    .filter(|((p, _), _)| *p == partition)
                    .map(|(_, o)| match o {
                        Outcome::Appended { run_seq } => *run_seq,
                        other => panic!("{other:?}"),
                    });
            assert!(
                seqs.is_sorted(),
                "runSeq is in offset order within partition {partition}"
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn opposite_run_orders_never_deadlock() {
    with_database(|database| async move {
        // Half of the batches go down the checked path, which locks the runs: they hold an event id
        // that the log has.
        let held = event("t", "held", "held");
        race(&database, vec![vec![], vec![], vec![vec![held.clone()]]]).await;
        let batches = |partition: usize| {
            let held = held.event_id;
            let batch = move |n: usize| {
                let event =
                    |run: usize| event("t", &format!("run {run}"), &format!("{partition} {n}"));
                let mut events: Vec<_> = (0..12).map(event).collect();
                if (n + partition).is_multiple_of(2) {
                    events.reverse();
                }
                if n.is_multiple_of(2) {
                    events.push(RunEvent {
                        event_id: held,
                        ..event(99)
                    });
                }
                events
            };
            (0..40).map(batch).collect()
        };
        let outcomes = race(&database, vec![batches(0), batches(1)]).await;
        let reused = Outcome::DeadLetter(Reason::EventIdReused);
        assert_eq!(outcomes.values().filter(|o| **o == reused).count(), 40);
        assert_eq!(
            database
                .number("SELECT count(*) FROM event_log.event")
                .await,
            2 * 40 * 12 + 1
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_events_through_every_partition_at_once_are_appended_once() {
    with_database(|database| async move {
        let events: Vec<_> = (0..200)
            .map(|n| event("t", &format!("run {}", n % 3), &n.to_string()))
            .collect();
        let copy = || {
            let retry = |e: &RunEvent| RunEvent {
                event_id: Uuid::now_v7(),
                ..e.clone()
            };
            let retries: Vec<_> = events.iter().map(retry).collect();
            retries.chunks(10).map(<[_]>::to_vec).collect()
        };
        let outcomes = race(&database, vec![copy(), copy(), copy()]).await;
        assert_sound(&database, &outcomes).await;
        assert_eq!(
            database
                .number("SELECT count(*) FROM event_log.event")
                .await,
            200
        );
        let duplicates = outcomes
            .values()
            .filter(|o| matches!(o, Outcome::Duplicate(_)));
        assert_eq!(duplicates.count(), 400);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_id_that_two_tenants_use_at_once_goes_to_one_of_them() {
    with_database(|database| async move {
        let ids: Vec<Uuid> = (0..40).map(|_| Uuid::new_v4()).collect();
        let batches = |tenant: &str| {
            let of = |(n, event_id): (usize, &Uuid)| {
                vec![RunEvent {
                    event_id: *event_id,
                    ..event(tenant, "run", &n.to_string())
                }]
            };
            ids.iter().enumerate().map(of).collect()
        };
        let outcomes = race(&database, vec![batches("one"), batches("two")]).await;
        assert_sound(&database, &outcomes).await;
        let reused = Outcome::DeadLetter(Reason::EventIdReused);
        assert_eq!(outcomes.values().filter(|o| **o == reused).count(), 40);
    })
    .await;
}

/// Appends while another transaction holds the new run's number, and ends that one when the append
/// waits for it.
async fn behind_a_new_run(database: &Database, commits: bool) -> Appended {
    let mut first = database.pool.begin().await.unwrap();
    sqlx::query("INSERT INTO event_log.run (tenant_id, run_id) VALUES ('t', 'run')")
        .execute(&mut *first)
        .await
        .unwrap();
    let mut writer = database.writer(0).await;
    let pool = database.pool.clone();
    let second = tokio::spawn(async move {
        let batch = batch(0, [event("t", "a run", "a"), event("t", "run", "a")]);
        writer.append(&pool, &batch).await.unwrap()
    });
    database.wait_until(true, WAITING_FOR_A_LOCK).await;
    if commits {
        first.commit().await.unwrap();
    } else {
        first.rollback().await.unwrap();
    }
    second.await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_run_that_another_partition_is_making_is_waited_for() {
    for commits in [true, false] {
        with_database(move |database| async move {
            let appended = behind_a_new_run(&database, commits).await;
            assert_eq!(appended.outcomes, [Outcome::Appended { run_seq: 1 }; 2]);
            assert_eq!(
                database.number("SELECT count(*) FROM event_log.run").await,
                2
            );
        })
        .await;
    }
}

#[tokio::test]
async fn a_writer_that_lags_behind_another_partition_catches_up() {
    with_database(|database| async move {
        let mut one = database.writer(0).await;
        let mut two = database.writer(1).await;
        // Both know the run; each batch of one makes the other's memory old.
        for n in 0..5 {
            for (partition, writer) in [&mut one, &mut two].into_iter().enumerate() {
                let new = event("t", "run", &format!("{n} of {partition}"));
                let (appended, lost) = append(writer, &database.pool, &batch(n, [new])).await;
                let run_seq = 2 * n + partition as i64 + 1;
                assert_eq!(appended.outcomes, [Outcome::Appended { run_seq }]);
                assert_eq!(lost, 0);
            }
        }
        assert_eq!(
            database.run_seqs("t", "run").await,
            [1, 3, 5, 7, 9, 2, 4, 6, 8, 10]
        );
        assert_chains(&database).await;
    })
    .await;
}
