//! What becomes of records that one writer appends.

use event_log::{AppendError, FaultClass, Original, Outcome, StreamWriter};
use run_events::digest::chain_digest;
use run_events::{Digest, Reason, RunEvent};
use uuid::Uuid;

use crate::support::database::{Database, with_database};
use crate::support::events::{batch, event, event_with, shape};
use crate::support::refusing_server::refusing;

/// Appends with a writer whose cache is warm, cold, or whose every insert fails at first.
async fn outcomes(
    database: &Database,
    partition: i32,
    batches: &[Vec<RunEvent>],
    warm: bool,
) -> Vec<Outcome> {
    let mut writer = database.writer(partition).await;
    let (mut all, mut start) = (Vec::new(), 0);
    for events in batches {
        if !warm {
            writer = StreamWriter::new(writer.claim().clone());
        }
        let batch = batch(start, events.clone());
        start = batch.end;
        all.extend(
            writer
                .append(&database.pool, &batch)
                .await
                .unwrap()
                .outcomes,
        );
    }
    all
}

/// Two events of each run, a duplicate in the same batch, one of the batch before, a conflict in
/// each way, and a reused event id.
fn eventful(tenant: &str) -> Vec<Vec<RunEvent>> {
    let first = event(tenant, "run 1", "a");
    let reused = RunEvent {
        event_id: first.event_id,
        ..event(tenant, "run 2", "reused")
    };
    vec![
        vec![
            first.clone(),
            event_with(tenant, "run 2", "a", r#"{"n": 1}"#),
            event_with(tenant, "run 2", "a", r#"{"n": 1.0}"#),
            event_with(tenant, "run 2", "a", r#"{"n": 2}"#),
        ],
        vec![
            RunEvent {
                event_id: Uuid::new_v4(),
                engine_attempt_id: 9,
                ..first.clone()
            },
            RunEvent {
                project_id: "other".to_owned(),
                ..first
            },
            reused,
            event(tenant, "run 1", "b"),
            event(tenant, "run 3", "a"),
        ],
    ]
}

#[tokio::test]
async fn the_warm_the_cold_and_the_checked_path_decide_alike() {
    with_database(|database| async move {
        let cold = outcomes(&database, 0, &eventful("cold"), false).await;
        let warm = outcomes(&database, 1, &eventful("warm"), true).await;
        // An event id that the log holds sends the whole batch down the checked path.
        let mut batches = eventful("checked");
        let held = event("other", "run", "held");
        outcomes(&database, 2, &[vec![held.clone()]], true).await;
        for events in &mut batches {
            let event_id = held.event_id;
            events.push(RunEvent {
                event_id,
                ..event("checked", "run", "x")
            });
        }
        let mut checked = outcomes(&database, 3, &batches, true).await;
        let last = checked.pop();
        assert_eq!(last, Some(Outcome::DeadLetter(Reason::EventIdReused)));
        assert_eq!(
            checked.remove(4),
            Outcome::DeadLetter(Reason::EventIdReused)
        );
        let expected = [
            "Appended { run_seq: 1 }",
            "Appended { run_seq: 1 }",
            "duplicate of 1",
            "conflict with 1",
            "duplicate of 1",
            "conflict with 1",
            "DeadLetter(EventIdReused)",
            "Appended { run_seq: 2 }",
            "Appended { run_seq: 1 }",
        ];
        assert_eq!(shape(&cold), expected);
        assert_eq!(shape(&warm), expected);
        assert_eq!(shape(&checked), expected);
    })
    .await;
}

#[tokio::test]
async fn a_duplicate_learns_the_original_wherever_it_comes_from() {
    with_database(|database| async move {
        let original = event("t", "run", "a");
        let retry = |attempt| RunEvent {
            event_id: Uuid::new_v4(),
            engine_attempt_id: attempt,
            ..original.clone()
        };
        let mut writer = database.writer(0).await;
        let first = batch(0, [event("t", "run", "before"), original.clone(), retry(2)]);
        let appended = writer.append(&database.pool, &first).await.unwrap();
        let duplicate = Outcome::Duplicate(Original {
            event_id: original.event_id,
            run_seq: 2,
            persisted_at: appended.persisted_at,
        });
        assert_eq!(appended.outcomes[2], duplicate, "in the same batch");
        let later = writer
            .append(&database.pool, &batch(3, [retry(3)]))
            .await
            .unwrap();
        assert_eq!(later.outcomes, [duplicate], "in a later batch");
        let mut other = database.writer(1).await;
        let elsewhere = other
            .append(&database.pool, &batch(0, [retry(4)]))
            .await
            .unwrap();
        assert_eq!(elsewhere.outcomes, [duplicate], "through another partition");
        assert_eq!(
            database
                .number("SELECT count(*) FROM event_log.event")
                .await,
            2
        );
    })
    .await;
}

#[tokio::test]
async fn a_duplicate_of_an_event_that_was_not_loaded_is_found() {
    with_database(|database| async move {
        let events: Vec<_> = (0..600)
            .map(|n| event("t", "run", &n.to_string()))
            .collect();
        let mut writer = database.writer(0).await;
        writer
            .append(&database.pool, &batch(0, events.clone()))
            .await
            .unwrap();
        // A cold writer loads a run's newest events only.
        let mut writer = StreamWriter::new(writer.claim().clone());
        let again = batch(
            600,
            [
                events[0].clone(),
                event("t", "run", "new"),
                events[599].clone(),
            ],
        );
        let appended = writer.append(&database.pool, &again).await.unwrap();
        assert_eq!(
            shape(&appended.outcomes),
            [
                "duplicate of 1",
                "Appended { run_seq: 601 }",
                "duplicate of 600"
            ]
        );
    })
    .await;
}

#[tokio::test]
async fn equal_run_ids_of_two_tenants_are_two_runs() {
    with_database(|database| async move {
        let events = [
            event("one", "run", "a"),
            event("two", "run", "a"),
            event("one", "run", "b"),
        ];
        let mut writer = database.writer(0).await;
        let appended = writer
            .append(&database.pool, &batch(0, events))
            .await
            .unwrap();
        let seqs = [1, 1, 2].map(|run_seq| Outcome::Appended { run_seq });
        assert_eq!(appended.outcomes, seqs);
    })
    .await;
}

#[tokio::test]
async fn an_event_id_that_another_tenant_holds_is_refused_without_naming_it() {
    with_database(|database| async move {
        let secret = event("secret tenant", "secret run", "secret step");
        let mut writer = database.writer(0).await;
        writer
            .append(&database.pool, &batch(0, [secret.clone()]))
            .await
            .unwrap();
        let thief = RunEvent {
            event_id: secret.event_id,
            ..event("thief", "run", "a")
        };
        // The fast path meets the id in the same batch, the checked path in the log.
        for (start, events) in [
            (1, vec![thief.clone()]),
            (2, vec![secret.clone(), thief.clone()]),
        ] {
            let appended = writer
                .append(&database.pool, &batch(start, events))
                .await
                .unwrap();
            let last = appended.outcomes.last().copied();
            assert_eq!(last, Some(Outcome::DeadLetter(Reason::EventIdReused)));
        }
        let details: Vec<String> = sqlx::query_scalar("SELECT detail FROM event_log.dead_letters")
            .fetch_all(&database.pool)
            .await
            .unwrap();
        assert_eq!(details.len(), 2);
        assert!(details.iter().all(|d| !d.contains("secret")), "{details:?}");
    })
    .await;
}

#[tokio::test]
async fn an_operator_s_hand_cannot_make_the_writer_skip_a_run_seq() {
    with_database(|database| async move {
        let mut writer = database.writer(0).await;
        writer
            .append(&database.pool, &batch(0, [event("t", "run", "a")]))
            .await
            .unwrap();
        // The writer's memory says head 1. Take that event from under it, as a restore could.
        database
            .run(
                "ALTER TABLE event_log.event DISABLE TRIGGER USER;
                 DELETE FROM event_log.event",
            )
            .await
            .unwrap();
        let appended = writer
            .append(&database.pool, &batch(1, [event("t", "run", "b")]))
            .await
            .unwrap();
        assert_eq!(appended.outcomes, [Outcome::Appended { run_seq: 1 }]);
    })
    .await;
}

#[tokio::test]
async fn a_memory_of_an_event_that_another_has_replaced_does_not_break_the_chain() {
    with_database(|database| async move {
        let mut writer = database.writer(0).await;
        let lost = batch(0, [event("t", "run", "lost")]);
        writer.append(&database.pool, &lost).await.unwrap();
        // The writer's memory says head 1. As after a failover that lost that event, another partition's
        // is there now, with the same runSeq.
        database
            .run(
                "ALTER TABLE event_log.event DISABLE TRIGGER USER;
                 DELETE FROM event_log.event",
            )
            .await
            .unwrap();
        let (first, second) = (event("t", "run", "first"), event("t", "run", "second"));
        let mut other = database.writer(1).await;
        let others = batch(0, [first.clone()]);
        other.append(&database.pool, &others).await.unwrap();
        let next = batch(1, [second.clone()]);
        let appended = writer.append(&database.pool, &next).await.unwrap();
        assert_eq!(appended.outcomes, [Outcome::Appended { run_seq: 2 }]);
        let chains: Vec<[u8; 32]> =
            sqlx::query_scalar("SELECT chain_digest FROM event_log.event ORDER BY run_seq")
                .fetch_all(&database.pool)
                .await
                .unwrap();
        let (mut chain, mut expected) = (Digest::CHAIN_START, Vec::new());
        for (seq, event) in (1..).zip([first, second]) {
            let content = event.content_digest().unwrap();
            let (id, key, attempt) = (
                event.event_id,
                event.idempotency_key,
                event.engine_attempt_id,
            );
            chain = chain_digest(chain, seq, id, key, event.emitted_at, attempt, content);
            expected.push(chain.0);
        }
        assert_eq!(chains, expected);
    })
    .await;
}

#[tokio::test]
async fn a_lost_server_is_the_environment_s_fault() {
    with_database(|database| async move {
        let mut writer = database.writer(0).await;
        let nowhere = database.options.clone().port(1);
        let pool = sqlx::postgres::PgPoolOptions::new()
            .acquire_timeout(std::time::Duration::from_secs(2))
            .connect_lazy_with(nowhere);
        let result = writer
            .append(&pool, &batch(0, [event("t", "run", "a")]))
            .await;
        let class = match result {
            Err(AppendError::Fault { class, .. }) => class,
            other => panic!("{other:?}"),
        };
        assert_eq!(class, FaultClass::Environment);
        // The same writer and batch, when the server is back.
        writer
            .append(&database.pool, &batch(0, [event("t", "run", "a")]))
            .await
            .unwrap();
    })
    .await;
}

#[tokio::test]
async fn an_error_before_the_first_statement_is_no_record_s_whatever_it_says() {
    with_database(|database| async move {
        let mut writer = database.writer(0).await;
        let one = batch(0, [event("t", "run", "a")]);
        for (sqlstate, expected) in [
            ("08006", FaultClass::Environment),
            ("08P01", FaultClass::Environment),
            ("57P03", FaultClass::Environment),
            ("57014", FaultClass::Environment),
            ("XX000", FaultClass::Environment),
            ("22023", FaultClass::Environment),
            ("28P01", FaultClass::Environment),
            ("28000", FaultClass::Fatal),
            ("3D000", FaultClass::Fatal),
        ] {
            let result = writer.append(&refusing(sqlstate).await, &one).await;
            match result {
                Err(AppendError::Fault { class, offset, .. }) => {
                    assert_eq!((class, offset), (expected, None), "{sqlstate}");
                }
                other => panic!("{sqlstate}: {other:?}"),
            }
        }
        writer.append(&database.pool, &one).await.unwrap();
    })
    .await;
}
