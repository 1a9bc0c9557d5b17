//! A real database per test, a log written by hand, and runners to project it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use event_log::read::PageSize;
use runlog_projectors::RunStatusProjection;
use runlog_projectors::metrics::Metrics;
use runlog_projectors::projection::{Projection, by_name};
pub(crate) use runlog_projectors::runner::Settings;
use runlog_projectors::runner::{DATABASE, PROJECTIONS, Readiness, Runner, RunnerError};
use serde_json::Value;
use service::health::Health;
use service::metrics::MetricsRegistry;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, PgPool, SqlSafeStr};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What any fact may take to come true on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A database of this test's own, migrated; dropped at the end, whatever happens.
pub(crate) struct Database {
    pub(crate) pool: PgPool,
    pub(crate) url: String,
    name: String,
}

fn server() -> PgConnectOptions {
    let url = std::env::var("RUNLOG_TEST_DATABASE_URL").unwrap_or_else(|_| {
        panic!(
            "RUNLOG_TEST_DATABASE_URL is not set: run `make test`, which starts a PostgreSQL, or \
             set it to a superuser's URL"
        )
    });
    url.parse().unwrap()
}

impl Database {
    pub(crate) async fn new() -> Self {
        let database = Self::without_schema().await;
        event_log::schema::migrate(&database.pool).await.unwrap();
        database
    }

    pub(crate) async fn without_schema() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("projectors_{}_{count}", std::process::id());
        let mut admin = server().connect().await.unwrap();
        let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(create).execute(&mut admin).await.unwrap();
        let options = server().database(&name);
        let url = options.to_url_lossy().to_string();
        // A projection that is called without a runner finds its tables; migrations find their own.
        let options = options.options([(
            "search_path",
            "public,run_status_1,run_timeline_1,run_stats_1",
        )]);
        let pool = PgPoolOptions::new()
            .max_connections(8)
            .connect_lazy_with(options);
        Self { pool, url, name }
    }

    /// A pool as a process of its own has it.
    pub(crate) fn process_pool(&self) -> PgPool {
        let options = server().database(&self.name).application_name("runner");
        PgPoolOptions::new()
            .max_connections(8)
            .connect_lazy_with(options)
    }

    pub(crate) async fn execute(&self, sql: &'static str) -> u64 {
        sqlx::raw_sql(sql)
            .execute(&self.pool)
            .await
            .unwrap()
            .rows_affected()
    }

    pub(crate) async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    /// Makes a projection known that has no tables.
    pub(crate) async fn add_projection(&self, name: &str) {
        let migration = format!(
            "SET LOCAL ROLE runlog_owner;
             SELECT read_model.add_projection('{name}'), read_model.publish('{name}', 1);
             RESET ROLE"
        );
        sqlx::raw_sql(AssertSqlSafe(migration))
            .execute(&self.pool)
            .await
            .unwrap();
    }

    /// Waits until every checkpoint stands at its stream's head.
    pub(crate) async fn caught_up(&self) {
        self.holds(
            "SELECT NOT EXISTS (
               SELECT FROM event_log.stream s
               LEFT JOIN read_model.projection_checkpoint c USING (stream_id)
               WHERE c.next_offset IS DISTINCT FROM s.next_offset)",
        )
        .await;
    }

    /// Waits until every stream is read by this projection.
    pub(crate) async fn caught_up_in(&self, projection: &str) {
        self.holds(AssertSqlSafe(format!(
            "SELECT NOT EXISTS (
               SELECT FROM event_log.stream s
               LEFT JOIN read_model.projection_checkpoint c ON c.stream_id = s.stream_id AND c.projection = '{projection}'
               WHERE c.next_offset IS DISTINCT FROM s.next_offset)"
        )))
        .await;
    }

    /// Waits until a query says true.
    pub(crate) async fn holds(&self, sql: impl SqlSafeStr) {
        let (sql, deadline) = (sql.into_sql_str(), Instant::now() + DEADLINE);
        while !sqlx::query_scalar::<_, bool>(sql.clone())
            .fetch_one(&self.pool)
            .await
            .unwrap()
        {
            assert!(
                Instant::now() < deadline,
                "never became true: {}",
                sql.as_str()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let drop = AssertSqlSafe(format!("DROP DATABASE {} WITH (FORCE)", self.name));
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                let mut admin = server().connect().await.unwrap();
                sqlx::raw_sql(drop).execute(&mut admin).await.unwrap();
            });
        });
        let _ = dropped.join();
    }
}

