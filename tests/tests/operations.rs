//! What operators see: configuration that is wrong, services that are away, status, lag tools.
#![allow(clippy::unwrap_used, clippy::panic)]

use anyhow::ensure;
use runlog_tests::environment::{run_to_end, said};
use runlog_tests::generator::generate;
use runlog_tests::oracle::json::Json;
use runlog_tests::{Database, Environment, Pipeline, Process, wait_until};
use std::collections::BTreeMap;
use std::time::Duration;

const PROGRAMS: [&str; 3] = ["runlog", "runlog-ingest", "runlog-projectors"];
const DRAINED: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_wrong_configuration_key_exits_2_and_names_the_key_and_the_nearest() {
    let environment = Environment::from_env().unwrap();
    let file = environment.scratch_file("wrong.toml");
    std::fs::write(&file, "[ingest]\ngroup_idd = \"x\"\n").unwrap();
    for program in PROGRAMS {
        let mut command = environment.program(program);
        command
            .arg("--config")
            .arg(&file)
            .env("RUNLOG_DATABASE__URL", "postgres://u:p@127.0.0.1:1/d");
        if program == "runlog" {
            command.args(["config", "show"]);
        }
        let output = run_to_end(command).await.unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{program}: {text}");
        let rest = text.replace("group_idd", "");
        assert!(
            text.contains("group_idd") && rest.contains("group_id"),
            "{program} must name both keys: {text}"
        );
    }
}

#[tokio::test]
async fn more_writers_than_connections_exit_2_and_name_both_keys() {
    let environment = Environment::from_env().unwrap();
    let mut command = environment.program("runlog-ingest");
    command
        .env("RUNLOG_INGEST__WRITERS", "8")
        .env("RUNLOG_DATABASE__MAX_CONNECTIONS", "8");
    let output = run_to_end(command).await.unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("RUNLOG_INGEST__WRITERS") && text.contains("database.max_connections"),
        "{text}"
    );
}

#[tokio::test]
async fn status_without_postgres_exits_3_and_names_the_host() {
    let environment = Environment::from_env().unwrap();
    let mut command = environment.program("runlog");
    command
        .arg("status")
        .env(
            "RUNLOG_DATABASE__URL",
            "postgres://nobody:secret@127.0.0.1:1/nothing",
        )
        .env("RUNLOG_KAFKA__BOOTSTRAP_SERVERS", &environment.kafka);
    let output = run_to_end(command).await.unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("127.0.0.1"), "{text}");
    assert!(
        !text.contains("secret"),
        "the password must not be shown: {text}"
    );
}

#[tokio::test]
async fn status_without_kafka_exits_3_and_names_the_server() {
    let environment = Environment::from_env().unwrap();
    let database = Database::migrated(&environment).await.unwrap();
    let mut command = environment.program("runlog");
    command
        .arg("status")
        .env("RUNLOG_DATABASE__URL", &database.url)
        .env("RUNLOG_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1");
    let output = run_to_end(command).await.unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    assert!(text.contains("127.0.0.1:1"), "{text}");
}

#[tokio::test]
async fn without_migrations_the_processes_stop_and_say_runlog_migrate() {
    let environment = Environment::from_env().unwrap();
    let database = Database::empty(&environment).await.unwrap();
    for program in ["runlog-ingest", "runlog-projectors"] {
        let mut command = environment.program(program);
        command
            .env("RUNLOG_DATABASE__URL", &database.url)
            .env("RUNLOG_KAFKA__BOOTSTRAP_SERVERS", &environment.kafka);
        let mut process = Process::spawn(&environment, program, command).unwrap();
        let status = process.wait_exit(DRAINED).await.unwrap();
        assert!(matches!(status.code(), Some(1 | 2)), "{program}: {status}");
        let log = process.written().unwrap();
        assert!(
            log.contains("runlog migrate"),
            "{program} must say what to do: {log}"
        );
    }
}

