//! A database of a test's own, on the real PostgreSQL that `make test` starts.

use std::future::Future;
use std::str::FromStr;
use std::time::{Duration, Instant};

use event_log::stream::{self, Claimant};
use event_log::{Claim, StreamWriter};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use uuid::Uuid;

/// A migrated database. Cloning shares it.
#[derive(Clone)]
pub struct Database {
    /// How to reach it, as a superuser.
    pub options: PgConnectOptions,
    pub pool: PgPool,
}

/// Runs a test in a database of its own, which is dropped whether the test passes or not.
pub async fn with_database<F, T>(test: F)
where
    F: FnOnce(Database) -> T,
    T: Future<Output = ()> + Send + 'static,
{
    let name = format!("event_log_test_{}", Uuid::new_v4().simple());
    administer(format!("CREATE DATABASE {name}")).await;
    let options = server().database(&name);
    let pool = pool(&options, 8).await;
    event_log::schema::migrate(&pool).await.unwrap();
    let ended = tokio::spawn(test(Database {
        options,
        pool: pool.clone(),
    }))
    .await;
    pool.close().await;
    administer(format!("DROP DATABASE {name} WITH (FORCE)")).await;
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic.into_panic());
    }
}

/// A pool of at most `size` connections. A lock that is never released fails the test.
pub async fn pool(options: &PgConnectOptions, size: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(size)
        .connect_with(options.clone().options([("lock_timeout", "30s")]))
        .await
        .unwrap()
}

fn server() -> PgConnectOptions {
    let url = std::env::var("RUNLOG_TEST_DATABASE_URL").unwrap_or_else(|_| {
        panic!("RUNLOG_TEST_DATABASE_URL is not set: run `make test`, which starts a PostgreSQL for the tests")
    });
    PgConnectOptions::from_str(&url).unwrap()
}

async fn administer(statement: String) {
    let mut connection = PgConnection::connect_with(&server()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

/// Sessions of the test's database that wait for a lock.
pub const WAITING_FOR_A_LOCK: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'";
/// Sessions of the test's database with an open transaction and nothing to do.
pub const IDLE_IN_TRANSACTION: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND state LIKE 'idle in transaction%'";

pub fn claimant(owner: &str) -> Claimant {
    Claimant {
        group_id: "runlog-ingest".to_owned(),
        owner: owner.to_owned(),
    }
}

impl Database {
    /// Claims a partition of topic `t`, opening it at offset 0 if it was never read.
    pub async fn claim(&self, partition: i32) -> Claim {
        let who = claimant("a test");
        stream::open(&self.pool, &who, "t", partition, 0)
            .await
            .unwrap();
        stream::claim(&self.pool, &who, "t", partition)
            .await
            .unwrap()
            .unwrap()
    }

    /// A writer with an empty cache, for a fresh claim on a partition of topic `t`.
    pub async fn writer(&self, partition: i32) -> StreamWriter {
        StreamWriter::new(self.claim(partition).await)
    }

    /// Runs statements without parameters.
    pub async fn run(&self, statements: &'static str) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(statements).execute(&self.pool).await?;
        Ok(())
    }

    /// One number.
    pub async fn number(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// Waits until a query counts something (or nothing, if `something` is false).
    pub async fn wait_until(&self, something: bool, query: &'static str) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while (self.number(query).await > 0) != something {
            assert!(Instant::now() < deadline, "30 s, and it is not so: {query}");
        }
    }

    /// The runSeqs of a run, in order of (partition, offset).
    pub async fn run_seqs(&self, tenant: &str, run: &str) -> Vec<i64> {
        sqlx::query_scalar(
            "SELECT run_seq FROM event_log.run_events
             WHERE tenant_id = $1 AND run_id = $2 ORDER BY partition, source_offset",
        )
        .bind(tenant)
        .bind(run)
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }
}
