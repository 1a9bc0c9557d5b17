//! The whole process, as its main runs it.

use std::time::Duration;

use runlog_projectors::RunStatusProjection;
use service::config::{Config, DatabaseConfig, ProjectorsConfig, Secret, TelemetryConfig};
use service::exit::{self, Exit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::support::{Database, Log, run, step};

async fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().to_string()
}

fn config(url: &str, listen: &str) -> Config {
    Config {
        database: DatabaseConfig {
            url: Some(Secret::new(url)),
            // The tests' login is a superuser. What a login may do is tested with whole processes.
            allow_powerful_login: true,
            ..DatabaseConfig::default()
        },
        // One is enough to see how a process works, whichever are the default.
        projectors: ProjectorsConfig {
            projections: vec![RunStatusProjection::NAME.to_owned()],
            ..ProjectorsConfig::default()
        },
        telemetry: TelemetryConfig {
            listen: Some(listen.to_owned()),
            ..TelemetryConfig::default()
        },
        ..Config::default()
    }
}

/// The answer to a GET, head and all; `None` while nobody listens.
async fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

/// Asks until the answer is as wanted.
async fn get_until(address: &str, path: &str, wanted: impl Fn(&str) -> bool) -> String {
    let asking = async {
        loop {
            match get(address, path).await {
                Some(answer) if wanted(&answer) => return answer,
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asking)
        .await
        .expect(path)
}

#[tokio::test]
async fn it_projects_serves_metrics_and_stops_when_it_is_told_to() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    log.append(stream, "r", run("RunStarted")).await;
    log.append(stream, "r", step("StepCompleted", "a", 1)).await;
    let (address, shutdown) = (free_address().await, CancellationToken::new());
    let config = config(&database.url, &address);
    let process = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { runlog_projectors::run(&config, shutdown).await }
    });
    database.caught_up().await;
    get_until(&address, "/readyz", |answer| {
        answer.starts_with("HTTP/1.1 200")
    })
    .await;
    let lines = [
        "runlog_projection_lag_events{projection=\"run_status\"} 0\n",
        "runlog_projection_lag_seconds{projection=\"run_status\"} 0\n",
        "runlog_projection_inconsistencies_total 1\n",
        "runlog_end_to_end_seconds_count{projection=\"run_status\"} 2\n",
        "runlog_projection_events_total{projection=\"run_status\"} 2\n",
        "runlog_projection_batch_seconds_count{projection=\"run_status\"} 1\n",
        "runlog_projection_leases{projection=\"run_status\"} 1\n",
        "runlog_build_info{component=\"projectors\"",
    ];
    let has_all = |answer: &str| lines.iter().all(|line| answer.contains(line));
    get_until(&address, "/metrics", has_all).await;
    shutdown.cancel();
    process.await.unwrap().unwrap();
    let released = "SELECT count(*) FROM read_model.projection_checkpoints
                    WHERE projection = 'run_status' AND owner IS NULL AND applied = 2";
    assert_eq!(database.number(released).await, 1);
}

#[tokio::test]
async fn lag_counts_what_waits_in_streams_that_nobody_reads() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    log.append(stream, "r", run("RunStarted")).await;
    log.append(stream, "r", run("RunCompleted")).await;
    // The stream is leased to a process that does nothing, for an hour.
    database
        .execute(
            "INSERT INTO read_model.projection_checkpoint
               (projection, stream_id, topic, partition, generation, next_offset, claim, owner, lease_expires_at)
             SELECT 'run_status', stream_id, topic, partition, generation, 0, gen_random_uuid(), 'x',
                    now() + interval '1 hour' FROM event_log.stream",
        )
        .await;
    let (address, shutdown) = (free_address().await, CancellationToken::new());
    let config = config(&database.url, &address);
    let process = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { runlog_projectors::run(&config, shutdown).await }
    });
    let events = "runlog_projection_lag_events{projection=\"run_status\"} 2\n";
    let answer = get_until(&address, "/metrics", |answer| answer.contains(events)).await;
    let seconds = answer
        .lines()
        .find_map(|line| {
            line.strip_prefix("runlog_projection_lag_seconds{projection=\"run_status\"} ")
        })
        .unwrap();
    // The log's clock is a fixed day in the past.
    assert!(seconds.parse::<f64>().unwrap() > 86_400.0, "{seconds}");
    shutdown.cancel();
    process.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_database_without_migrations_is_refused_with_the_way_out() {
    let database = Database::without_schema().await;
    let config = config(&database.url, "127.0.0.1:0");
    let error = runlog_projectors::run(&config, CancellationToken::new())
        .await
        .unwrap_err();
    assert!(format!("{error:#}").contains("runlog migrate"), "{error:#}");
}

#[tokio::test]
async fn an_unknown_projection_is_a_configuration_error_that_names_the_known_ones() {
    let mut config = config("postgres://x@127.0.0.1/x", "127.0.0.1:0");
    config.projectors.projections = vec!["run_statsu".to_owned()];
    let error = runlog_projectors::run(&config, CancellationToken::new())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("run_status"), "{error}");
    assert_eq!(exit::classify(&error), Exit::Usage);
}
