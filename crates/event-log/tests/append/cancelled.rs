//! Statements that the server cancels because they take too long (57014): less work at once, and never
//! a dead letter. A trigger makes a statement take for ever when it does too much; the timeout is real.

use event_log::{AppendError, Appended, Batch, FaultClass, Outcome, StreamWriter};
use run_events::{EventType, Reason, RunEvent};
use sqlx::PgPool;

use crate::support::database::{Database, with_database};
use crate::support::events::{batch, event, event_with};

/// Statements of this pool are cancelled after a second.
async fn impatient(database: &Database) -> PgPool {
    let options = [("lock_timeout", "30s"), ("statement_timeout", "1s")];
    sqlx::postgres::PgPoolOptions::new()
        .connect_with(database.options.clone().options(options))
        .await
        .unwrap()
}

/// Inserts of more than five events never end. The sequence `wholes` counts those of twelve or more,
/// as sequences do not roll back.
const MORE_THAN_FIVE: &str = "
    CREATE SEQUENCE wholes;
    CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE n bigint := (SELECT count(*) FROM added);
    BEGIN
      IF n >= 12 THEN PERFORM nextval('wholes'); END IF;
      IF n > 5 THEN PERFORM pg_sleep(3600); END IF;
      RETURN NULL;
    END $$;
    CREATE TRIGGER hang AFTER INSERT ON event_log.event REFERENCING NEW TABLE AS added
      FOR EACH STATEMENT EXECUTE FUNCTION hang()";

/// Inserts of an event of the type `Slow` never end.
const A_SLOW_ONE: &str = "
    CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF NEW.event_type = 'Slow' THEN PERFORM pg_sleep(3600); END IF;
      RETURN NEW;
    END $$;
    CREATE TRIGGER hang BEFORE INSERT ON event_log.event FOR EACH ROW EXECUTE FUNCTION hang()";

