//! The examples of docs/analysts.md, on what simulated runs leave, asked with the login of an analyst of one tenant.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use runlog_tests::environment::{run_to_end, said, unique_name};
use runlog_tests::roles::{as_login, make_login};
use runlog_tests::{Pipeline, Role};
use sqlx::{AssertSqlSafe, Connection, PgPool, Row};

const DOCUMENT: &str = include_str!("../../docs/analysts.md");
const SOON: Duration = Duration::from_secs(60);

/// The SQL blocks of the document, each with the heading it stands under.
fn examples() -> Vec<(&'static str, &'static str)> {
    let sections = DOCUMENT.split("\n## ").skip(1);
    sections
        .flat_map(|section| {
            let title = section.lines().next().unwrap();
            let blocks = section.split("```sql\n").skip(1);
            blocks.map(move |block| (title, block.split("```").next().unwrap()))
        })
        .collect()
}

/// Runs of the document's tenants, all of which come to an end within the test: in place of an hour
/// ago it is asked when the last one started.
async fn simulated() -> Pipeline {
    let pipeline = Pipeline::fresh(2).await.unwrap();
    let ingest = pipeline.ingest().unwrap();
    let projectors = pipeline.projectors().unwrap();
    let mut command = pipeline.program("runlog");
    command.args(["simulate", "--runs", "1500", "--seed", "7"]);
    command.args(["--invalid-transitions", "1"]);
    command.args(["--topic", &pipeline.topic.name]);
    let output = run_to_end(command).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    pipeline.wait_projected(SOON).await.unwrap();
    for process in [projectors, ingest] {
        assert_eq!(process.terminate().await.unwrap().code(), Some(0));
    }
    sqlx::query("ANALYZE")
        .execute(&pipeline.database.pool)
        .await
        .unwrap();
    pipeline
}

/// The pool of an analyst who sees the document's tenant, and no other.
async fn analyst(pipeline: &Pipeline) -> PgPool {
    let login = unique_name("analyst").replace('-', "_");
    let admin = &mut pipeline.database.pool.acquire().await.unwrap();
    make_login(admin, &login, Role::Analyst).await.unwrap();
    let mut grant = pipeline.program("runlog");
    grant.args(["tenant", "grant", &login, "acme-retail", "--reason", "test"]);
    let output = run_to_end(grant).await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let pool = PgPool::connect(&as_login(&pipeline.database.url, &login)).await;
    pool.unwrap()
}

/// The plan of a query, from a planner that reads a whole table, or sorts, only where no index helps.
async fn plan(pool: &PgPool, query: &str) -> String {
    let mut connection = pool.acquire().await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    sqlx::raw_sql("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off; SET LOCAL enable_bitmapscan = off")
        .execute(&mut *transaction)
        .await
        .unwrap();
    let explain = AssertSqlSafe(format!("EXPLAIN {query}"));
    let lines: Vec<String> = sqlx::query_scalar(explain)
        .fetch_all(&mut *transaction)
        .await
        .unwrap();
    lines.join("\n")
}

/// A page of runs: their ids, and the time that the last one is sorted by.
async fn page(pool: &PgPool, query: &str) -> (Vec<String>, Option<DateTime<Utc>>) {
    let query = AssertSqlSafe(query.replace("'FAILED'", "'COMPLETED'"));
    let rows = sqlx::query(query).fetch_all(pool).await.unwrap();
    let last = rows.last().map(|row| row.get("sort_at"));
    (rows.iter().map(|row| row.get("run_id")).collect(), last)
}

/// Page after page, as the document says, is the whole list.
async fn pages_are_whole(pool: &PgPool) {
    let all: Vec<String> = sqlx::query_scalar(
        "SELECT run_id FROM read_model.run_current
         WHERE tenant_id = 'acme-retail' AND status = 'COMPLETED' ORDER BY sort_at DESC, run_id",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let (first, next) = (examples()[0].1, examples()[1].1);
    let (mut found, mut last) = page(pool, first).await;
    while let (Some(at), Some(run_id)) = (last, found.last()) {
        let key = format!("'{}'", at.to_rfc3339_opts(SecondsFormat::Micros, true));
        let query = next
            .replace("now()", &key)
            .replace("0d3c6a9e-4f0c-4a8e-9d5d-3d4c0f7dbb8a", run_id);
        assert!(query.contains(&key) && query.contains(run_id.as_str()));
        let (more, at) = page(pool, &query).await;
        found.extend(more);
        last = at;
    }
    assert!(all.len() > 100, "{} runs", all.len());
    assert_eq!(found, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_runs_and_pages_are_read_in_the_order_of_an_index() {
    let pipeline = simulated().await;
    let pool = &analyst(&pipeline).await;
    let tenants: Vec<String> =
        sqlx::query_scalar("SELECT DISTINCT tenant_id FROM read_model.run_current")
            .fetch_all(pool)
            .await
            .unwrap();
    assert_eq!(tenants, ["acme-retail"]);
    let last_start: String = sqlx::query_scalar(
        "SELECT max(started_at)::text FROM read_model.run_state_interval
         WHERE tenant_id = 'acme-retail' AND state = 'RUNNING' AND duration_ms > 0",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    pages_are_whole(pool).await;
    let examples = examples();
    assert!(examples.len() >= 15, "{} examples", examples.len());
    let mut pages = 0;
    for (title, query) in examples {
        let query = query.replace("now() - interval '1 hour'", &format!("'{last_start}'"));
        let rows = sqlx::raw_sql(AssertSqlSafe(query.clone()))
            .fetch_all(pool)
            .await;
        let rows = rows.unwrap_or_else(|error| panic!("{title}: {error}\n{query}"));
        assert!(!rows.is_empty(), "{title}: no rows\n{query}");
        let plan = plan(pool, &query).await;
        for large in [
            "run_current",
            "step_attempt",
            "run_state_interval",
            "event ",
        ] {
            assert!(
                !plan.contains(&format!("Seq Scan on {large}")),
                "{title}\n{plan}"
            );
        }
        // The policies look up the login's tenants once, before the tables are read.
        assert!(plan.contains("InitPlan"), "{title}\n{plan}");
        assert!(!plan.contains("my_tenants"), "{title}\n{plan}");
        if query.contains("runs_in_state") {
            assert!(
                plan.contains("run_state_interval_at_time"),
                "{title}\n{plan}"
            );
            // In the index, and not in what the policy lets through: a function would have to wait for it.
            assert!(
                plan.lines()
                    .any(|line| line.contains("Index Cond") && line.contains("duration_class = ")),
                "{title}\n{plan}"
            );
            continue;
        }
        // A page of one table: the index gives its order, and its columns all that is looked for by equality.
        if query.contains("\nLIMIT") && !query.contains("JOIN") {
            assert!(plan.starts_with("Limit"), "{title}\n{plan}");
            assert!(!plan.contains("Sort"), "{title}\n{plan}");
            let mut filters = plan.lines().filter(|line| line.contains("Filter:"));
            assert!(
                !filters.any(|filter| filter.contains(" = ")),
                "{title}\n{plan}"
            );
            pages += 1;
        }
    }
    assert_eq!(pages, 5, "pages of one table");
}
