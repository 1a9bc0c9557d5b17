//! What an operator decides about partitions, with real ingest and projectors: a halted one goes on,
//! one is read again under load, and what was refused is appended and projected on a second reading.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use anyhow::{Context as _, ensure};
use runlog_tests::environment::{run_to_end, said};
use runlog_tests::flow::Flow;
use runlog_tests::generator::draft::{Draft, render};
use runlog_tests::generator::{Intent, Record, generate};
use runlog_tests::oracle::Produced;
use runlog_tests::oracle::log::Reading;
use runlog_tests::oracle::table::report;
use runlog_tests::{Pipeline, Process, observe, wait_until};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);
const WHY: [&str; 2] = ["--reason", "a test of the operator's commands"];

/// Runs `runlog stream ACT TOPIC/PARTITION ...`; its exit code and what it said.
async fn stream(pipeline: &Pipeline, act: &str, partition: i32, more: &[&str]) -> (i32, String) {
    let mut command = pipeline.program("runlog");
    let place = format!("{}/{partition}", pipeline.topic.name);
    command.args(["stream", act, &place]).args(more);
    let output = run_to_end(command).await.unwrap();
    (output.status.code().unwrap(), said(&output))
}

/// Resumes or rewinds, which has to succeed.
async fn decide(pipeline: &Pipeline, act: &str, partition: i32, more: &[&str]) {
    let (code, text) = stream(pipeline, act, partition, &[&WHY, more].concat()).await;
    assert_eq!(code, 0, "{act} {more:?}: {text}");
}

/// `runlog stream halted`: its exit code, and the codes by partition.
async fn halted(pipeline: &Pipeline) -> (i32, Vec<(i64, String)>) {
    let mut command = pipeline.program("runlog");
    command.args(["stream", "halted", "-o", "json"]);
    let output = run_to_end(command).await.unwrap();
    let rows: Value = serde_json::from_slice(&output.stdout).unwrap();
    let row = |row: &Value| {
        let code = row["code"].as_str().unwrap().to_owned();
        (row["partition"].as_i64().unwrap(), code)
    };
    let rows = rows.as_array().unwrap().iter().map(row).collect();
    (output.status.code().unwrap(), rows)
}

async fn wait_halted(pipeline: &Pipeline, partition: i64, codes: &[&str]) {
    wait_until("the partition to be halted", SOON, async || {
        let (exit, rows) = halted(pipeline).await;
        let is_it = rows.len() == 1 && rows[0].0 == partition && codes.contains(&&*rows[0].1);
        ensure!(is_it && exit == 1, "exit {exit}, {rows:?}");
        Ok(())
    })
    .await
    .unwrap();
}

async fn readings(pipeline: &Pipeline, partition: i32) -> Vec<Reading> {
    let mut readings = observe::readings(&pipeline.database.pool).await.unwrap();
    readings.retain(|reading| reading.partition == partition);
    readings
}

/// The starts and ends of a partition's generations.
async fn bounds(pipeline: &Pipeline, partition: i32) -> Vec<(i64, i64)> {
    let readings = readings(pipeline, partition).await;
    readings.iter().map(|r| (r.start, r.end)).collect()
}

async fn number(pipeline: &Pipeline, query: &'static str) -> i64 {
    sqlx::query_scalar(query)
        .fetch_one(&pipeline.database.pool)
        .await
        .unwrap()
}

async fn assert_as_read(pipeline: &Pipeline, produced: &[Produced]) {
    pipeline.wait_projected(SOON).await.unwrap();
    let differences = pipeline.differences_over_readings(produced).await.unwrap();
    assert!(differences.is_empty(), "{}", report(&differences, 20));
}

async fn end(process: Process) {
    assert_eq!(process.terminate().await.unwrap().code(), Some(0));
}

