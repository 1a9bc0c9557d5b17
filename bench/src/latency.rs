//! (e) How long a record takes, at a fixed rate, from its acknowledgement by Kafka to the log, and to
//! `run_current`. The times at which records are meant to be sent are fixed before, so that a stall
//! counts for every record that it holds up (no coordinated omission). Called by `compare`.
//!
//! *Acknowledged*: when the producer's delivery report comes. *In the log*, *in run_current*: when an
//! observer with a connection of its own first reads a `next_offset` beyond the record's, in the
//! stream's row or in the checkpoint of `run_status`; those are committed with the rows, so the rows
//! can be read from then on. So a time is too long by up to one look, which `looks` says.

mod observer;
mod sender;

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

use self::observer::Observer;
use self::sender::{Acked, send};
use crate::compare::PARTITIONS;
use crate::database::Database;
use crate::drain::Progress;
use crate::generator::{Generator, Options};
use crate::load::create_topic;
use crate::meter::{Consumed, Meter};
use crate::program::Program;
use crate::progress::note;
use crate::stack::Stack;

/// Records are sent for so long before they count.
const WARM_UP: Duration = Duration::from_secs(2);
/// The topic.
const TOPIC: &str = "latency";

/// A distribution of times, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Quantiles {
    /// Half take no longer.
    pub(crate) p50: f64,
    /// 99 of 100 take no longer.
    pub(crate) p99: f64,
    /// 999 of 1,000 take no longer.
    pub(crate) p999: f64,
    /// None takes longer.
    pub(crate) max: f64,
}

/// What records took at one rate.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    /// Records per second.
    pub(crate) rate: u32,
    /// Records, those of the warm-up included.
    pub(crate) sent: usize,
    /// Records that counted.
    pub(crate) records: usize,
    /// From the acknowledgement to the log.
    pub(crate) acked_to_log: Quantiles,
    /// From the acknowledgement to `run_current`.
    pub(crate) acked_to_run_current: Quantiles,
    /// From the time the record was meant to be sent at to the acknowledgement.
    pub(crate) intended_to_acked: Quantiles,
    /// From the time the record was meant to be sent at to the log.
    pub(crate) intended_to_log: Quantiles,
    /// Between the observer's looks.
    pub(crate) looks: Quantiles,
    /// CPU seconds of the observer's connection, part of PostgreSQL's; `None` where it cannot be seen.
    pub(crate) observer_cpu_s: Option<f64>,
    /// CPU seconds of ingest and of the projectors, warm-up included.
    pub(crate) programs_cpu_s: [f64; 2],
    /// Of the servers, warm-up included.
    pub(crate) servers: Consumed,
}

/// The database and the programs that records go through.
pub(crate) struct Pipeline {
    /// The database.
    pub(crate) database: Database,
    /// Ingest, then the projectors.
    pub(crate) programs: [Program; 2],
    generator: Generator,
}

impl Pipeline {
    /// A new topic and database, ingest and the projectors with their own defaults.
    ///
    /// # Errors
    /// Where one of them cannot be had.
    pub(crate) async fn start(stack: &Stack, options: Options) -> anyhow::Result<Self> {
        create_topic(stack, TOPIC, PARTITIONS).await?;
        let mut database = Database::create(stack, "bench_latency").await?;
        let mut programs = [
            Program::ingest(stack, &database, TOPIC, &[])?,
            Program::projectors(stack, &database.name, &[])?,
        ];
        wait_for_claims(&mut database, &mut programs).await?;
        Ok(Self {
            database,
            programs,
            generator: Generator::new(options),
        })
    }

