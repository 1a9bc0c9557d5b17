//! Retention and erasure while everything runs: killed in the middle, with late events and repeats, and compared afterwards.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use anyhow::ensure;
use runlog_tests::environment::{run_to_end, said};
use runlog_tests::flow::Flow;
use runlog_tests::generator::generate;
use runlog_tests::{Pipeline, Process, wait_until};

const SOON: Duration = Duration::from_secs(60);

/// Runs `runlog` as an operator; its exit code and what it said.
async fn runlog(pipeline: &Pipeline, arguments: &[&str]) -> (i32, String) {
    let mut command = pipeline.program("runlog");
    command.args(arguments);
    let output = run_to_end(command).await.unwrap();
    (output.status.code().unwrap_or(-1), said(&output))
}

async fn done(pipeline: &Pipeline, arguments: &[&str]) -> String {
    let (code, words) = runlog(pipeline, arguments).await;
    assert_eq!(code, 0, "{arguments:?}: {words}");
    words
}

async fn number(pipeline: &Pipeline, query: &'static str) -> i64 {
    sqlx::query_scalar(query)
        .fetch_one(&pipeline.database.pool)
        .await
        .unwrap()
}

/// Starts the command, kills it once the query counts something, and runs it to its end.
async fn killed_and_again(pipeline: &Pipeline, arguments: &[&str], begun: &'static str) {
    let mut command = pipeline.program("runlog");
    command.args(arguments);
    let process = Process::spawn(&pipeline.environment, "runlog", command).unwrap();
    wait_until("the first act", SOON, async || {
        ensure!(number(pipeline, begun).await > 0, "nothing yet");
        Ok(())
    })
    .await
    .unwrap();
    process.kill9().unwrap();
    let begun_by_then = number(pipeline, begun).await;
    done(pipeline, arguments).await;
    let in_all = number(pipeline, begun).await;
    assert!(in_all > begun_by_then, "{in_all}: it was killed at its end");
}