/// Waits until something in this process is so.
pub(crate) async fn until(what: &str, fact: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !fact() {
        assert!(Instant::now() < deadline, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An event to put into the log.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) event_type: &'static str,
    pub(crate) step: Option<(String, i32)>,
    pub(crate) payload: Option<Value>,
    pub(crate) project: &'static str,
    pub(crate) plan: &'static str,
}

pub(crate) fn run(event_type: &'static str) -> Event {
    Event {
        event_type,
        step: None,
        payload: None,
        project: "shop",
        plan: "plan",
    }
}

pub(crate) fn step(event_type: &'static str, step_id: &str, attempt: i32) -> Event {
    Event {
        step: Some((step_id.to_owned(), attempt)),
        ..run(event_type)
    }
}

impl Event {
    pub(crate) fn payload(self, payload: Value) -> Self {
        Self {
            payload: Some(payload),
            ..self
        }
    }
}

/// A log that is written row by row, as ingest leaves it: run_seq in the order of the calls,
/// whatever the stream.
pub(crate) struct Log<'a> {
    database: &'a Database,
    next_seq: BTreeMap<String, i64>,
    clock: DateTime<Utc>,
    events: u128,
    emitted_ahead_ms: i64,
}

/// The tenant of every run of a [`Log`].
pub(crate) const TENANT: &str = "acme";

impl<'a> Log<'a> {
    pub(crate) fn new(database: &'a Database) -> Self {
        Self {
            database,
            next_seq: BTreeMap::new(),
            clock: "2026-03-01T12:00:00Z".parse().unwrap(),
            events: 0,
            emitted_ahead_ms: -3_600_000,
        }
    }

    /// Opens a generation of a partition at offset `start`; an earlier one is closed.
    pub(crate) async fn stream(&self, partition: i32, generation: i32, start: i64) -> i64 {
        sqlx::query(
            "UPDATE event_log.stream SET closed_at = now() WHERE partition = $1 AND closed_at IS NULL",
        )
        .bind(partition)
        .execute(&self.database.pool)
        .await
        .unwrap();
        sqlx::query_scalar(
            "INSERT INTO event_log.stream (topic, partition, generation, group_id, start_offset, next_offset)
             VALUES ('run-events', $1, $2, 'test', $3, $3) RETURNING stream_id",
        )
        .bind(partition)
        .bind(generation)
        .bind(start)
        .fetch_one(&self.database.pool)
        .await
        .unwrap()
    }

    /// Leaves a hole in a run: its next event gets a run_seq that is one too high.
    pub(crate) fn lose_one(&mut self, run_id: &str) {
        *self.next_seq.entry(run_id.to_owned()).or_insert(1) += 1;
    }

    /// Time passes before the next event.
    pub(crate) fn wait_ms(&mut self, milliseconds: i64) {
        self.wait_us(milliseconds * 1_000);
    }

    /// The same; below 0 where the next event comes through a partition whose clock is behind.
    pub(crate) fn wait_us(&mut self, microseconds: i64) {
        self.clock += TimeDelta::microseconds(microseconds);
    }

    /// From now on emitted_at is so much later than persisted_at, instead of an hour before it.
    pub(crate) fn emit_ahead_ms(&mut self, milliseconds: i64) {
        self.emitted_ahead_ms = milliseconds;
    }

    /// Books offsets that hold no event: duplicates.
    pub(crate) async fn duplicates(&self, stream_id: i64, count: i64) {
        sqlx::query(
            "UPDATE event_log.stream SET next_offset = next_offset + $2, duplicates = duplicates + $2
             WHERE stream_id = $1",
        )
        .bind(stream_id)
        .bind(count)
        .execute(&self.database.pool)
        .await
        .unwrap();
    }

