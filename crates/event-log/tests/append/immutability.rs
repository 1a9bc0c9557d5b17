//! What the database itself refuses, whoever asks.

use chrono::Utc;
use event_log::fault::sqlstate;
use sqlx::Connection;
use uuid::Uuid;

use crate::support::database::{Database, with_database};
use crate::support::events::{batch, event};

async fn with_an_event(database: &Database) {
    let mut writer = database.writer(0).await;
    writer
        .append(&database.pool, &batch(0, [event("t", "run", "a")]))
        .await
        .unwrap();
}

/// Runs a statement as the tables' owner; the SQLSTATE it is refused with.
async fn refusal(database: &Database, settings: &'static str, statement: &'static str) -> String {
    let mut connection = sqlx::PgConnection::connect_with(&database.options)
        .await
        .unwrap();
    sqlx::raw_sql(settings)
        .execute(&mut connection)
        .await
        .unwrap();
    let result = sqlx::raw_sql(statement).execute(&mut connection).await;
    match result {
        Ok(_) => panic!("{statement} was not refused ({settings})"),
        Err(error) => sqlstate(&error).unwrap(),
    }
}

#[tokio::test]
async fn no_role_and_no_setting_can_change_the_log() {
    with_database(|database| async move {
        with_an_event(&database).await;
        let statements = [
            "UPDATE event_log.event SET payload = '{}'",
            "UPDATE event_log.event SET run_seq = run_seq",
            "DELETE FROM event_log.event",
            "TRUNCATE event_log.event",
            "TRUNCATE event_log.event CASCADE",
            "UPDATE event_log.run SET run_id = 'other'",
            "DELETE FROM event_log.run",
            "TRUNCATE event_log.run",
            "DELETE FROM event_log.stream",
            "TRUNCATE event_log.stream",
            "UPDATE event_log.audit SET reason = 'another'",
            "DELETE FROM event_log.audit",
            "TRUNCATE event_log.audit",
            "INSERT INTO event_log.event SELECT * FROM event_log.event
             ON CONFLICT (event_id) DO UPDATE SET payload = '{}'",
            "MERGE INTO event_log.event USING (SELECT 1) s ON true WHEN MATCHED THEN DELETE",
        ];
        for settings in ["SELECT 1", "SET session_replication_role = replica"] {
            for statement in statements {
                assert_eq!(
                    refusal(&database, settings, statement).await,
                    "42501",
                    "{statement}"
                );
            }
        }
        assert_eq!(
            database
                .number("SELECT count(*) FROM event_log.event WHERE payload IS NULL")
                .await,
            1
        );
    })
    .await;
}

