//! What somebody with a superuser's rights may do to the log: each edit by itself, and every line that
//! is said of it. The log is put back in between.

use event_log::{Batch, StreamWriter};
use run_events::digest::chain_digest;
use run_events::{Digest, IdempotencyKey, Micros, RunEvent};
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::support::database::{Database, with_database};
use crate::support::events::{batch, event, event_with};
use crate::{lines, verified};

const TABLES: [&str; 3] = ["event", "run", "stream"];

fn target(step: usize) -> RunEvent {
    event_with("acme", "target", &format!("s{step}"), r#"{"rows": 1}"#)
}

async fn append(writer: &mut StreamWriter, database: &Database, batch: Batch) {
    writer.append(&database.pool, &batch).await.unwrap();
}

/// Run `target` has nine events in t/0 at offsets 0, 2, 4 ... 16; offsets 1 and 3 are duplicates, the
/// other odd ones events of run `other`, which goes on in t/1. Each pair of offsets is a batch.
async fn log(database: &Database) {
    let mut writer = database.writer(0).await;
    for step in 1..=9_usize {
        let second = match step {
            1 | 2 => target(step),
            _ => event("acme", "other", &format!("s{step}")),
        };
        let start = 2 * (step as i64 - 1);
        append(&mut writer, database, batch(start, [target(step), second])).await;
    }
    let mut writer = database.writer(1).await;
    let events = ["a", "b", "a"].map(|step| event("acme", "other", step));
    append(&mut writer, database, batch(0, events)).await;
    for table in TABLES {
        run(
            database,
            format!("CREATE TABLE saved_{table} AS TABLE event_log.{table}"),
        )
        .await;
    }
}

async fn run(database: &Database, statements: String) {
    let done = sqlx::raw_sql(AssertSqlSafe(statements.clone()))
        .execute(&database.pool)
        .await;
    done.unwrap_or_else(|error| panic!("{error}: {statements}"));
}

/// Does something that the triggers refuse, as a superuser can. `TARGET` and `OTHER` are the runs' numbers.
async fn tamper(database: &Database, statements: &str) {
    let triggers = |action: &str| {
        TABLES
            .map(|table| format!("ALTER TABLE event_log.{table} {action} TRIGGER USER;"))
            .concat()
    };
    let mut statements = statements.to_owned();
    for name in ["target", "other"] {
        let number = format!("(SELECT run_no FROM saved_run WHERE run_id = '{name}')");
        statements = statements.replace(&name.to_uppercase(), &number);
    }
    let (off, on) = (triggers("DISABLE"), triggers("ENABLE"));
    run(database, format!("BEGIN; {off} {statements}; {on} COMMIT")).await;
}

async fn put_back(database: &Database) {
    let back = TABLES.map(|table| {
        format!("TRUNCATE event_log.{table}; INSERT INTO event_log.{table} OVERRIDING SYSTEM VALUE TABLE saved_{table};")
    });
    tamper(database, &back.concat()).await;
}

/// Makes each edit and compares all that is said of it.
async fn expect(database: &Database, edits: &[(&str, &[&str])]) {
    for (edit, expected) in edits {
        tamper(database, edit).await;
        let (mut said, mut expected) = (lines(&verified(database).await), expected.to_vec());
        said.sort_unstable();
        expected.sort_unstable();
        assert_eq!(said, expected, "after {edit}");
        put_back(database).await;
    }
    assert_eq!(lines(&verified(database).await), [""; 0]);
}

#[tokio::test]
async fn every_edit_of_a_column_is_found_and_named() {
    const CONTENT: &[&str] = &[
        r#"tenant "acme" run "target": runSeq 5: its content is not what was appended (content_digest)"#,
    ];
    const FIELDS: &[&str] = &[
        r#"tenant "acme" run "target": runSeq 5: eventId, idempotencyKey, emittedAt or engineAttemptId is not what was appended (chain_digest), or runSeq 4 was replaced"#,
    ];
    const CONTENT_DIGEST: &[&str] = &[
        r#"tenant "acme" run "target": runSeq 5: content_digest is not what was appended; the content is"#,
    ];
    const CHAIN_DIGEST: &[&str] = &[
        r#"tenant "acme" run "target": runSeq 5: chain_digest is not what was appended; what it is made of is"#,
    ];
    const TENANT: &[&str] =
        &[r#"tenant "acme" run "target": runSeq 5: its tenant_id is "umbrella", not the run's"#];
    with_database(async |database| {
        log(&database).await;
        let edits: [(&str, &[&str]); 22] = [
            (r#"payload = '{"rows": 2}'"#, CONTENT),
            (r#"payload = '{"rows": 1, "more": null}'"#, CONTENT),
            ("payload = NULL", CONTENT),
            ("payload = '[1]'", CONTENT),
            ("event_type = 'StepFailed'", CONTENT),
            ("step_id = 's6'", CONTENT),
            ("step_id = NULL", CONTENT),
            ("plan_id = 'plan2'", CONTENT),
            ("plan_version = 'v2'", CONTENT),
            ("project_id = 'project2'", CONTENT),
            ("environment_id = 'environment2'", CONTENT),
            ("logical_attempt_id = 2", CONTENT),
            ("engine_attempt_id = 2", FIELDS),
            ("emitted_at = emitted_at + interval '1 microsecond'", FIELDS),
            ("emitted_at = 'infinity'", FIELDS),
            ("event_id = gen_random_uuid()", FIELDS),
            ("idempotency_key = sha256('x')", FIELDS),
            ("content_digest = sha256('x')", CONTENT_DIGEST),
            ("chain_digest = sha256('x')", CHAIN_DIGEST),
            ("tenant_id = 'umbrella'", TENANT),
            // It keeps the order of runSeq, and leaves that of time.
            (
                "persisted_at = 'infinity'",
                &["t/0 generation 1: offset 8: its persistedAt is later than the stream's last batch",
                  "t/0 generation 1: offset 9: its persistedAt is earlier than that of offset 8"],
            ),
            (
                "persisted_at = '2001-01-01'",
                &["t/0 generation 1: offset 8: its persistedAt is earlier than that of offset 7"],
            ),
        ];
        let statements = edits.map(|(set, lines)| {
            let update = format!("UPDATE event_log.event SET {set} WHERE run_no = TARGET AND run_seq = 5");
            (update, lines)
        });
        let edits: Vec<_> = statements.iter().map(|(edit, lines)| (edit.as_str(), *lines)).collect();
        expect(&database, &edits).await;
        // These have no payload, which is not the same as one that is no object.
        const OF_OTHER: &[&str] = &[
            r#"tenant "acme" run "other": runSeq 5: its content is not what was appended (content_digest)"#,
        ];
        let update = "UPDATE event_log.event SET payload =";
        let which = "WHERE run_no = OTHER AND run_seq = 5";
        let edits = ["'null'", "'[1]'", "'{}'"].map(|set| format!("{update} {set} {which}"));
        let edits: Vec<_> = edits.iter().map(|edit| (edit.as_str(), OF_OTHER)).collect();
        expect(&database, &edits).await;
    })
    .await;
}

#[tokio::test]
async fn events_that_are_missing_or_moved_are_found_and_named() {
    const ONE_LESS: &str =
        "t/0 generation 1: by its ledger 16 events were appended, and the log has 15";
    with_database(async |database| {
        log(&database).await;
        let edits: [(&str, &[&str]); 9] = [
            ("DELETE FROM event_log.event WHERE run_no = TARGET AND run_seq = 5",
             &[r#"tenant "acme" run "target": runSeq 5 is missing"#, ONE_LESS]),
            ("DELETE FROM event_log.event WHERE run_no = TARGET AND run_seq = 1",
             &[r#"tenant "acme" run "target": runSeq 1 is missing"#, ONE_LESS]),
            ("DELETE FROM event_log.event WHERE run_no = TARGET AND run_seq = 9", &[ONE_LESS]),
            ("DELETE FROM event_log.event WHERE run_no = TARGET",
             &[r#"tenant "acme" run "target": the log has no event of it, and no refused record that explains it"#,
               "t/0 generation 1: by its ledger 16 events were appended, and the log has 7"]),
            ("DELETE FROM event_log.event WHERE run_no = TARGET; DELETE FROM event_log.run WHERE run_no = TARGET",
             &["t/0 generation 1: by its ledger 16 events were appended, and the log has 7"]),
            ("UPDATE event_log.event SET run_seq = 1000 WHERE run_no = TARGET AND run_seq = 5;
              UPDATE event_log.event SET run_seq = 5 WHERE run_no = TARGET AND run_seq = 6;
              UPDATE event_log.event SET run_seq = 6 WHERE run_no = TARGET AND run_seq = 1000",
             &[r#"tenant "acme" run "target": the chain breaks between runSeq 4 and 5 (chain_digest)"#,
               r#"tenant "acme" run "target": the chain breaks between runSeq 5 and 6 (chain_digest)"#,
               r#"tenant "acme" run "target": runSeq 7: eventId, idempotencyKey, emittedAt or engineAttemptId is not what was appended (chain_digest), or runSeq 6 was replaced"#,
               r#"tenant "acme" run "target": runSeq 6: its Kafka offset 8 is not above 10, that of runSeq 5"#]),
            // To the end of another run.
            ("UPDATE event_log.event SET (run_no, run_seq) = (OTHER, 10) WHERE run_no = TARGET AND run_seq = 9",
             &[r#"tenant "acme" run "other": the chain breaks between runSeq 9 and 10 (chain_digest)"#,
                    r#"tenant "acme" run "other": runSeq 10: its Kafka offset 16 is not above 17, that of runSeq 7"#]),
            ("DELETE FROM event_log.run WHERE run_no = TARGET",
             &["run number 1: the log has events of it, and event_log.run does not have the run"]),
            ("UPDATE event_log.event SET run_no = 9000000000000000000 WHERE run_no = TARGET",
             &[r#"tenant "acme" run "target": the log has no event of it, and no refused record that explains it"#,
               "run number 9000000000000000000: the log has events of it, and event_log.run does not have the run"]),
        ];
        expect(&database, &edits).await;
    })
    .await;
}

#[tokio::test]
async fn a_ledger_that_does_not_fit_its_events_is_found_and_named() {
    const ONE_LESS: &str =
        "t/0 generation 1: by its ledger 16 events were appended, and the log has 15";
    with_database(async |database| {
        log(&database).await;
        let edits: [(&str, &[&str]); 8] = [
            ("UPDATE event_log.stream SET appended = 17, duplicates = duplicates - 1 WHERE partition = 0",
             &["t/0 generation 1: by its ledger 17 events were appended, and the log has 16"]),
            // The offset of a duplicate is free.
            ("UPDATE event_log.event SET source_offset = 3 WHERE run_no = TARGET AND run_seq = 5",
             &[r#"tenant "acme" run "target": runSeq 5: its Kafka offset 3 is not above 6, that of runSeq 4"#,
               "t/0 generation 1: offset 4: its persistedAt is earlier than that of offset 3"]),
            ("UPDATE event_log.event SET source_offset = 20 WHERE run_no = TARGET AND run_seq = 9",
             &["t/0 generation 1: it has read the offsets from 0 to below 18, and 1 of its events have others, the first 20",
               ONE_LESS]),
            ("UPDATE event_log.event SET source_offset = -1 WHERE run_no = TARGET AND run_seq = 1",
             &["t/0 generation 1: it has read the offsets from 0 to below 18, and 1 of its events have others, the first -1",
               ONE_LESS]),
            ("UPDATE event_log.event SET stream_id = 2, source_offset = 2 WHERE run_no = TARGET AND run_seq = 5",
             &["t/1 generation 1: by its ledger 2 events were appended, and the log has 3",
               "t/1 generation 1: offset 2: its persistedAt is earlier than that of offset 1", ONE_LESS]),
            ("UPDATE event_log.event SET stream_id = 7 WHERE run_no = TARGET AND run_seq = 5",
             &["stream number 7: the log has events of it, and the ledger does not have the stream", ONE_LESS]),
            ("DELETE FROM event_log.stream WHERE partition = 1",
             &["stream number 2: the log has events of it, and the ledger does not have the stream"]),
            ("DELETE FROM event_log.event WHERE stream_id = 2",
             &["t/1 generation 1: by its ledger 2 events were appended, and the log has 0"]),
        ];
        expect(&database, &edits).await;
    })
    .await;
}

/// Puts an event behind the target's last one, with the digests that fit.
async fn invent(database: &Database, stream_id: i64, source_offset: i64) {
    let (run_no, head, chain): (i64, i64, [u8; 32]) = sqlx::query_as(
        "SELECT run_no, run_seq, chain_digest FROM event_log.event
         WHERE run_no = (SELECT run_no FROM event_log.run WHERE run_id = 'target')
         ORDER BY run_seq DESC LIMIT 1",
    )
    .fetch_one(&database.pool)
    .await
    .unwrap();
    let event = RunEvent {
        emitted_at: Micros(0),
        ..target(10)
    };
    let content = event.content_digest().unwrap();
    let chain = chain_digest(
        Digest(chain),
        head + 1,
        event.event_id,
        event.idempotency_key,
        event.emitted_at,
        event.engine_attempt_id,
        content,
    );
    let (id, key) = (event.event_id, event.idempotency_key);
    insert(
        database,
        (run_no, head + 1),
        (stream_id, source_offset),
        (id, key),
        content,
        chain,
    )
    .await;
}

async fn insert(
    database: &Database,
    (run_no, run_seq): (i64, i64),
    (stream_id, source_offset): (i64, i64),
    (event_id, key): (Uuid, IdempotencyKey),
    content: Digest,
    chain: Digest,
) {
    let inserted = sqlx::query(
        "INSERT INTO event_log.event
         SELECT $1, $2, $3, $4, 'epoch', (SELECT max(last_persisted_at) FROM event_log.stream WHERE stream_id = $3),
                $5, 1, 1, $6, $7, $8, 'acme', 'StepStarted', 'project', 'environment', 'plan', 'v1', 's10',
                '{\"rows\": 1}'",
    )
    .bind(run_no)
    .bind(run_seq)
    .bind(stream_id)
    .bind(source_offset)
    .bind(event_id)
    .bind(key.0.as_slice())
    .bind(content.0.as_slice())
    .bind(chain.0.as_slice())
    .execute(&database.pool)
    .await;
    inserted.unwrap();
}

#[tokio::test]
async fn an_event_that_was_invented_with_a_fitting_chain_is_found_by_the_ledger() {
    with_database(async |database| {
        log(&database).await;
        for (stream_id, offset, line) in [
            (2, 2, "t/1 generation 1: by its ledger 2 events were appended, and the log has 3"),
            (1, 18, "t/0 generation 1: it has read the offsets from 0 to below 18, and 1 of its events have others, the first 18"),
        ] {
            invent(&database, stream_id, offset).await;
            assert_eq!(lines(&verified(&database).await), [line]);
            put_back(&database).await;
        }
    })
    .await;
}

#[tokio::test]
async fn of_many_findings_the_first_are_told_and_all_are_counted() {
    with_database(async |database| {
        let mut writer = database.writer(0).await;
        let events = (0..1_000).map(|n| event("acme", &format!("run {n:03}"), "a"));
        append(&mut writer, &database, batch(0, events)).await;
        for table in TABLES {
            run(&database, format!("CREATE TABLE saved_{table} AS TABLE event_log.{table}")).await;
        }
        tamper(&database, "UPDATE event_log.event SET plan_id = 'x' WHERE run_no > 3").await;
        let found = verified(&database).await;
        assert_eq!(found.findings.count(), 997);
        let expected: Vec<String> = (3..23)
            .map(|n| {
                format!(
                    "tenant \"acme\" run \"run {n:03}\": runSeq 1: its content is not what was appended (content_digest)"
                )
            })
            .collect();
        assert_eq!(lines(&found), expected);
    })
    .await;
}
