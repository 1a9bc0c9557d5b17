//! The main measurement: what the product does beside what the database could do, in pairs, in one
//! run. Called by `main`; the parts are in `floor`, `drain`, `projection`, `latency` and `idle`, the table in `report`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;

use crate::database::{Database, Size};
use crate::drain::{Drained, Together, drain, together};
use crate::floor::{Copied, Rows, copy};
use crate::generator::{EVENTS_A_RUN, EventIds, Options};
use crate::idle::{self, Idle};
use crate::latency::{Latency, Pipeline};
use crate::load::{Load, load};
use crate::machine::Machine;
use crate::progress::{note, step};
use crate::projection::{CaughtUp, catch_up, names};
use crate::report;
use crate::stack::Stack;

/// Partitions of the topic.
pub(crate) const PARTITIONS: i32 = 8;
/// Runs that go on side by side.
pub(crate) const ACTIVE: usize = 2_000;
/// Events that are sent twice.
pub(crate) const DUPLICATES: f64 = 0.01;

/// Records per second at which batches are small.
const SLOW: u32 = 10;

/// What to generate; the same of every measurement.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct LoadArgs {
    /// Events in the topic
    #[arg(long, default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(100..))]
    pub(crate) events: u64,

    /// Pairs of measurements
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=99))]
    pub(crate) pairs: u16,

    /// The same seed makes the same events
    #[arg(long, default_value_t = 7)]
    pub(crate) seed: u64,

    /// How event ids are made
    #[arg(long, value_enum, default_value_t = EventIds::V7)]
    pub(crate) event_ids: EventIds,

    /// File for the figures, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) json: PathBuf,
}

impl LoadArgs {
    /// So many events, with a seed that is moved on by this.
    pub(crate) fn options(&self, events: u64, seed: u64) -> Options {
        Options {
            seed: self.seed + seed,
            events,
            active: ACTIVE,
            duplicates: DUPLICATES,
            event_ids: self.event_ids,
        }
    }
}

/// What is compared.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) load: LoadArgs,

    /// Records per second while latency is measured
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rate: u32,

    /// For how long, in seconds; then 10 a second for two thirds of that, and idle for as long
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(3..=3_600))]
    pub(crate) seconds: u32,
}

/// One after the other, on one topic.
#[derive(Debug, Serialize)]
pub(crate) struct Pair {
    /// (a)
    pub(crate) floor: Copied,
    /// (b)
    pub(crate) drain: Drained,
    /// (c)
    pub(crate) projections: BTreeMap<String, CaughtUp>,
    /// (d)
    pub(crate) together: Together,
}

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    /// Where.
    pub(crate) machine: Machine,
    /// The topic.
    pub(crate) load: Load,
    /// The pairs.
    pub(crate) pairs: Vec<Pair>,
    /// Of the last pair's database, with everything projected.
    pub(crate) sizes: Vec<Size>,
    /// At the rate asked for, and at a low one.
    pub(crate) latency: Vec<Latency>,
    /// When nothing comes.
    pub(crate) idle: Idle,
}

/// Measures, prints the table and writes the file.
///
/// # Errors
/// Where a server or a program fails.
pub(crate) async fn run(stack: &Stack, args: &Args) -> anyhow::Result<()> {
    let mut database = Database::create(stack, "bench_first").await?;
    let machine = Machine::look(stack, &mut database.connection).await?;
    step(&format!("publishing {} events", args.load.events));
    let options = args.load.options(args.load.events, 0);
    let load = load(stack, "bench", PARTITIONS, options).await?;
    step("a first drain, which only gives the floor its rows");
    drain(stack, &mut database, &load, 1).await?;
    let rows = Arc::new(Rows::of(&mut database).await?);
    note(&format!("{} rows, {} MiB", rows.count, rows.bytes() >> 20));
    database.drop(stack).await?;

    let mut pairs = Vec::new();
    let mut sizes = Vec::new();
    for number in 0..args.load.pairs {
        step(&format!("pair {} of {}", number + 1, args.load.pairs));
        let (pair, of_pair) = pair(stack, &load, &rows, number).await?;
        pairs.push(pair);
        sizes = of_pair;
    }
    let (latency, idle) = at_a_rate(stack, args).await?;
    let measured = Measured {
        machine,
        load,
        pairs,
        sizes,
        latency,
        idle,
    };
    report::print(&measured, &args.load.json)
}

/// Latency at both rates, then nothing.
async fn at_a_rate(stack: &Stack, args: &Args) -> anyhow::Result<(Vec<Latency>, Idle)> {
    step("latency at a fixed rate");
    let shorter = args.seconds * 2 / 3;
    let phases = [(args.rate, args.seconds), (SLOW, shorter)];
    let sent = phases.map(|(rate, seconds)| u64::from(rate) * u64::from(seconds + 3));
    // More than will be sent, so that no run has to end early.
    let events = sent.iter().sum::<u64>() + ACTIVE as u64 * EVENTS_A_RUN;
    let mut pipeline = Pipeline::start(stack, args.load.options(events, 1)).await?;
    let mut latency = Vec::new();
    for (rate, seconds) in phases {
        latency.push(pipeline.measure(stack, rate, seconds).await?);
    }
    step("doing nothing");
    let idle = idle::measure(stack, &mut pipeline, shorter).await?;
    pipeline.stop(stack).await?;
    Ok((latency, idle))
}

/// Every other pair begins with the drain, and another projection is the first each time.
async fn pair(
    stack: &Stack,
    load: &Load,
    rows: &Arc<Rows>,
    number: u16,
) -> anyhow::Result<(Pair, Vec<Size>)> {
    let floor_first = number.is_multiple_of(2);
    let mut floor = None;
    if floor_first {
        floor = Some(floor_of(stack, rows).await?);
    }
    let mut database = Database::create(stack, "bench_drain").await?;
    let drained = drain(stack, &mut database, load, 1).await?;
    note(&format!("ingest: {:.0} events/s", drained.rate));
    let floor = match floor {
        Some(floor) => floor,
        None => floor_of(stack, rows).await?,
    };
    let mut names = names(&mut database).await?;
    let first = usize::from(number) % names.len().max(1);
    names.rotate_left(first);
    let mut projections = BTreeMap::new();
    for name in names {
        let caught_up = catch_up(stack, &mut database, load, &name).await?;
        note(&format!("{name}: {:.0} events/s", caught_up.rate));
        projections.insert(name, caught_up);
    }
    let sizes = database.sizes().await?;
    database.drop(stack).await?;

    let mut database = Database::create(stack, "bench_together").await?;
    let together = together(stack, &mut database, load).await?;
    note(&format!(
        "all together: {:.0} events/s",
        together.drained.rate
    ));
    database.drop(stack).await?;
    let pair = Pair {
        floor,
        drain: drained,
        projections,
        together,
    };
    Ok((pair, sizes))
}

async fn floor_of(stack: &Stack, rows: &Arc<Rows>) -> anyhow::Result<Copied> {
    let mut database = Database::create(stack, "bench_floor").await?;
    let copied = copy(stack, &mut database, rows).await?;
    note(&format!("floor: {:.0} rows/s", copied.rate));
    database.drop(stack).await?;
    Ok(copied)
}