const RETIRED: &str = "SELECT count(*) FROM event_log.retired_run";
const ERASED: &str = "SELECT count(*) FROM event_log.erased_run";
const ENDED: &str = "SELECT count(*) FROM read_model.run_current WHERE status IN ('COMPLETED', 'FAILED', 'CANCELLED')";
/// Nothing of these may be there.
const WRONG: [(&str, &str); 4] = [
    (
        "a second history",
        "SELECT count(*) FROM event_log.event JOIN event_log.retired_run USING (run_no)",
    ),
    (
        "a late event of a run that is not retired",
        "SELECT count(*) FROM event_log.dead_letter d WHERE reason = 'run_retired'
           AND NOT EXISTS (SELECT FROM event_log.retired_run t WHERE t.tenant_id = d.tenant_id AND t.run_id = d.run_id)",
    ),
    (
        "a stream out of balance",
        "SELECT count(*) FROM event_log.stream s
         WHERE appended <> (SELECT count(*) FROM event_log.event e WHERE e.stream_id = s.stream_id)
             + (SELECT coalesce(sum(events), 0) FROM event_log.retired_events r WHERE r.stream_id = s.stream_id)",
    ),
    (
        "a payload that was erased",
        "SELECT count(*) FROM event_log.event e JOIN event_log.erased_run x USING (run_no)
         WHERE e.run_seq <= x.up_to_seq AND e.payload IS NOT NULL",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_retired_and_erased_under_load_and_what_comes_late_begins_no_second_history() {
    let pipeline = Pipeline::fresh(3).await.unwrap();
    let ingest = pipeline.ingest().unwrap();
    let projectors = pipeline.projectors().unwrap();
    let records = generate(131, 12_000, 3);
    let before = records.len() / 2;
    pipeline.topic.send(&records[..before]).await.unwrap();
    pipeline.wait_projected(SOON * 2).await.unwrap();
    // The other half, and then everything again and again: events of runs that go on, and late ones and repeats of those
    // that are retired meanwhile.
    let mut flowing = records[before..].to_vec();
    flowing.extend_from_slice(&records[..before]);
    let flow = Flow::of(&pipeline.topic, flowing);
    let tomorrow = (chrono::Utc::now() + chrono::TimeDelta::days(1)).to_rfc3339();

    let plan = [
        "retire",
        "--ended-before",
        &tomorrow,
        "--all-tenants",
        "--dry-run",
        "-o",
        "json",
    ];
    let words = done(&pipeline, &plan).await;
    assert!(words.contains("A dry run"), "{words}");
    assert_eq!(number(&pipeline, RETIRED).await, 0);
    let limited = [
        &plan[..4],
        &["--limit", "5", "--reason", "a few first", "--yes"],
    ]
    .concat();
    done(&pipeline, &limited).await;
    assert_eq!(number(&pipeline, RETIRED).await, 5);

    // Erase the tenant that has most, while it is appended to.
    let tenant: String = sqlx::query_scalar(
        "SELECT tenant_id FROM event_log.event WHERE payload IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC LIMIT 1",
    )
    .fetch_one(&pipeline.database.pool)
    .await
    .unwrap();
    let erase = [
        "erase",
        "--tenant",
        &tenant,
        "--all-runs",
        "--reason",
        "asked for",
        "--yes",
    ];
    killed_and_again(&pipeline, &erase, ERASED).await;
    let retire = [&plan[..4], &["--reason", "policy", "--yes"]].concat();
    let first_acts = "SELECT count(*) FROM event_log.retired_run WHERE audit_id > (SELECT min(audit_id) FROM event_log.retired_run)";
    killed_and_again(&pipeline, &retire, first_acts).await;

    assert!(flow.is_on(), "nothing flowed any more");
    flow.end().await.unwrap();
    pipeline.wait_projected(SOON).await.unwrap();
    assert!(number(&pipeline, RETIRED).await > 100);
    let late = "SELECT count(*) FROM event_log.dead_letter WHERE reason = 'run_retired'";
    assert!(number(&pipeline, late).await > 100);
    assert!(number(&pipeline, ERASED).await > 10);
    for (what, query) in WRONG {
        assert_eq!(number(&pipeline, query).await, 0, "{what}");
    }
    done(&pipeline, &["verify", "--chain", "--projections"]).await;
    for projection in ["run_status", "run_timeline", "run_stats"] {
        // Compares every row of both versions, the sums over retired runs too.
        done(&pipeline, &["rebuild", projection]).await;
    }
    // Nothing is under way, so whatever has ended can go; what is left is verified once more.
    done(&pipeline, &retire).await;
    assert_eq!(number(&pipeline, ENDED).await, 0);
    done(&pipeline, &erase).await;
    done(&pipeline, &["rebuild", "run_stats"]).await;
    done(&pipeline, &["verify", "--chain", "--projections"]).await;
    pipeline.wait_projected(SOON).await.unwrap();
    for process in [projectors, ingest] {
        assert_eq!(process.terminate().await.unwrap().code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_ask_refuse_and_say_what_they_cannot_reach() {
    let pipeline = Pipeline::fresh(1).await.unwrap();
    let ingest = pipeline.ingest().unwrap();
    let projectors = pipeline.projectors().unwrap();
    pipeline.topic.send(&generate(132, 500, 1)).await.unwrap();
    pipeline.wait_projected(SOON).await.unwrap();
    for process in [projectors, ingest] {
        assert_eq!(process.terminate().await.unwrap().code(), Some(0));
    }
    let (tenant, run): (String, String) = sqlx::query_as(
        "SELECT tenant_id, run_id FROM event_log.run_events WHERE payload IS NOT NULL LIMIT 1",
    )
    .fetch_one(&pipeline.database.pool)
    .await
    .unwrap();
    let one = ["erase", "--tenant", &tenant, "--run", &run];
    let act = ["--reason", "asked for"];
    // Nobody sits at a terminal.
    let (code, words) = runlog(&pipeline, &[&one[..], &act].concat()).await;
    assert_eq!(code, 2, "{words}");
    assert!(
        words.contains("--dry-run") && words.contains("--yes"),
        "{words}"
    );
    let all = ["retire", "--all-tenants", "--older-than", "0s"];
    let (code, words) = runlog(&pipeline, &[&all[..], &act].concat()).await;
    assert_eq!(code, 2, "{words}");
    let (code, words) = runlog(&pipeline, &["retire", "--older-than", "1d", "--dry-run"]).await;
    assert_eq!(code, 2, "{words}");
    let unknown = [
        "erase",
        "--tenant",
        &tenant,
        "--run",
        "no such run",
        "--dry-run",
    ];
    let (code, words) = runlog(&pipeline, &unknown).await;
    assert_eq!(code, 1, "{words}");
    assert!(words.contains("has no run \"no such run\""), "{words}");
    assert_eq!(
        number(&pipeline, "SELECT count(*) FROM event_log.audit").await,
        0
    );

    let words = done(&pipeline, &[&one[..], &act, &["--yes"]].concat()).await;
    assert!(
        words.contains("Kafka, backups and archived WAL still have the records"),
        "{words}"
    );
    let words = done(&pipeline, &[&one[..], &act, &["--yes"]].concat()).await;
    assert!(words.contains("There was nothing to erase."), "{words}");
    assert_eq!(number(&pipeline, ERASED).await, 1);
    // Nothing is old enough; then all of it is.
    let words = done(
        &pipeline,
        &[
            "retire",
            "--all-tenants",
            "--older-than",
            "1d",
            "--reason",
            "x",
            "--yes",
        ],
    )
    .await;
    assert!(words.contains("There was nothing to retire."), "{words}");
    let words = done(&pipeline, &[&all[..], &act, &["--yes"]].concat()).await;
    assert!(words.contains("event_log.audit"), "{words}");
    assert!(number(&pipeline, RETIRED).await > 0);
    assert_eq!(number(&pipeline, ENDED).await, 0);
    done(&pipeline, &["verify", "--chain", "--projections"]).await;
}
