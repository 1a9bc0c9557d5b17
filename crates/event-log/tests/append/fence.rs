//! Who may append: claims, zombies, generations and consumer groups.

use std::time::Duration;

use event_log::stream::{self, Claimant};
use event_log::{AppendError, ClaimError, FaultClass, Halt, Outcome, StreamWriter};

use crate::support::database::{Database, WAITING_FOR_A_LOCK, claimant, with_database};
use crate::support::events::{batch, event};

async fn rows(database: &Database) -> i64 {
    database
        .number(
            "SELECT (SELECT count(*) FROM event_log.event) + (SELECT count(*) FROM event_log.run)",
        )
        .await
}

#[tokio::test]
async fn a_zombie_is_fenced_and_writes_nothing() {
    with_database(|database| async move {
        let mut zombie = database.writer(0).await;
        zombie
            .append(&database.pool, &batch(0, [event("t", "run", "a")]))
            .await
            .unwrap();
        let mut owner = database.writer(0).await;
        let before = rows(&database).await;
        let result = zombie
            .append(&database.pool, &batch(1, [event("t", "new run", "b")]))
            .await;
        assert!(matches!(result, Err(AppendError::Fenced)), "{result:?}");
        assert_eq!(rows(&database).await, before);
        assert_eq!(owner.claim().next_offset, 1);
        owner
            .append(&database.pool, &batch(1, [event("t", "run", "b")]))
            .await
            .unwrap();
        let result = zombie
            .append(&database.pool, &batch(1, [event("t", "run", "b")]))
            .await;
        assert!(
            matches!(result, Err(AppendError::Fenced)),
            "also where its batch is behind"
        );
    })
    .await;
}

#[tokio::test]
async fn a_claim_waits_for_the_batch_that_is_being_committed() {
    with_database(|database| async move {
        let mut owner = database.writer(0).await;
        // Holds the stream row as a batch does.
        let mut held = database.pool.begin().await.unwrap();
        sqlx::query("SELECT FROM event_log.stream FOR UPDATE")
            .execute(&mut *held)
            .await
            .unwrap();
        let pool = database.pool.clone();
        let claim =
            tokio::spawn(async move { stream::claim(&pool, &claimant("next"), "t", 0).await });
        database.wait_until(true, WAITING_FOR_A_LOCK).await;
        sqlx::query("UPDATE event_log.stream SET next_offset = 3, skipped = 3")
            .execute(&mut *held)
            .await
            .unwrap();
        held.commit().await.unwrap();
        let claim = claim.await.unwrap().unwrap().unwrap();
        assert_eq!(claim.next_offset, 3, "it starts behind that batch");
        let result = owner
            .append(&database.pool, &batch(3, [event("t", "run", "a")]))
            .await;
        assert!(matches!(result, Err(AppendError::Fenced)), "{result:?}");
    })
    .await;
}

#[tokio::test]
async fn a_claim_gives_a_row_up_that_stays_locked() {
    with_database(|database| async move {
        database.writer(0).await;
        let mut held = database.pool.begin().await.unwrap();
        sqlx::query("SELECT FROM event_log.stream FOR UPDATE")
            .execute(&mut *held)
            .await
            .unwrap();
        // Nothing of the session ends it: its lock_timeout is none.
        let who = claimant("next");
        let claim = stream::claim(&database.pool, &who, "t", 0);
        let claim = tokio::time::timeout(Duration::from_secs(60), claim).await;
        let Ok(Err(ClaimError::Database(error))) = claim else {
            panic!("{claim:?}");
        };
        assert_eq!(event_log::fault::sqlstate(&error).as_deref(), Some("55P03"));
    })
    .await;
}