#[tokio::test]
async fn migrate_twice_is_no_harm() {
    let environment = Environment::from_env().unwrap();
    let database = Database::migrated(&environment).await.unwrap();
    let mut command = environment.program("runlog");
    command
        .arg("migrate")
        .env("RUNLOG_DATABASE__URL", &database.url);
    let output = run_to_end(command).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

/// Objects, at whatever level, that have all of these keys.
fn objects<'a>(value: &'a Json, keys: &[&str], found: &mut Vec<&'a BTreeMap<String, Json>>) {
    match value {
        Json::Object(members) => {
            if keys.iter().all(|key| members.contains_key(*key)) {
                found.push(members);
            }
            members
                .values()
                .for_each(|member| objects(member, keys, found));
        }
        Json::Array(items) => items.iter().for_each(|item| objects(item, keys, found)),
        _ => {}
    }
}

fn integer(members: &BTreeMap<String, Json>, key: &str) -> i64 {
    match members.get(key) {
        Some(Json::Number {
            integer: Some(value),
            ..
        }) => *value,
        other => panic!("{key} is {other:?}, expected an integer"),
    }
}

#[tokio::test]
async fn kafka_is_shown_no_offset_before_it_is_stored() {
    let pipeline = Pipeline::fresh(1).await.unwrap();
    let records = generate(12, 1_000, 1);
    let mut ingest = pipeline.ingest().unwrap();
    ingest.wait_ready().await.unwrap();
    pipeline.topic.send(&records[..30]).await.unwrap();
    wait_shown(&pipeline, 30).await;
    let mut holder = pipeline.database.pool.begin().await.unwrap();
    sqlx::query("SELECT FROM event_log.stream FOR UPDATE")
        .execute(&mut *holder)
        .await
        .unwrap();
    pipeline.topic.send(&records[30..100]).await.unwrap();
    // Said when the records have waited for longer than it takes until offsets are shown again.
    wait_until("/readyz to name the lock", DRAINED, async || {
        let ready = ingest.get("/readyz").await?;
        ensure!(ready.contains("lock"), "{ready}");
        Ok(())
    })
    .await
    .unwrap();
    wait_shown(&pipeline, 30).await;
    holder.rollback().await.unwrap();
    wait_shown(&pipeline, 100).await;
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
}

/// Waits until Kafka was shown an offset, and fails where it was shown a higher one.
async fn wait_shown(pipeline: &Pipeline, expected: i64) {
    let shown = wait_until("the group's offset", DRAINED, async || {
        let committed = pipeline.topic.group_offsets(&pipeline.group).await?;
        let shown = committed.get(&0).copied().unwrap_or_default();
        ensure!(shown >= expected, "{shown}, expected {expected}");
        Ok(shown)
    });
    assert_eq!(shown.await.unwrap(), expected);
}

#[tokio::test]
async fn status_and_group_offsets_show_the_stored_offsets_after_a_drain() {
    let pipeline = Pipeline::fresh(3).await.unwrap();
    let records = generate(11, 1_500, 3);
    let produced = pipeline.topic.send(&records).await.unwrap();
    let ingest = pipeline.ingest().unwrap();
    let projectors = pipeline.projectors().unwrap();
    pipeline.wait_projected(DRAINED).await.unwrap();
    let heads = pipeline.topic.heads().await.unwrap();
    assert_eq!(
        heads.values().sum::<i64>(),
        i64::try_from(produced.len()).unwrap()
    );
    wait_until("the group's offsets to follow", DRAINED, async || {
        let committed = pipeline.topic.group_offsets(&pipeline.group).await?;
        ensure!(
            committed == heads,
            "committed {committed:?}, stored {heads:?}"
        );
        Ok(())
    })
    .await
    .unwrap();

    let mut command = pipeline.program("runlog");
    command.args(["status", "--wait", "--timeout", "30s"]);
    let output = run_to_end(command).await.unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "status --wait: {}",
        said(&output)
    );
    let mut command = pipeline.program("runlog");
    command.args(["status", "-o", "json"]);
    let output = run_to_end(command).await.unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "status -o json: {}",
        said(&output)
    );
    let document =
        Json::read(&output.stdout).unwrap_or_else(|error| panic!("{error:?}: {}", said(&output)));
    let mut streams = Vec::new();
    let counters = ["appended", "duplicates", "dead_lettered", "skipped"];
    let mut keys = vec![
        "topic",
        "partition",
        "kafka_head",
        "stored_offset",
        "ingest_lag",
    ];
    keys.extend(counters);
    objects(&document, &keys, &mut streams);
    assert_eq!(
        streams.len(),
        heads.len(),
        "one object with {keys:?} for each partition: {}",
        said(&output)
    );
    for stream in streams {
        let head = heads[&i32::try_from(integer(stream, "partition")).unwrap()];
        assert_eq!(
            [
                integer(stream, "kafka_head"),
                integer(stream, "stored_offset")
            ],
            [head, head]
        );
        assert_eq!(integer(stream, "ingest_lag"), 0);
        assert_eq!(
            counters
                .map(|counter| integer(stream, counter))
                .iter()
                .sum::<i64>(),
            head
        );
    }
    let mut projections = Vec::new();
    objects(
        &document,
        &[
            "projection",
            "partition",
            "checkpoint",
            "lag_events",
            "lag_seconds",
        ],
        &mut projections,
    );
    let run_status: Vec<_> = projections
        .iter()
        .filter(|found| found["projection"] == Json::Text("run_status".to_owned()))
        .collect();
    assert_eq!(
        run_status.len(),
        heads.len(),
        "run_status for each partition: {}",
        said(&output)
    );
    assert!(
        run_status
            .iter()
            .all(|found| integer(found, "lag_events") == 0),
        "{}",
        said(&output)
    );
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
    assert_eq!(projectors.terminate().await.unwrap().code(), Some(0));
}

