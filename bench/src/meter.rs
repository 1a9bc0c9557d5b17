//! What the servers use while something is measured: CPU seconds and write-ahead log. Called by the
//! measurements.

use serde::Serialize;
use sqlx::PgConnection;

use crate::stack::Stack;
use crate::usage;

/// The servers' counters at a moment.
#[derive(Debug)]
pub(crate) struct Meter {
    postgres: Option<f64>,
    kafka: Option<f64>,
    own: f64,
    wal: i64,
}

/// What was used between two moments.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Consumed {
    /// CPU seconds of all of PostgreSQL's processes; `None` where they cannot be seen.
    pub(crate) postgres_cpu_s: Option<f64>,
    /// CPU seconds of Kafka; `None` where it cannot be seen.
    pub(crate) kafka_cpu_s: Option<f64>,
    /// CPU seconds of the bench itself.
    pub(crate) bench_cpu_s: f64,
    /// Bytes of write-ahead log, of the whole cluster.
    pub(crate) wal_bytes: i64,
}

impl Meter {
    /// Reads the counters.
    ///
    /// # Errors
    /// Where a server is gone.
    pub(crate) async fn read(stack: &Stack, on: &mut PgConnection) -> anyhow::Result<Self> {
        let wal = "SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint";
        Ok(Self {
            wal: sqlx::query_scalar(wal).fetch_one(on).await?,
            postgres: stack.postgres_cpu()?,
            kafka: stack.kafka_cpu()?,
            own: usage::cpu_of(std::process::id())?,
        })
    }

    /// What was used since.
    ///
    /// # Errors
    /// Where a server is gone.
    pub(crate) async fn since(
        self,
        stack: &Stack,
        on: &mut PgConnection,
    ) -> anyhow::Result<Consumed> {
        let now = Self::read(stack, on).await?;
        let between = |a: Option<f64>, b: Option<f64>| Some(b? - a?);
        Ok(Consumed {
            postgres_cpu_s: between(self.postgres, now.postgres),
            kafka_cpu_s: between(self.kafka, now.kafka),
            bench_cpu_s: now.own - self.own,
            wal_bytes: now.wal - self.wal,
        })
    }
}