#[tokio::test]
async fn an_append_waits_for_the_claim_that_is_being_made_and_is_fenced() {
    with_database(|database| async move {
        let mut zombie = database.writer(0).await;
        let mut claiming = database.pool.begin().await.unwrap();
        sqlx::query("UPDATE event_log.stream SET claim = gen_random_uuid()")
            .execute(&mut *claiming)
            .await
            .unwrap();
        let pool = database.pool.clone();
        let append = tokio::spawn(async move {
            let batch = batch(0, [event("t", "run", "a")]);
            zombie.append(&pool, &batch).await
        });
        database.wait_until(true, WAITING_FOR_A_LOCK).await;
        claiming.commit().await.unwrap();
        let result = append.await.unwrap();
        assert!(matches!(result, Err(AppendError::Fenced)), "{result:?}");
        assert_eq!(rows(&database).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_writer_without_waiting_leaves_a_locked_stream_at_once_and_is_fenced_behind_the_lock() {
    with_database(|database| async move {
        let mut zombie = database.writer(0).await.without_waiting();
        let mut claiming = database.pool.begin().await.unwrap();
        sqlx::query("UPDATE event_log.stream SET claim = gen_random_uuid()")
            .execute(&mut *claiming)
            .await
            .unwrap();
        let batch = batch(0, [event("t", "run", "a")]);
        let locked = zombie.append(&database.pool, &batch).await.unwrap_err();
        assert!(locked.is_locked(), "{locked:?}");
        let AppendError::Fault {
            class: FaultClass::Environment,
            source,
            ..
        } = locked
        else {
            panic!("{locked:?}");
        };
        // A lock that was waited for ends with another message of the same code.
        let words = source.to_string();
        assert!(words.contains("could not obtain lock"), "{words}");
        // Tried again and again, it does not cost a connection each time.
        const SESSIONS: &str = "SELECT pid FROM pg_stat_activity
             WHERE datname = current_database() AND backend_type = 'client backend'";
        let sessions = async || {
            let pids: Vec<i32> = sqlx::query_scalar(SESSIONS)
                .fetch_all(&database.pool)
                .await
                .unwrap();
            pids
        };
        let before = sessions().await;
        for _ in 0..3 {
            let locked = zombie.append(&database.pool, &batch).await.unwrap_err();
            assert!(locked.is_locked(), "{locked:?}");
        }
        let after = sessions().await;
        assert!(
            before.iter().all(|pid| after.contains(pid)),
            "{before:?}, then {after:?}"
        );
        claiming.commit().await.unwrap();
        let result = zombie.append(&database.pool, &batch).await;
        assert!(matches!(result, Err(AppendError::Fenced)), "{result:?}");
        assert_eq!(rows(&database).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_closed_generation_takes_no_batch() {
    with_database(|database| async move {
        let mut writer = database.writer(0).await;
        database
            .run("UPDATE event_log.stream SET closed_at = now()")
            .await
            .unwrap();
        let result = writer
            .append(&database.pool, &batch(0, [event("t", "run", "a")]))
            .await;
        assert!(matches!(result, Err(AppendError::Fenced)), "{result:?}");
        assert_eq!(rows(&database).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_database_that_went_back_is_noticed() {
    with_database(|database| async move {
        let mut writer = database.writer(0).await;
        for (start, step) in [(0, "a"), (1, "b")] {
            writer
                .append(&database.pool, &batch(start, [event("t", "run", step)]))
                .await
                .unwrap();
        }
        // What a standby without the last commit would hold.
        database
            .run(
                "ALTER TABLE event_log.stream DISABLE TRIGGER USER;
                 ALTER TABLE event_log.event DISABLE TRIGGER USER;
                 UPDATE event_log.stream SET next_offset = 1, appended = 1;
                 DELETE FROM event_log.event WHERE run_seq = 2",
            )
            .await
            .unwrap();
        let result = writer
            .append(&database.pool, &batch(2, [event("t", "run", "c")]))
            .await;
        match result {
            Err(AppendError::Moved { stored, start }) => assert_eq!((stored, start), (1, 2)),
            other => panic!("{other:?}"),
        }
        // As the error says: claim again, go on from there.
        let mut writer = database.writer(0).await;
        assert_eq!(writer.claim().next_offset, 1);
        let again = batch(1, [event("t", "run", "b"), event("t", "run", "c")]);
        let appended = writer.append(&database.pool, &again).await.unwrap();
        assert_eq!(
            appended.outcomes,
            [2, 3].map(|run_seq| Outcome::Appended { run_seq })
        );
    })
    .await;
}

#[tokio::test]
async fn a_batch_of_which_the_first_part_was_committed_is_completed() {
    with_database(|database| async move {
        let mut writer = database.writer(0).await;
        let events = ["a", "b", "c"].map(|step| event("t", "run", step));
        writer
            .append(&database.pool, &batch(0, events.clone()))
            .await
            .unwrap();
        let longer = batch(0, events.into_iter().chain([event("t", "run", "d")]));
        for _ in 0..2 {
            let appended = writer.append(&database.pool, &longer).await.unwrap();
            let expected = [1, 2, 3, 4].map(|run_seq| Outcome::Appended { run_seq });
            assert_eq!(appended.outcomes, expected);
            assert_eq!(rows(&database).await, 4 + 1);
        }
        let shorter = batch(1, [event("t", "run", "b")]);
        let appended = writer.append(&database.pool, &shorter).await.unwrap();
        assert_eq!(appended.outcomes, [Outcome::Appended { run_seq: 2 }]);
        let beyond = batch(5, [event("t", "run", "f")]);
        let result = writer.append(&database.pool, &beyond).await;
        let moved = Err((4, 5));
        let found = result.map_err(|error| match error {
            AppendError::Moved { stored, start } => (stored, start),
            other => panic!("{other:?}"),
        });
        assert_eq!(found.map(|_| ()), moved);
    })
    .await;
}

#[tokio::test]
async fn a_writer_with_nothing_to_append_can_look_whether_its_row_is_as_it_left_it() {
    with_database(|database| async move {
        let mut writer = database.writer(0).await;
        writer
            .append(&database.pool, &batch(0, [event("t", "run", "a")]))
            .await
            .unwrap();
        writer.look(&database.pool, 1).await.unwrap();
        // Without waiting for whoever holds the row.
        let mut held = database.pool.begin().await.unwrap();
        sqlx::query("SELECT FROM event_log.stream FOR UPDATE")
            .execute(&mut *held)
            .await
            .unwrap();
        writer.look(&database.pool, 1).await.unwrap();
        held.rollback().await.unwrap();
        // What a standby without the last commit would hold.
        database
            .run(
                "ALTER TABLE event_log.stream DISABLE TRIGGER USER;
                 UPDATE event_log.stream SET next_offset = 0, appended = 0",
            )
            .await
            .unwrap();
        let looked = writer.look(&database.pool, 1).await;
        assert!(
            matches!(
                looked,
                Err(AppendError::Moved {
                    stored: 0,
                    start: 1
                })
            ),
            "{looked:?}"
        );
        database.claim(0).await;
        let looked = writer.look(&database.pool, 0).await;
        assert!(matches!(looked, Err(AppendError::Fenced)), "{looked:?}");
        let last = database.writer(0).await;
        database
            .run("UPDATE event_log.stream SET closed_at = now()")
            .await
            .unwrap();
        let looked = last.look(&database.pool, 0).await;
        assert!(matches!(looked, Err(AppendError::Fenced)), "{looked:?}");
    })
    .await;
}

#[tokio::test]
async fn a_second_consumer_group_is_refused_by_name() {
    with_database(|database| async move {
        database.claim(0).await;
        let stranger = Claimant {
            group_id: "another group".to_owned(),
            owner: "stranger".to_owned(),
        };
        let error = stream::claim(&database.pool, &stranger, "t", 0)
            .await
            .unwrap_err();
        assert!(matches!(error, ClaimError::OtherGroup { .. }), "{error:?}");
        let text = error.to_string();
        for part in ["t/0", "runlog-ingest", "another group", "ingest.group_id"] {
            assert!(text.contains(part), "{text} lacks {part}");
        }
        assert!(
            stream::claim(&database.pool, &stranger, "t", 1)
                .await
                .unwrap()
                .is_none()
        );
        // The first owner's claim still holds.
        let owners = "SELECT count(*) FROM event_log.streams WHERE owner = 'a test'";
        assert_eq!(database.number(owners).await, 1);
    })
    .await;
}

#[tokio::test]
async fn only_the_newest_claim_can_halt_a_partition() {
    with_database(|database| async move {
        let old = database.claim(0).await;
        let new = database.claim(0).await;
        let halt = async |claim, code, reason| {
            stream::halt(&database.pool, claim, code, reason)
                .await
                .unwrap()
        };
        assert!(!halt(&old, "panic", "late").await);
        assert!(halt(&new, "truncated", "the log ends at 5").await);
        let claim = database.claim(0).await;
        let expected = Halt {
            code: "truncated".to_owned(),
            reason: "the log ends at 5".to_owned(),
        };
        assert_eq!(claim.halted, Some(expected));
        let position = async |token| -> Option<i64> {
            sqlx::query_scalar("SELECT next_offset FROM event_log.stream WHERE claim = $1")
                .bind(token)
                .fetch_optional(&database.pool)
                .await
                .unwrap()
        };
        assert_eq!(position(new.token).await, None);
        assert_eq!(position(claim.token).await, Some(0));
    })
    .await;
}

#[tokio::test]
async fn opening_a_partition_twice_keeps_the_first_offset() {
    with_database(|database| async move {
        for offset in [7, 9] {
            stream::open(&database.pool, &claimant("a test"), "t", 0, offset)
                .await
                .unwrap();
        }
        assert_eq!(
            StreamWriter::new(database.claim(0).await)
                .claim()
                .next_offset,
            7
        );
    })
    .await;
}