#[tokio::test]
async fn the_owner_of_the_tables_cannot_change_the_log_either() {
    with_database(|database| async move {
        with_an_event(&database).await;
        // A role that owns the tables and is no superuser, for as long as this transaction lasts.
        let mut transaction = database.pool.begin().await.unwrap();
        let own = "CREATE ROLE event_log_test_owner;
                   GRANT ALL ON SCHEMA event_log TO event_log_test_owner;
                   ALTER TABLE event_log.event OWNER TO event_log_test_owner;
                   ALTER TABLE event_log.run OWNER TO event_log_test_owner;
                   SET LOCAL ROLE event_log_test_owner";
        sqlx::raw_sql(own).execute(&mut *transaction).await.unwrap();
        for statement in [
            "DELETE FROM event_log.event",
            "UPDATE event_log.event SET payload = '{}'",
            "TRUNCATE event_log.event",
            "TRUNCATE event_log.run",
        ] {
            let mut part = transaction.begin().await.unwrap();
            let result = sqlx::raw_sql(statement).execute(&mut *part).await;
            assert_eq!(
                sqlstate(&result.unwrap_err()).as_deref(),
                Some("42501"),
                "{statement}"
            );
            part.rollback().await.unwrap();
        }
        transaction.rollback().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn the_ledger_refuses_a_hand_made_hole() {
    with_database(|database| async move {
        with_an_event(&database).await;
        for statement in [
            "UPDATE event_log.stream SET next_offset = next_offset + 1",
            "UPDATE event_log.stream SET appended = appended + 1",
            "UPDATE event_log.stream SET skipped = skipped - 1, duplicates = duplicates + 1",
            "INSERT INTO event_log.stream (topic, partition, group_id, start_offset, next_offset) VALUES ('x', 0, 'g', 5, 6)",
        ] {
            assert_eq!(refusal(&database, "SELECT 1", statement).await, "23514", "{statement}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_generation_s_offset_never_falls_and_its_identity_stays() {
    with_database(|database| async move {
        with_an_event(&database).await;
        for settings in ["SELECT 1", "SET session_replication_role = replica"] {
            for statement in [
                "UPDATE event_log.stream SET next_offset = 0, appended = 0",
                "UPDATE event_log.stream SET start_offset = 1, next_offset = 2",
                "UPDATE event_log.stream SET generation = 2",
                "UPDATE event_log.stream SET partition = 1",
                "UPDATE event_log.stream SET topic = 'other'",
            ] {
                assert_eq!(refusal(&database, settings, statement).await, "23514", "{statement}");
            }
        }
        let second = "INSERT INTO event_log.stream (topic, partition, generation, group_id, start_offset, next_offset)
                      VALUES ('t', 0, 2, 'g', 0, 0)";
        assert_eq!(refusal(&database, "SELECT 1", second).await, "23505", "one open generation");
    })
    .await;
}

#[tokio::test]
async fn the_constraints_hold_what_the_code_promises() {
    with_database(|database| async move {
        with_an_event(&database).await;
        macro_rules! insert {
            ($run_seq:literal, $offset:literal, $id:literal, $key:literal) => {
                concat!(
                    "INSERT INTO event_log.event SELECT run_no, ", $run_seq, ", stream_id, ", $offset,
                    ", emitted_at, persisted_at, ", $id, ", engine_attempt_id, logical_attempt_id, ", $key,
                    ", content_digest, chain_digest, tenant_id, event_type, project_id, environment_id,
                      plan_id, plan_version, step_id, payload FROM event_log.event"
                )
            };
        }
        for statement in [
            insert!("1", "9", "gen_random_uuid()", "sha256('x')"),
            insert!("2", "9", "event_id", "sha256('x')"),
            insert!("2", "9", "gen_random_uuid()", "idempotency_key"),
            insert!("2", "0", "gen_random_uuid()", "sha256('x')"),
        ] {
            assert_eq!(refusal(&database, "SELECT 1", statement).await, "23505", "{statement}");
        }
        let zero = insert!("0", "9", "gen_random_uuid()", "sha256('x')");
        assert_eq!(refusal(&database, "SELECT 1", zero).await, "23514");
        // And nothing else was in the way.
        let good = insert!("2", "9", "gen_random_uuid()", "sha256('x')");
        database.run(good).await.unwrap();
    })
    .await;
}

/// Offers events with these runSeqs to the statement that all appends go through, as following on this
/// chain digest; how many it took.
async fn offer(database: &Database, run_seqs: &[i64], chain_before: &[u8]) -> u64 {
    let n = run_seqs.len();
    let run_no = database.number("SELECT run_no FROM event_log.run").await;
    let digests: Vec<_> = run_seqs.iter().map(|seq| vec![*seq as u8; 32]).collect();
    let texts = || vec!["x"; n];
    let mut transaction = database.pool.begin().await.unwrap();
    let inserted = sqlx::query(include_str!("../../src/sql/insert_events.sql"))
        .bind(1i64)
        .bind(Utc::now())
        .bind(vec![run_no; n])
        .bind(run_seqs)
        .bind(run_seqs)
        .bind(vec![Utc::now(); n])
        .bind(
            vec![(); n]
                .iter()
                .map(|()| Uuid::new_v4())
                .collect::<Vec<_>>(),
        )
        .bind(vec![1i32; n])
        .bind(vec![1i32; n])
        .bind(&digests)
        .bind(&digests)
        .bind(&digests)
        .bind(texts())
        .bind(texts())
        .bind(texts())
        .bind(texts())
        .bind(texts())
        .bind(texts())
        .bind(texts())
        .bind(vec![None::<&str>; n])
        .bind(vec![run_no])
        .bind(vec![chain_before])
        .execute(&mut *transaction)
        .await
        .unwrap()
        .rows_affected();
    transaction.rollback().await.unwrap();
    inserted
}

#[tokio::test]
async fn a_hole_in_run_seq_cannot_be_inserted() {
    with_database(|database| async move {
        with_an_event(&database).await;
        let chain = chain_of_the_event(&database).await;
        assert_eq!(offer(&database, &[2, 3, 4], &chain).await, 3);
        assert_eq!(offer(&database, &[3], &chain).await, 0, "2 is missing");
        assert_eq!(offer(&database, &[2, 4], &chain).await, 0, "3 is missing");
    })
    .await;
}

#[tokio::test]
async fn a_chain_that_does_not_follow_on_the_log_cannot_be_inserted() {
    with_database(|database| async move {
        with_an_event(&database).await;
        let chain = chain_of_the_event(&database).await;
        assert_eq!(offer(&database, &[2], &chain).await, 1);
        assert_eq!(offer(&database, &[2], &[7; 32]).await, 0);
        // The first event of a run follows on nothing.
        database
            .run(
                "ALTER TABLE event_log.event DISABLE TRIGGER USER;
                 DELETE FROM event_log.event",
            )
            .await
            .unwrap();
        assert_eq!(offer(&database, &[2], &chain).await, 0);
        assert_eq!(offer(&database, &[1], &[7; 32]).await, 1);
    })
    .await;
}

async fn chain_of_the_event(database: &Database) -> Vec<u8> {
    sqlx::query_scalar("SELECT chain_digest FROM event_log.event")
        .fetch_one(&database.pool)
        .await
        .unwrap()
}
