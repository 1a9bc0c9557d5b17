//! Looks, all the time, how far the log and `run_status` have come. Called by `latency`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tokio::task::JoinHandle;

use crate::database::connect;
use crate::stack::Stack;
use crate::usage;

/// Between an answer and the next look.
const PAUSE: Duration = Duration::from_millis(1);

/// How far one partition has come.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Row {
    /// The partition.
    pub(super) partition: i32,
    /// The log's next_offset.
    pub(super) log: i64,
    /// run_status's next_offset.
    pub(super) model: i64,
}

/// When each partition was first seen to have come how far, in order.
#[derive(Debug, Default)]
pub(super) struct Horizons(Vec<Vec<(i64, Instant)>>);

impl Horizons {
    fn note(&mut self, partition: i32, next_offset: i64, at: Instant) {
        let partition = usize::try_from(partition).unwrap_or_default();
        if self.0.len() <= partition {
            self.0.resize_with(partition + 1, Vec::new);
        }
        let seen = &mut self.0[partition];
        if seen.last().is_none_or(|(last, _)| next_offset > *last) {
            seen.push((next_offset, at));
        }
    }

    /// When this offset was first seen to be passed.
    pub(super) fn passed(&self, partition: i32, offset: i64) -> Option<Instant> {
        let seen = self.0.get(usize::try_from(partition).ok()?)?;
        let first = seen.partition_point(|(next_offset, _)| *next_offset <= offset);
        seen.get(first).map(|(_, at)| *at)
    }
}

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// Of the log.
    pub(super) log: Horizons,
    /// Of run_status.
    pub(super) model: Horizons,
    /// From each look's answer to the next one's.
    pub(super) looks: Vec<Duration>,
    /// CPU seconds of its connection's process.
    pub(super) cpu_s: Option<f64>,
}

/// A task that looks until it is stopped.
pub(super) struct Observer {
    stop: Arc<AtomicBool>,
    task: JoinHandle<anyhow::Result<Observed>>,
}

impl Observer {
    /// Begins to look.
    ///
    /// # Errors
    /// Where PostgreSQL cannot be reached.
    pub(super) async fn start(
        stack: &Stack,
        database: &str,
        topic: &'static str,
    ) -> anyhow::Result<Self> {
        let connection = connect(stack, database).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let visible = stack.postgres_pid.is_some();
        let task = tokio::spawn(observe(connection, topic, visible, Arc::clone(&stop)));
        Ok(Self { stop, task })
    }

    /// One last look, and what was seen.
    ///
    /// # Errors
    /// Where a look failed.
    pub(super) async fn stop(self) -> anyhow::Result<Observed> {
        self.stop.store(true, Ordering::Release);
        self.task.await?
    }
}

async fn observe(
    mut connection: PgConnection,
    topic: &str,
    visible: bool,
    stop: Arc<AtomicBool>,
) -> anyhow::Result<Observed> {
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(&mut connection)
        .await?;
    let mut observed = Observed::default();
    let mut last = Instant::now();
    loop {
        let is_last = stop.load(Ordering::Acquire);
        let rows = look(&mut connection, topic).await?;
        let now = Instant::now();
        observed.looks.push(now - last);
        last = now;
        for row in rows {
            observed.log.note(row.partition, row.log, now);
            observed.model.note(row.partition, row.model, now);
        }
        if is_last {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    if visible {
        observed.cpu_s = Some(usage::cpu_of(pid.cast_unsigned())?);
    }
    Ok(observed)
}

/// One look.
///
/// # Errors
/// Of PostgreSQL.
pub(super) async fn look(connection: &mut PgConnection, topic: &str) -> anyhow::Result<Vec<Row>> {
    let rows = sqlx::query_as(include_str!("../sql/horizons.sql")).bind(topic);
    Ok(rows.fetch_all(connection).await?)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Horizons;

    #[test]
    fn an_offset_is_passed_when_next_offset_is_first_seen_beyond_it() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut horizons = Horizons::default();
        for (next_offset, ms) in [(0, 1), (5, 2), (5, 3), (9, 4)] {
            horizons.note(3, next_offset, at(ms));
        }
        assert_eq!(horizons.passed(3, 0), Some(at(2)));
        assert_eq!(horizons.passed(3, 4), Some(at(2)));
        assert_eq!(horizons.passed(3, 5), Some(at(4)));
        assert_eq!(horizons.passed(3, 9), None);
        assert_eq!(horizons.passed(0, 0), None);
    }
}