    /// Appends one event; 1 ms passes.
    pub(crate) async fn append(&mut self, stream_id: i64, run_id: &str, event: Event) {
        let seq = self.next_seq.entry(run_id.to_owned()).or_insert(1);
        let (step_id, attempt) = event.step.unzip();
        sqlx::query(
            "WITH new_run AS (
               INSERT INTO event_log.run (tenant_id, run_id) VALUES ($1, $2)
               ON CONFLICT DO NOTHING RETURNING run_no
             ), the_run AS (
               SELECT run_no FROM new_run
               UNION SELECT run_no FROM event_log.run WHERE tenant_id = $1 AND run_id = $2
             ), place AS (
               SELECT next_offset FROM event_log.stream WHERE stream_id = $3
             ), moved AS (
               UPDATE event_log.stream SET next_offset = next_offset + 1, appended = appended + 1
               WHERE stream_id = $3
             )
             INSERT INTO event_log.event (
               run_no, run_seq, stream_id, source_offset, emitted_at, persisted_at, event_id,
               engine_attempt_id, logical_attempt_id, idempotency_key, content_digest, chain_digest,
               tenant_id, event_type, project_id, environment_id, plan_id, plan_version, step_id, payload)
             SELECT run_no, $4, $3, next_offset, $5::timestamptz + $13 * interval '1 ms', $5, $6, 7, $7, $8, $8, $8,
                    $1, $9, $10, 'live', $14, 'v1', $11, $12
             FROM the_run, place",
        )
        .bind(TENANT)
        .bind(run_id)
        .bind(stream_id)
        .bind(*seq)
        .bind(self.clock)
        .bind(Uuid::from_u128(self.events))
        .bind(attempt.unwrap_or(1))
        .bind([Uuid::new_v4().into_bytes(), Uuid::new_v4().into_bytes()].concat())
        .bind(event.event_type)
        .bind(event.project)
        .bind(step_id)
        .bind(event.payload)
        .bind(self.emitted_ahead_ms)
        .bind(event.plan)
        .execute(&self.database.pool)
        .await
        .unwrap();
        *seq += 1;
        self.events += 1;
        self.clock += Duration::from_millis(1);
    }
}

/// A runner at work, as a process of its own would have it.
pub(crate) struct Running {
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), RunnerError>>,
}

/// A page of so many events, whatever they weigh.
pub(crate) fn page(events: i64) -> PageSize {
    PageSize {
        events,
        bytes: usize::MAX,
    }
}

/// Settings for tests: they look often, and take leases for longer than a test lasts.
pub(crate) fn settings() -> Settings {
    Settings {
        batch_events: 2000,
        poll_interval: Duration::from_millis(5),
        drain_timeout: Duration::from_secs(30),
        lease: Duration::from_secs(3600),
    }
}

impl Running {
    pub(crate) fn start(database: &Database, owner: &str, settings: Settings) -> Self {
        Self::start_with(database, owner, settings, Arc::new(RunStatusProjection))
    }

    pub(crate) fn start_with(
        database: &Database,
        owner: &str,
        settings: Settings,
        projection: Arc<dyn Projection>,
    ) -> Self {
        let metrics = Metrics::register(&MetricsRegistry::new()).unwrap();
        let health = Health::new(&[DATABASE, PROJECTIONS]);
        let runner = Runner::new(
            database.process_pool(),
            vec![projection],
            owner.to_owned(),
            settings,
            metrics.clone(),
            Readiness::new(health.clone()),
        );
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(runner.run(shutdown.clone()));
        Self {
            metrics,
            health,
            shutdown,
            task,
        }
    }

    /// As SIGTERM does it.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// How it ended by itself.
    pub(crate) async fn ended(self) -> Result<(), RunnerError> {
        let ended = tokio::time::timeout(DEADLINE, self.task).await;
        ended.expect("the runner goes on").unwrap()
    }

    /// As SIGKILL does it: nothing is released.
    pub(crate) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// Has run_status project everything there is, in batches of `batch_events`.
pub(crate) async fn project(database: &Database, batch_events: usize) -> Metrics {
    project_with(database, RunStatusProjection::NAME, batch_events).await
}

/// Has a projection project everything there is, in batches of `batch_events`.
pub(crate) async fn project_with(database: &Database, name: &str, batch_events: usize) -> Metrics {
    let mut settings = settings();
    settings.batch_events = batch_events;
    let running = Running::start_with(database, "one", settings, by_name(name).unwrap());
    database.caught_up().await;
    let metrics = running.metrics.clone();
    running.stop().await;
    let mismatches = metrics.ledger_mismatches.with_label_values(&[name]);
    assert_eq!(mismatches.get(), 0, "{name}");
    metrics
}