/// Records that are appended whatever else is in the topic, of one partition.
fn good_records(seed: u64, count: usize, partitions: i32, partition: i32) -> Vec<Record> {
    let good = |record: &Record| {
        record.intent == Intent::Append
            && record.content_type.is_none()
            && record.partition == partition
    };
    let records = generate(seed, 2_000, partitions).into_iter().filter(good);
    let records: Vec<_> = records.take(count).collect();
    assert_eq!(records.len(), count);
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_partition_is_resumed_and_the_gap_stays_in_the_ledger() {
    let pipeline = Pipeline::fresh(2).await.unwrap();
    let (first, second) = (good_records(71, 300, 2, 0), good_records(71, 300, 2, 1));
    let projectors = pipeline.projectors().unwrap();
    let mut ingest = pipeline.ingest().unwrap();
    ingest.wait_ready().await.unwrap();
    let mut produced = pipeline.topic.send(&first[..100]).await.unwrap();
    produced.extend(pipeline.topic.send(&second[..100]).await.unwrap());
    pipeline.wait_ingested(SOON).await.unwrap();
    end(ingest).await;

    // While nobody reads, retention passes ten records of partition 0.
    produced.extend(pipeline.topic.send(&first[100..200]).await.unwrap());
    pipeline.topic.delete_below(0, 110).await.unwrap();
    let mut ingest = pipeline.ingest().unwrap();
    wait_halted(&pipeline, 0, &["expired"]).await;
    // The other partition goes on.
    produced.extend(pipeline.topic.send(&second[100..200]).await.unwrap());
    wait_until("partition 1 to be read", SOON, async || {
        let bounds = bounds(&pipeline, 1).await;
        ensure!(bounds == [(0, 200)], "{bounds:?}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(
        bounds(&pipeline, 0).await,
        [(0, 100)],
        "nothing was reset in silence"
    );

    // Nobody has agreed to the loss; then somebody does.
    let (code, text) = stream(&pipeline, "resume", 0, &WHY).await;
    assert_eq!(code, 2, "{text}");
    assert_eq!(halted(&pipeline).await.0, 1);
    decide(&pipeline, "resume", 0, &["--yes"]).await;
    assert_eq!(halted(&pipeline).await, (0, Vec::new()));
    // The process that halted the partition goes on with it.
    ingest.wait_ready().await.unwrap();
    produced.extend(pipeline.topic.send(&first[200..]).await.unwrap());
    produced.extend(pipeline.topic.send(&second[200..]).await.unwrap());
    assert_as_read(&pipeline, &produced).await;
    assert_eq!(bounds(&pipeline, 0).await, [(0, 100), (110, 300)]);
    assert_eq!(bounds(&pipeline, 1).await, [(0, 300)]);
    let audited = "SELECT count(*) FROM event_log.audit WHERE action = 'stream.resume'
        AND (detail->>'next_offset')::int = 100 AND (detail->>'start_offset')::int = 110
        AND detail->>'halted_code' = 'expired'";
    assert_eq!(number(&pipeline, audited).await, 1);
    end(ingest).await;
    end(projectors).await;
}

/// Waits until the newest generation of a partition has read `more` offsets; where it is then.
async fn reads(pipeline: &Pipeline, partition: i32, more: i64) -> Reading {
    wait_until("a partition to be read", SOON, async || {
        let last = readings(pipeline, partition).await.pop();
        let last = last.context("it was never claimed")?;
        ensure!(last.end - last.start >= more, "{last:?}");
        Ok(last)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn rewinds_under_load_make_duplicates_and_no_second_event() {
    let pipeline = Pipeline::fresh(3).await.unwrap();
    let mut ingest = pipeline.ingest().unwrap();
    let mut projectors = pipeline.projectors().unwrap();
    ingest.wait_ready().await.unwrap();
    projectors.wait_ready().await.unwrap();
    let flow = Flow::of(&pipeline.topic, generate(73, 4_000, 3));
    let mut chosen = Vec::new();
    for (partition, share) in [(0, 2), (1, i64::MAX), (0, 3), (2, 2), (0, i64::MAX)] {
        // Behind the second rewind of a partition this is reading what it read before.
        let before = reads(&pipeline, partition, 150).await;
        let start = before.end / share;
        let to = if start == 0 {
            "earliest".to_owned()
        } else {
            start.to_string()
        };
        decide(&pipeline, "rewind", partition, &["--to", &to]).await;
        chosen.push((partition, start));
        // The process that was fenced goes on there by itself.
        let after = reads(&pipeline, partition, 1).await;
        assert_eq!(
            (after.generation, after.start),
            (before.generation + 1, start)
        );
    }
    assert!(flow.is_on(), "nothing flowed any more");
    let produced = flow.end().await.unwrap();
    assert_as_read(&pipeline, &produced).await;

    let all = observe::readings(&pipeline.database.pool).await.unwrap();
    let heads = pipeline.topic.heads().await.unwrap();
    for partition in 0..3 {
        let readings: Vec<_> = all.iter().filter(|r| r.partition == partition).collect();
        let starts: Vec<_> = readings.iter().skip(1).map(|r| r.start).collect();
        let wanted = chosen.iter().filter(|(of, _)| *of == partition);
        assert_eq!(starts, wanted.map(|(_, start)| *start).collect::<Vec<_>>());
        let last = readings[readings.len() - 1];
        assert_eq!(last.end, heads[&partition]);
        for reading in &readings[..readings.len() - 1] {
            assert!(reading.end < last.end, "{reading:?} was not under load");
        }
    }
    let again =
        "SELECT coalesce(sum(duplicates), 0)::int8 FROM event_log.streams WHERE generation > 1";
    assert!(number(&pipeline, again).await > 0);
    let twice = "SELECT (count(*) - count(DISTINCT (tenant_id, run_id, idempotency_key)))::int8 FROM event_log.run_events";
    assert_eq!(number(&pipeline, twice).await, 0);
    let audited = "SELECT count(*) FROM event_log.audit WHERE action = 'stream.rewind'";
    assert_eq!(number(&pipeline, audited).await, 5);
    end(ingest).await;
    end(projectors).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_partition_that_is_rewound_is_read_again_without_a_new_record() {
    let pipeline = Pipeline::fresh(1).await.unwrap();
    let ingest = pipeline.ingest().unwrap();
    let projectors = pipeline.projectors().unwrap();
    let produced = pipeline.topic.send(&generate(77, 1_000, 1)).await.unwrap();
    pipeline.wait_projected(SOON).await.unwrap();
    let end_of_all = produced.len() as i64;
    let from = end_of_all - 30;
    decide(&pipeline, "rewind", 0, &["--to", &from.to_string()]).await;
    reads(&pipeline, 0, 30).await;
    assert_as_read(&pipeline, &produced).await;
    assert_eq!(
        bounds(&pipeline, 0).await,
        [(0, end_of_all), (from, end_of_all)]
    );
    end(ingest).await;
    end(projectors).await;
}

fn record(tenant: &str, run: &str, event_type: &str, payload: &str) -> Record {
    let draft = Draft {
        event_id: uuid::Uuid::new_v4().to_string(),
        event_type: event_type.to_owned(),
        tenant: tenant.to_owned(),
        project: "p".to_owned(),
        environment: "e".to_owned(),
        run: run.to_owned(),
        plan: "plan".to_owned(),
        plan_version: "1".to_owned(),
        engine_attempt: 1,
        logical_attempt: 1,
        foreign_key: None,
        emitted_at: "2026-01-02T03:04:05Z".to_owned(),
        step: None,
        payload: None,
    };
    let mut fields = draft.fields();
    fields.push(("payload".to_owned(), payload.to_owned()));
    Record {
        partition: 0,
        key: Some(run.as_bytes().to_vec()),
        value: Some(render(&fields, "")),
        content_type: None,
        intent: Intent::Append,
        hash: 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_and_is_accepted_on_the_second_reading_is_appended_and_projected() {
    let pipeline = Pipeline::fresh(1).await.unwrap();
    let large = format!("{{\"text\": \"{}\"}}", "x".repeat(5_000));
    let records = [
        record("acme", "a", "RunQueued", "{}"),
        record("acme", "a", "RunStarted", "{}"),
        record("globex", "b", "RunQueued", "{}"),
        record("globex", "b", "RunStarted", "{}"),
        record("globex", "b", "RunFailed", "{\"error\": \"out of luck\"}"),
        record("acme", "a", "RunCompleted", &large),
    ];
    let mut narrow = pipeline.program("runlog-ingest");
    let topics = format!("[{{name=\"{}\", tenants=[\"acme\"]}}]", pipeline.topic.name);
    narrow
        .env("RUNLOG_INGEST__TOPICS", topics)
        .env("RUNLOG_LIMITS__MAX_RECORD_BYTES", "2kB");
    let ingest = Process::spawn(&pipeline.environment, "runlog-ingest", narrow).unwrap();
    let projectors = pipeline.projectors().unwrap();
    let produced = pipeline.topic.send(&records).await.unwrap();
    pipeline.wait_projected(SOON).await.unwrap();
    let refused = "SELECT count(*) FROM event_log.dead_letters
        WHERE reason = CASE source_offset WHEN 5 THEN 'too_large' ELSE 'tenant_not_allowed' END";
    assert_eq!(number(&pipeline, refused).await, 4);
    let running =
        "SELECT count(*) FROM read_model.run_current WHERE run_id = 'a' AND status = 'RUNNING'";
    assert_eq!(number(&pipeline, running).await, 1);
    end(ingest).await;

    // The first reading after the change, and one more, which finds nothing to do.
    let mut ingest = pipeline.ingest().unwrap();
    for generation in [2, 3] {
        ingest.wait_ready().await.unwrap();
        decide(&pipeline, "rewind", 0, &["--to", "earliest"]).await;
        // An idle ingest meets the new generation when it claims again.
        end(ingest).await;
        ingest = pipeline.ingest().unwrap();
        pipeline.wait_projected(SOON).await.unwrap();
        assert_eq!(bounds(&pipeline, 0).await, vec![(0, 6); generation]);
        let mut differences = pipeline.differences(&produced).await.unwrap();
        // The oracle knows of no refusal: all that it misses is what was written of the refusals.
        differences
            .retain(|line| !line.starts_with("streams") && !line.starts_with("dead_letters"));
        assert!(differences.is_empty(), "{}", report(&differences, 20));
    }
    let rows = sqlx::query_as(
        "SELECT appended, duplicates, dead_lettered FROM event_log.streams ORDER BY generation",
    );
    let ledger: Vec<(i64, i64, i64)> = rows.fetch_all(&pipeline.database.pool).await.unwrap();
    assert_eq!(ledger, [(2, 0, 4), (4, 2, 0), (0, 6, 0)]);
    assert_eq!(
        number(&pipeline, "SELECT count(*) FROM event_log.dead_letters").await,
        4
    );
    let over = "SELECT count(*) FROM read_model.run_current
        WHERE (run_id, status, last_event_seq) IN (('a', 'COMPLETED', 3), ('b', 'FAILED', 3))";
    assert_eq!(number(&pipeline, over).await, 2);
    end(ingest).await;
    end(projectors).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_is_resumed_at_its_beginning_and_all_of_both_is_in_the_log() {
    let pipeline = Pipeline::fresh(1).await.unwrap();
    let records = good_records(79, 150, 1, 0);
    let (old, new) = records.split_at(100);
    let mut ingest = pipeline.ingest().unwrap();
    ingest.wait_ready().await.unwrap();
    pipeline.topic.send(old).await.unwrap();
    pipeline.wait_ingested(SOON).await.unwrap();
    end(ingest).await;
    // A client that knew the old topic may not write to this one: it has one of its own.
    let topic = pipeline.topic.made_again().await.unwrap();
    topic.send(new).await.unwrap();
    topic.send(&old[90..]).await.unwrap();
    let ingest = pipeline.ingest().unwrap();
    // Which of the three depends on what ingest has learned of the old topic by then.
    wait_halted(&pipeline, 0, &["beyond_end", "truncated", "recreated"]).await;
    end(ingest).await;

    let (code, text) = stream(&pipeline, "resume", 0, &WHY).await;
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("--at earliest"), "{text}");
    decide(&pipeline, "resume", 0, &["--at", "earliest"]).await;
    let mut ingest = pipeline.ingest().unwrap();
    let projectors = pipeline.projectors().unwrap();
    ingest.wait_ready().await.unwrap();
    pipeline.wait_projected(SOON).await.unwrap();
    assert_eq!(bounds(&pipeline, 0).await, [(0, 100), (0, 60)]);
    let rows =
        sqlx::query_as("SELECT appended, duplicates FROM event_log.streams ORDER BY generation");
    let ledger: Vec<(i64, i64)> = rows.fetch_all(&pipeline.database.pool).await.unwrap();
    assert_eq!(ledger, [(100, 0), (50, 10)]);
    let ids = "SELECT count(DISTINCT event_id) FROM event_log.run_events";
    assert_eq!(number(&pipeline, ids).await, 150);
    end(ingest).await;
    end(projectors).await;
}
