//! Erasure: the payloads are gone from everywhere, and everything else is as it was.

use event_log::fault::sqlstate;
use event_log::generation::Operator;
use event_log::{Outcome, StreamWriter};
use runlog_projectors::RunStatusProjection;
use runlog_projectors::erasure::Eraser;
use runlog_projectors::projection::{NAMES, ProjectionError};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::ingested::{
    Partition, event, failed_run, project_all, rebuild_all, run_no, verify_log, with,
};
use crate::retention::{refusal, retire};
use crate::support::{Database, Running, settings};
use crate::verify::verify_version;

const BY: Operator<'static> = Operator {
    name: "anna@host",
    reason: "asked for by the customer",
};

async fn erase(database: &Database, run: &str) -> Result<i64, ProjectionError> {
    let run_no = run_no(database, run).await;
    let options = database.pool.connect_options();
    let mut connection = PgConnection::connect_with(&options).await.unwrap();
    let eraser = Eraser::new(&mut connection).await.unwrap();
    eraser.erase(&mut connection, &[run_no], BY).await
}

/// The tables of the database in which this text stands, as it is or as bytes.
async fn where_it_stands(database: &Database, text: &str) -> Vec<String> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'r' AND n.nspname !~ '^(pg_|information_schema)' ORDER BY 1",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    assert!(tables.len() > 20, "{tables:?}");
    let bytes: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut found = Vec::new();
    for table in tables {
        let sql = format!(
            "SELECT EXISTS (SELECT FROM {table} t WHERE t::text LIKE '%{text}%' OR t::text LIKE '%{bytes}%')"
        );
        let stands = sqlx::query_scalar::<_, bool>(AssertSqlSafe(sql));
        if stands.fetch_one(&database.pool).await.unwrap() {
            found.push(table);
        }
    }
    found
}

#[tokio::test]
async fn payloads_are_gone_from_the_log_and_from_every_version_and_nothing_else_is() {
    let database = Database::new().await;
    let mut partition = Partition::claim(&database, 0).await;
    for run in ["a", "b"] {
        partition.append(&database, failed_run(run)).await;
    }
    project_all(&database).await;
    rebuild_all(&database).await;
    let untouched = verify_log(&database).await;
    let everywhere = where_it_stands(&database, "secret of a").await;
    let expected = [
        "event_log.event",
        "run_status_1.run_current",
        "run_status_1.run_snapshot",
        "run_status_2.run_current",
        "run_status_2.run_snapshot",
    ];
    assert_eq!(everywhere, expected);

    let act = erase(&database, "a").await.unwrap();

    assert_eq!(where_it_stands(&database, "secret of a").await, [""; 0]);
    assert_eq!(where_it_stands(&database, "secret of b").await, expected);
    let row: (String, String, String, i64, i64) = sqlx::query_as(
        "SELECT a.action, a.subject, a.reason, x.up_to_seq, x.payloads
         FROM event_log.audit a JOIN event_log.erased_run x USING (audit_id) WHERE audit_id = $1",
    )
    .bind(act)
    .fetch_one(&database.pool)
    .await
    .unwrap();
    let expected = ("run.erase".into(), "acme/a".into(), BY.reason.into(), 7, 2);
    assert_eq!(row, expected);
    assert_eq!(verify_log(&database).await, untouched);
    for (name, version) in NAMES.iter().flat_map(|name| [(name, 1), (name, 2)]) {
        let verified = verify_version(&database, name, version, 10).await;
        assert_eq!(
            (verified.runs, verified.differences),
            (2, 0),
            "{name}: {:?}",
            verified.lines
        );
    }
    let (errors, status): (i64, String) = sqlx::query_as(
        "SELECT (SELECT count(error) FROM read_model.step_attempt WHERE run_id = 'a'), status
         FROM read_model.run_current WHERE run_id = 'a' AND error IS NULL",
    )
    .fetch_one(&database.pool)
    .await
    .unwrap();
    assert_eq!((errors, status.as_str()), (0, "FAILED"));
    rebuild_all(&database).await;

    // The dedup knows what was there; an exact repeat brings nothing back.
    let mut repeated = failed_run("a");
    let mut other = repeated[6].clone();
    other.payload = None;
    repeated.push(other);
    let mut fresh = StreamWriter::new(partition.writer.claim().clone());
    let batch = partition.batch(repeated);
    let outcomes = fresh.append(&database.pool, &batch).await.unwrap().outcomes;
    let duplicates = outcomes
        .iter()
        .filter(|o| matches!(o, Outcome::Duplicate(_)));
    assert_eq!(duplicates.count(), 7, "{outcomes:?}");
    assert!(matches!(outcomes[7], Outcome::Conflict(_)), "{outcomes:?}");
    assert_eq!(where_it_stands(&database, "secret of a").await, [""; 0]);
}

