//! The SQL functions for histograms: merge, quantile and buckets.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::recount::{array, bucket};
use crate::support::{Database, Log, project_with, run};

/// Durations at and around every edge of the first buckets of each width.
fn edges() -> Vec<i64> {
    let powers = (0..42).map(|power| 1_i64 << power);
    let near = powers.flat_map(|edge| [edge - 1, edge, edge + 1, edge + edge / 16]);
    near.collect()
}

#[tokio::test]
async fn the_database_reads_the_buckets_that_the_projection_wrote() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    for (n, millis) in edges().into_iter().enumerate() {
        let run_id = format!("run-{n}");
        log.emit_ahead_ms(0);
        log.append(stream, &run_id, run("RunStarted")).await;
        log.emit_ahead_ms(millis - 1);
        log.append(stream, &run_id, run("RunCompleted")).await;
    }
    project_with(&database, "run_stats", 30).await;
    let buckets = sqlx::query_as::<_, (i64, i64, i64)>(
        "SELECT b.* FROM (SELECT read_model.merge(durations) AS durations FROM read_model.run_daily) d,
                read_model.buckets(d.durations) b",
    );
    let buckets = buckets.fetch_all(&database.pool).await.unwrap();
    let mut counted = 0;
    for (from, to, count) in &buckets {
        let within = edges()
            .iter()
            .filter(|millis| (*from..=*to).contains(millis))
            .count();
        assert_eq!(*count, within as i64, "{from}..={to} ms");
        assert!(
            (to - from) * 16 < *from || from == to,
            "{from}..={to} ms is wide"
        );
        counted += count;
    }
    assert_eq!(counted, edges().len() as i64);
    let sum = "SELECT sum(duration_ms_sum)::bigint FROM read_model.run_daily";
    assert_eq!(database.number(sum).await, edges().iter().sum::<i64>());
}

#[tokio::test]
async fn quantiles_of_known_durations_are_at_most_a_32nd_off() {
    let database = Database::new().await;
    let mut random = StdRng::seed_from_u64(6);
    // Of all lengths: as many around 10 ms as around a day.
    let mut durations: Vec<i64> = (0..2000)
        .map(|_| 2_f64.powf(random.random_range(0.0..27.0)) as i64)
        .collect();
    let mut parts: Vec<BTreeMap<usize, i64>> = vec![BTreeMap::new(); 50];
    for millis in &durations {
        let part = random.random_range(0..50);
        *parts[part].entry(bucket(*millis)).or_default() += 1;
    }
    let parts: Vec<String> = parts.iter().map(array).collect();
    durations.sort_unstable();
    for percent in 0..=100 {
        // The 95 % of 2000 durations are the first 1900.
        let rank = (durations.len() * percent / 100).max(1);
        let exact = durations[rank - 1];
        let found: i64 = sqlx::query_scalar(
            "SELECT read_model.quantile(read_model.merge(part::bigint[]), $1) FROM unnest($2::text[]) part",
        )
        .bind(percent as f64 / 100.0)
        .bind(&parts)
        .fetch_one(&database.pool)
        .await
        .unwrap();
        assert!(
            (found - exact).abs() * 32 <= exact,
            "p{percent}: {exact} ms, found {found}"
        );
    }
}

#[tokio::test]
async fn merging_is_exact_in_any_order_and_nothing_has_no_quantile() {
    let database = Database::new().await;
    for (sql, expected) in [
        ("read_model.merge('{}', '{}')", Some("{}")),
        (
            "read_model.merge('{}', '[5:7]={1,NULL,2}')",
            Some("[5:7]={1,NULL,2}"),
        ),
        (
            "read_model.merge('[5:7]={1,NULL,2}', '{}')",
            Some("[5:7]={1,NULL,2}"),
        ),
        (
            "read_model.merge('[5:7]={1,NULL,2}', '[0:0]={4}')",
            Some("[0:7]={4,NULL,NULL,NULL,NULL,1,NULL,2}"),
        ),
        (
            "read_model.merge('[0:0]={4}', '[5:7]={1,NULL,2}')",
            Some("[0:7]={4,NULL,NULL,NULL,NULL,1,NULL,2}"),
        ),
        (
            "read_model.merge('[5:7]={1,NULL,2}', '[7:8]={9,1}')",
            Some("[5:8]={1,NULL,11,1}"),
        ),
        (
            "(SELECT read_model.merge(h) FROM (VALUES ('{}'::bigint[]), (NULL), ('[3:3]={2}'), ('[2:3]={1,1}')) v (h))",
            Some("[2:3]={1,3}"),
        ),
        (
            "(SELECT read_model.merge(durations) FROM read_model.run_daily)",
            Some("{}"),
        ),
        ("read_model.quantile('{}', 0.5)", None),
        ("read_model.quantile(NULL, 0.5)", None),
        (
            "read_model.quantile((SELECT read_model.merge(durations) FROM read_model.run_daily), 0.5)",
            None,
        ),
        ("read_model.quantile('[0:0]={3}', 1)", Some("0")),
        (
            "read_model.quantile('[5:9]={1,NULL,NULL,NULL,1}', 0)",
            Some("5"),
        ),
        (
            "read_model.quantile('[5:9]={1,NULL,NULL,NULL,1}', 0.5)",
            Some("5"),
        ),
        (
            "read_model.quantile('[5:9]={1,NULL,NULL,NULL,1}', 0.51)",
            Some("9"),
        ),
        ("read_model.quantile('[1:2]={7,93}', 0.07)", Some("1")),
        (
            "read_model.quantile('[1:2]={7,93}', 0.07::numeric)",
            Some("1"),
        ),
        (
            "read_model.quantile('[111:111]={9223372036854775807}', 0.5)",
            Some("1007"),
        ),
    ] {
        let found: Option<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT ({sql})::text")))
                .fetch_one(&database.pool)
                .await
                .unwrap();
        assert_eq!(found.as_deref(), expected, "{sql}");
    }
    for q in ["-0.1", "1.1", "'NaN'"] {
        let sql = format!("SELECT read_model.quantile('[0:0]={{3}}', {q})");
        let error = sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&database.pool)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("between 0 and 1"), "{error}");
    }
}