    /// Sends records at a rate for some seconds and says what they took.
    ///
    /// # Errors
    /// Where a record is not taken or does not arrive.
    pub(crate) async fn measure(
        &mut self,
        stack: &Stack,
        rate: u32,
        seconds: u32,
    ) -> anyhow::Result<Latency> {
        let warm_up = WARM_UP.as_secs() as usize * rate as usize;
        let count = warm_up + rate as usize * seconds as usize;
        let records: Vec<_> = self.generator.by_ref().take(count).collect();
        let meter = Meter::read(stack, &mut self.database.connection).await?;
        let before = self.cpu()?;
        let observer = Observer::start(stack, &self.database.name, TOPIC).await?;
        let (begun, acked) = send(stack, TOPIC, records, rate).await?;
        self.wait_for(&acked).await?;
        let observed = observer.stop().await?;
        let servers = meter.since(stack, &mut self.database.connection).await?;
        let after = self.cpu()?;
        let intended = |place: usize| begun + sender::after(place, rate);
        let counted: Vec<&Acked> = acked.iter().filter(|a| a.place >= warm_up).collect();
        note(&format!("{rate}/s: {} records", counted.len()));
        let of = |from: &dyn Fn(&Acked) -> Instant, to: &dyn Fn(&Acked) -> Option<Instant>| {
            let times = counted.iter().map(|acked| {
                let to = to(acked).ok_or_else(|| anyhow::anyhow!("a record was never seen"))?;
                // A record can be seen before the producer hears of it.
                Ok(to.saturating_duration_since(from(acked)))
            });
            quantiles(times)
        };
        let in_log = |a: &Acked| observed.log.passed(a.partition, a.offset);
        let in_model = |a: &Acked| observed.model.passed(a.partition, a.offset);
        Ok(Latency {
            rate,
            sent: count,
            records: counted.len(),
            acked_to_log: of(&|a| a.at, &in_log)?,
            acked_to_run_current: of(&|a| a.at, &in_model)?,
            intended_to_acked: of(&|a| intended(a.place), &|a| Some(a.at))?,
            intended_to_log: of(&|a| intended(a.place), &in_log)?,
            looks: quantiles(observed.looks.iter().map(|look| Ok(*look)))?,
            observer_cpu_s: observed.cpu_s,
            programs_cpu_s: [after[0] - before[0], after[1] - before[1]],
            servers,
        })
    }

    /// CPU seconds so far, of ingest and of the projectors.
    ///
    /// # Errors
    /// Where one is gone.
    pub(crate) fn cpu(&self) -> anyhow::Result<[f64; 2]> {
        let [ingest, projectors] = &self.programs;
        Ok([ingest.used()?.cpu_s, projectors.used()?.cpu_s])
    }

    /// Ends it.
    ///
    /// # Errors
    /// Where a program fails.
    pub(crate) async fn stop(self, stack: &Stack) -> anyhow::Result<()> {
        for program in self.programs {
            program.stop().await?;
        }
        self.database.drop(stack).await
    }

    async fn wait_for(&mut self, acked: &[Acked]) -> anyhow::Result<()> {
        let mut last = Progress::new("ingest or the projectors");
        loop {
            let now = observer::look(&mut self.database.connection, TOPIC).await?;
            let missing = acked.iter().filter(|a| {
                let passed = |r: &&observer::Row| r.partition == a.partition && r.model > a.offset;
                !now.iter().any(|row| passed(&row))
            });
            let missing = missing.count();
            if missing == 0 {
                return Ok(());
            }
            last.next_look(i64::try_from(missing)?, &mut self.programs)
                .await?;
        }
    }
}

/// Every partition and each of its projections has a process that works on it.
async fn wait_for_claims(database: &mut Database, programs: &mut [Program]) -> anyhow::Result<()> {
    let mut last = Progress::new("the start of ingest and the projectors");
    loop {
        let (held, wanted): (i64, i64) = sqlx::query_as(include_str!("sql/claims.sql"))
            .bind(i64::from(PARTITIONS))
            .fetch_one(&mut database.connection)
            .await?;
        if held == wanted {
            return Ok(());
        }
        last.next_look(held, programs).await?;
    }
}

fn quantiles(
    times: impl IntoIterator<Item = anyhow::Result<Duration>>,
) -> anyhow::Result<Quantiles> {
    let mut histogram = Histogram::<u64>::new(3)?;
    for time in times {
        histogram.record(u64::try_from(time?.as_micros())?)?;
    }
    let ms = |micros: u64| micros as f64 / 1_000.0;
    Ok(Quantiles {
        p50: ms(histogram.value_at_quantile(0.5)),
        p99: ms(histogram.value_at_quantile(0.99)),
        p999: ms(histogram.value_at_quantile(0.999)),
        max: ms(histogram.max()),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::quantiles;

    #[test]
    fn quantiles_are_in_milliseconds_with_three_digits() -> anyhow::Result<()> {
        let times = (1..=1_000).map(|n| Ok(Duration::from_micros(n * 100)));
        let found = quantiles(times)?;
        for (found, expected) in [
            (found.p50, 50.0),
            (found.p99, 99.0),
            (found.p999, 99.9),
            (found.max, 100.0),
        ] {
            assert!(
                (found / expected - 1.0).abs() < 0.002,
                "{found} for {expected}"
            );
        }
        Ok(())
    }
}