/// As ingest does: again, however often the environment is in the way. (A slow machine may cancel a
/// record alone, too.)
async fn append(writer: &mut StreamWriter, pool: &PgPool, batch: &Batch) -> Appended {
    let until_appended = async {
        loop {
            match writer.append(pool, batch).await {
                Ok(appended) => return appended,
                Err(AppendError::Fault {
                    class: FaultClass::Cancelled | FaultClass::Environment,
                    ..
                }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    let minute = std::time::Duration::from_secs(60);
    tokio::time::timeout(minute, until_appended)
        .await
        .expect("a minute, and it is not appended")
}

fn twelve(start: i64) -> Batch {
    batch(
        start,
        (start..start + 12).map(|n| event("t", "run", &n.to_string())),
    )
}

fn appended(run_seqs: impl IntoIterator<Item = i64>) -> Vec<Outcome> {
    let appended = |run_seq| Outcome::Appended { run_seq };
    run_seqs.into_iter().map(appended).collect()
}

const WHOLES: &str = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM wholes";
const LARGEST_TRANSACTION: &str =
    "SELECT max(n) FROM (SELECT count(*) AS n FROM event_log.event GROUP BY xmin::text) parts";
const NEXT_OFFSET: &str = "SELECT next_offset FROM event_log.stream";
const DEAD_LETTERS: &str = "SELECT count(*) FROM event_log.dead_letter";

#[tokio::test]
async fn a_batch_that_takes_too_long_is_appended_in_smaller_parts() {
    with_database(|database| async move {
        let pool = impatient(&database).await;
        database.run(MORE_THAN_FIVE).await.unwrap();
        let mut writer = database.writer(0).await;
        let first = append(&mut writer, &pool, &twelve(0)).await;
        assert_eq!(first.outcomes, appended(1..=12));
        assert!(database.number(LARGEST_TRANSACTION).await <= 5);
        assert_eq!(database.number(NEXT_OFFSET).await, 12);
        assert_eq!(database.number(WHOLES).await, 1);
        // The next batch is not tried as a whole again.
        let second = append(&mut writer, &pool, &twelve(12)).await;
        assert_eq!(second.outcomes, appended(13..=24));
        assert_eq!(database.number(WHOLES).await, 1);
        let ledger = "SELECT appended FROM event_log.stream";
        assert_eq!(database.number(ledger).await, 24);
        pool.close().await;
    })
    .await;
}

#[tokio::test]
async fn parts_go_down_the_checked_path_too() {
    with_database(|database| async move {
        let pool = impatient(&database).await;
        database.run(MORE_THAN_FIVE).await.unwrap();
        let mut writer = database.writer(0).await;
        let mut mixed = twelve(0);
        mixed.records[3].verdict = Ok(event_with("t", "run", "bad", r#"{"a": "\u0000"}"#));
        mixed.records[5].verdict = mixed.records[2].verdict.clone();
        let outcomes = append(&mut writer, &pool, &mixed).await.outcomes;
        assert_eq!(outcomes[..3], appended(1..=3));
        assert_eq!(outcomes[3], Outcome::DeadLetter(Reason::Unstorable));
        assert_eq!(outcomes[4..5], appended([4]));
        assert!(
            matches!(outcomes[5], Outcome::Duplicate(original) if original.run_seq == 3),
            "{:?}",
            outcomes[5]
        );
        // The search for the bad record halves too; these six are too many all the same.
        assert_eq!(outcomes[6..], appended(5..=10));
        assert!(database.number(LARGEST_TRANSACTION).await <= 5);
        assert_eq!(database.number(DEAD_LETTERS).await, 1);
        pool.close().await;
    })
    .await;
}

#[tokio::test]
async fn one_record_that_takes_too_long_stays_and_is_never_a_dead_letter() {
    with_database(|database| async move {
        let pool = impatient(&database).await;
        database.run(A_SLOW_ONE).await.unwrap();
        let slow = RunEvent {
            event_type: EventType::from_name("Slow".to_owned()),
            ..event("t", "run", "slow")
        };
        let three = batch(0, [event("t", "run", "a"), slow, event("t", "run", "b")]);
        let mut writer = database.writer(0).await;
        for _ in 0..2 {
            match writer.append(&pool, &three).await {
                Err(AppendError::Fault { class, .. }) => assert_eq!(class, FaultClass::Cancelled),
                other => panic!("{other:?}"),
            }
            assert_eq!(database.number(DEAD_LETTERS).await, 0);
        }
        assert_eq!(
            database.number(NEXT_OFFSET).await,
            1,
            "its neighbour commits"
        );
        database
            .run("DROP TRIGGER hang ON event_log.event")
            .await
            .unwrap();
        let outcomes = append(&mut writer, &pool, &three).await.outcomes;
        assert_eq!(outcomes, appended(1..=3));
        assert_eq!(database.number(NEXT_OFFSET).await, 3);
        pool.close().await;
    })
    .await;
}

#[tokio::test]
async fn a_part_that_the_database_lost_is_appended_again_with_the_rest() {
    with_database(|database| async move {
        let pool = impatient(&database).await;
        database.run(A_SLOW_ONE).await.unwrap();
        let slow = RunEvent {
            event_type: EventType::from_name("Slow".to_owned()),
            ..event("t", "other", "slow")
        };
        let two = batch(0, [event("t", "run", "a"), slow]);
        let mut writer = database.writer(0).await;
        let result = writer.append(&pool, &two).await;
        assert!(result.is_err(), "{result:?}");
        assert_eq!(database.number(NEXT_OFFSET).await, 1);
        // A failover to a standby without the first part. The writer remembers it.
        database
            .run(
                "DROP TRIGGER hang ON event_log.event;
                 ALTER TABLE event_log.stream DISABLE TRIGGER USER;
                 ALTER TABLE event_log.event DISABLE TRIGGER USER;
                 UPDATE event_log.stream SET next_offset = 0, appended = 0;
                 DELETE FROM event_log.event",
            )
            .await
            .unwrap();
        let outcomes = append(&mut writer, &pool, &two).await.outcomes;
        assert_eq!(outcomes, appended([1, 1]));
        pool.close().await;
    })
    .await;
}

#[tokio::test]
async fn an_append_that_was_given_up_is_tried_again_with_less_at_once() {
    with_database(|database| async move {
        // No timeout of the server's: it is the caller who gives up.
        database.run(MORE_THAN_FIVE).await.unwrap();
        let mut writer = database.writer(0).await;
        let hanging = "SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event = 'PgSleep'";
        let whole = twelve(0);
        for _ in 0..2 {
            tokio::select! {
                biased;
                appended = writer.append(&database.pool, &whole) => panic!("{appended:?}"),
                () = database.wait_until(true, hanging) => {}
            }
            writer.abandoned();
            // The server notices at its own pace that nobody waits; the row is locked until then.
            let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event = 'PgSleep'";
            database.number(end).await;
            database.wait_until(false, hanging).await;
        }
        let outcomes = append(&mut writer, &database.pool, &twelve(0))
            .await
            .outcomes;
        assert_eq!(outcomes, appended(1..=12));
        assert!(database.number(LARGEST_TRANSACTION).await <= 5);
    })
    .await;
}