/// What `runs show --at-seq` says: the digest of the state, and the runSeq of the snapshot it began with.
async fn shown_at(pipeline: &Pipeline, run: &(String, String, i64)) -> (String, Option<i64>) {
    let (tenant_id, run_id, seq) = run;
    let mut command = pipeline.program("runlog");
    let seq = format!("--at-seq={seq}");
    command.args([
        "runs", "show", "-o", "json", "--tenant", tenant_id, &seq, "--", run_id,
    ]);
    let output = run_to_end(command).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let document = Json::read(&output.stdout).unwrap();
    let mut found = Vec::new();
    objects(
        &document,
        &["digest", "snapshot", "events_folded"],
        &mut found,
    );
    let Json::Text(digest) = &found[0]["digest"] else {
        panic!("{}", said(&output));
    };
    let snapshot = found[0]["snapshot"].members();
    (
        digest.clone(),
        snapshot.map(|used| integer(used, "run_seq")),
    )
}

#[tokio::test]
async fn a_run_as_it_was_is_the_same_from_its_snapshot_and_from_the_log_alone() {
    let pipeline = Pipeline::fresh(2).await.unwrap();
    let ingest = pipeline.ingest().unwrap();
    let projectors = pipeline.projectors().unwrap();
    let records = generate(14, 1_500, 2);
    pipeline.topic.send(&records).await.unwrap();
    pipeline.wait_projected(DRAINED).await.unwrap();
    let runs: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT tenant_id, run_id, s.run_seq FROM read_model.run_snapshot s
           JOIN read_model.run_current r USING (tenant_id, run_id)
          WHERE r.last_event_seq > s.run_seq ORDER BY tenant_id, run_id LIMIT 3",
    )
    .fetch_all(&pipeline.database.pool)
    .await
    .unwrap();
    assert!(!runs.is_empty(), "no run goes on behind its snapshot");
    for run in runs {
        let after = (run.0.clone(), run.1.clone(), run.2 + 1);
        let (at, behind) = (
            shown_at(&pipeline, &run).await,
            shown_at(&pipeline, &after).await,
        );
        assert_eq!((at.1, behind.1), (Some(run.2), Some(run.2)), "{run:?}");
        sqlx::query("DELETE FROM read_model.run_snapshot WHERE tenant_id = $1 AND run_id = $2")
            .bind(&run.0)
            .bind(&run.1)
            .execute(&pipeline.database.pool)
            .await
            .unwrap();
        assert_eq!(shown_at(&pipeline, &run).await, (at.0, None), "{run:?}");
        assert_eq!(
            shown_at(&pipeline, &after).await,
            (behind.0, None),
            "{run:?}"
        );
    }
    assert_eq!(ingest.terminate().await.unwrap().code(), Some(0));
    assert_eq!(projectors.terminate().await.unwrap().code(), Some(0));
}