#[tokio::test]
async fn an_event_that_comes_later_keeps_its_payload_until_it_is_erased_too_and_a_retired_run_has_none()
 {
    let database = Database::new().await;
    let mut partition = Partition::claim(&database, 0).await;
    partition.append(&database, failed_run("a")).await;
    // Nothing is read yet: there is nothing to rewrite.
    erase(&database, "a").await.unwrap();
    let step = |event_type| event("a", event_type, Some("late"));
    let failed = with(step("StepFailed"), json!({"error": "secret of a, later"}));
    partition
        .append(&database, vec![step("StepStarted"), failed])
        .await;
    project_all(&database).await;
    assert_eq!(
        where_it_stands(&database, "secret of a, later").await,
        ["event_log.event", "run_status_1.step_attempt"]
    );
    assert_eq!(verify_log(&database).await.0, Vec::<String>::new());
    let first = verify_version(&database, "run_status", 1, 10).await;
    assert_eq!(first.differences, 0, "{:?}", first.lines);
    erase(&database, "a").await.unwrap();
    assert_eq!(where_it_stands(&database, "secret of a").await, [""; 0]);
    assert_eq!(verify_log(&database).await.0, Vec::<String>::new());
    retire(&database, &["a"]).await.unwrap();
    let (code, message) = refusal(erase(&database, "a").await);
    assert_eq!(code, "55000", "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_has_read_a_payload_is_waited_for_and_what_it_wrote_is_rewritten() {
    let database = Database::new().await;
    let mut partition = Partition::claim(&database, 0).await;
    partition
        .append(&database, vec![event("z", "RunQueued", None)])
        .await;
    project_all(&database).await;
    // The batch reads the run a, which it has never seen, and waits for the row of z.
    let mut holder = database.pool.begin().await.unwrap();
    sqlx::raw_sql("SELECT FROM run_status_1.run_current FOR UPDATE")
        .execute(&mut *holder)
        .await
        .unwrap();
    let mut events = failed_run("a");
    events.push(event("z", "RunStarted", None));
    partition.append(&database, events).await;
    let running = Running::start(&database, "one", settings());
    database
        .holds(
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database()
               AND application_name = 'runner' AND wait_event_type = 'Lock'",
        )
        .await;
    let (code, message) = refusal(erase(&database, "a").await);
    assert_eq!(code, "55P03", "{message}");
    holder.rollback().await.unwrap();
    database.caught_up_in("run_status").await;
    assert_eq!(where_it_stands(&database, "secret of a").await.len(), 3);
    erase(&database, "a").await.unwrap();
    running.stop().await;
    assert_eq!(where_it_stands(&database, "secret of a").await, [""; 0]);
    let verified = verify_version(&database, RunStatusProjection::NAME, 1, 10).await;
    assert_eq!(
        (verified.runs, verified.differences),
        (2, 0),
        "{:?}",
        verified.lines
    );
}

#[tokio::test]
async fn a_payload_changes_with_a_record_of_the_same_transaction_only_to_null_and_only_up_to_it() {
    let database = Database::new().await;
    let mut partition = Partition::claim(&database, 0).await;
    for run in ["a", "b"] {
        partition.append(&database, failed_run(run)).await;
    }
    project_all(&database).await;
    let record = "INSERT INTO event_log.audit (operator, action, subject) VALUES ('anna', 'run.erase', 'a');
         INSERT INTO event_log.erased_run (run_no, audit_id)
         SELECT r.run_no, (SELECT max(audit_id) FROM event_log.audit) FROM event_log.run r WHERE r.run_id = 'a';";
    let of =
        |run| format!("WHERE run_no = (SELECT run_no FROM event_log.run WHERE run_id = '{run}')");
    let set = |what: &str, run| format!("UPDATE event_log.event SET {what} {}", of(run));
    let replace = |runs: &str, rows: &str| {
        format!("SELECT read_model.replace_rows('run_status', 1, 'run_current', {runs}, {rows})")
    };
    let ours = "ARRAY(SELECT run_no FROM event_log.run WHERE run_id = 'a')";
    let all = "ARRAY(SELECT run_no FROM event_log.run)";
    let rows_of = |run| {
        format!("ARRAY(SELECT c::text FROM run_status_1.run_current c WHERE run_id = '{run}')")
    };
    let erased = format!("{record} {};", set("payload = NULL", "a"));
    for (what, statements, code) in [
        ("no record", set("payload = NULL", "a"), "42501"),
        ("no row met, no record", "UPDATE event_log.event SET payload = NULL WHERE run_no = -1".to_owned(), "42501"),
        ("another run", format!("{record} {}", set("payload = NULL", "b")), "42501"),
        ("to another payload", format!("{record} {}", set("payload = '{}'", "a")), "42501"),
        ("more than the payload", format!("{record} {}", set("payload = NULL, event_type = 'RunQueued'", "a")), "42501"),
        ("the digest with it", format!("{record} {}", set("payload = NULL, content_digest = chain_digest", "a")), "42501"),
        ("a delete", format!("{record} DELETE FROM event_log.event {}", of("a")), "42501"),
        ("half of it", format!("{record} {} AND run_seq < 7", set("payload = NULL", "a")), "23514"),
        ("the record alone", record.to_owned(), "23514"),
        ("the record is taken back", format!("{erased} DELETE FROM event_log.erased_run"), "42501"),
        ("the record is changed", format!("{erased} UPDATE event_log.erased_run SET up_to_seq = 99"), "42501"),
        ("records are truncated", "TRUNCATE event_log.erased_run".to_owned(), "42501"),
        ("no row of the audit", "INSERT INTO event_log.erased_run (run_no, audit_id) SELECT run_no, 99 FROM event_log.run".to_owned(), "55000"),
        ("rows of a run that is not erased", format!("{erased} {}", replace(all, &rows_of("a"))), "55000"),
        ("rows without an act", replace(ours, &rows_of("a")), "55000"),
        ("rows of another run", format!("{erased} {}", replace(ours, &rows_of("b"))), "22000"),
        ("a table that is none", format!("{erased} {}", replace(ours, "'{}'").replace("run_current", "pg_class")), "42P01"),
        ("a table of sums", format!("{erased} {}", replace(ours, "'{}'").replace("'run_status'", "'run_stats'").replace("run_current", "run_hourly")), "42P01"),
    ] {
        let mut connection = database.pool.acquire().await.unwrap();
        connection.close_on_drop();
        let result = sqlx::raw_sql(AssertSqlSafe(format!("BEGIN; {statements}; COMMIT")));
        let error = result.execute(&mut *connection).await.expect_err(what);
        assert_eq!(sqlstate(&error).as_deref(), Some(code), "{what}: {error}");
    }
    assert_eq!(
        database
            .number("SELECT count(payload) FROM event_log.event")
            .await,
        4
    );
    let verified = verify_version(&database, RunStatusProjection::NAME, 1, 10).await;
    assert_eq!(verified.differences, 0, "{:?}", verified.lines);
}

#[tokio::test]
async fn a_payload_that_is_missing_without_a_record_is_found_and_so_is_a_digest_that_was_changed() {
    let database = Database::new().await;
    let mut partition = Partition::claim(&database, 0).await;
    partition.append(&database, failed_run("a")).await;
    erase(&database, "a").await.unwrap();
    let late = with(event("a", "RunAnnotated", None), json!({"late": 1}));
    partition.append(&database, vec![late]).await;
    assert_eq!(verify_log(&database).await.0, Vec::<String>::new());
    database
        .execute(
            "ALTER TABLE event_log.event DISABLE TRIGGER USER;
             UPDATE event_log.event SET payload = NULL WHERE run_seq = 8",
        )
        .await;
    let findings = verify_log(&database).await.0;
    let content = "runSeq 8: its content is not what was appended (content_digest)";
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(findings[0].ends_with(content), "{findings:?}");
    // An erased event's digest cannot be compared with its content, but with the chain.
    database
        .execute("UPDATE event_log.event SET content_digest = sha256('x') WHERE run_seq = 6")
        .await;
    let findings = verify_log(&database).await.0;
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert!(
        findings.iter().any(|line| line.contains("runSeq 6")),
        "{findings:?}"
    );
}

#[tokio::test]
async fn dead_letters_keep_their_reason_and_place_and_nothing_of_the_record() {
    let database = Database::new().await;
    let mut partition = Partition::claim(&database, 0).await;
    partition.append(&database, failed_run("a")).await;
    for run in ["a", "b"] {
        let mut conflict = with(failed_run(run)[1].clone(), json!({"secret": "of a letter"}));
        if run == "b" {
            partition.append(&database, failed_run("b")).await;
        }
        conflict.event_id = uuid::Uuid::now_v7();
        let mut batch = partition.batch(vec![conflict]);
        batch.records[0].value = Some(format!("secret of letter {run}").into_bytes());
        batch.records[0].key = Some(format!("secret of letter {run}").into_bytes());
        partition.next = batch.end;
        partition
            .writer
            .append(&database.pool, &batch)
            .await
            .unwrap();
    }
    let mut connection = database.pool.acquire().await.unwrap();
    let of = |run| ("acme", Some(run), BY);
    let (tenant, run, by) = of("a");
    let erased = event_log::erasure::erase_dead_letters(&mut connection, tenant, run, by)
        .await
        .unwrap();
    assert_eq!(erased.map(|(_, letters)| letters), Some(1));
    assert_eq!(
        where_it_stands(&database, "secret of letter a").await,
        [""; 0]
    );
    assert_eq!(
        where_it_stands(&database, "secret of letter b").await,
        ["event_log.dead_letter"]
    );
    let kept = "SELECT count(*) FROM event_log.dead_letter
         WHERE run_id = 'a' AND value_digest = sha256('secret of letter a') AND value_bytes = 18 AND reason = 'idempotency_conflict' AND status = 'discarded' AND source_offset = 7
           AND erased_at IS NOT NULL AND headers = '[]' AND detail LIKE 'erased on request%'";
    assert_eq!(database.number(kept).await, 1);
    let again = event_log::erasure::erase_dead_letters(&mut connection, tenant, run, by)
        .await
        .unwrap();
    assert_eq!(again, None);
    let all = event_log::erasure::erase_dead_letters(&mut connection, tenant, None, by)
        .await
        .unwrap();
    assert_eq!(all.map(|(_, letters)| letters), Some(1));
    assert_eq!(
        database
            .number("SELECT count(*) FROM event_log.audit WHERE action = 'dead_letter.erase'")
            .await,
        2
    );
}

#[tokio::test]
async fn an_erasure_in_the_middle_of_a_rebuild_leaves_each_version_as_far_as_it_had_come() {
    let database = Database::new().await;
    let mut first = Partition::claim(&database, 0).await;
    let mut second = Partition::claim(&database, 1).await;
    let mut events = failed_run("a");
    let tail = events.split_off(4);
    first.append(&database, events).await;
    project_all(&database).await;
    for name in NAMES {
        sqlx::query("SELECT read_model.begin_rebuild($1)")
            .bind(name)
            .execute(&database.pool)
            .await
            .unwrap();
    }
    // Version 2 has read the first four events, version 1 all seven.
    project_all(&database).await;
    let held = "UPDATE read_model.projection_checkpoint
         SET claim = gen_random_uuid(), owner = 'idle', lease_expires_at = now() + interval '1 hour' WHERE version = 2";
    second.append(&database, tail).await;
    database.execute(held).await;
    let running: Vec<Running> = NAMES
        .iter()
        .map(|name| {
            let projection = runlog_projectors::projection::by_name(name).unwrap();
            Running::start_with(&database, "one", settings(), projection)
        })
        .collect();
    database
        .holds("SELECT count(*) = 3 FROM read_model.projection_checkpoint WHERE version = 1 AND applied = 3")
        .await;
    for running in running {
        running.stop().await;
    }
    database
        .execute("DELETE FROM read_model.projection_checkpoint WHERE version = 2 AND partition = 1")
        .await;
    erase(&database, "a").await.unwrap();
    assert_eq!(where_it_stands(&database, "secret of a").await, [""; 0]);
    database
        .execute(
            "UPDATE read_model.projection_checkpoint SET claim = NULL, owner = NULL, lease_expires_at = NULL WHERE version = 2",
        )
        .await;
    project_all(&database).await;
    for name in NAMES {
        let rows = crate::tables::rows(&database, &format!("{name}_2")).await;
        assert_eq!(
            crate::tables::rows(&database, &format!("{name}_1")).await,
            rows
        );
        assert!(!rows.is_empty());
    }
}
