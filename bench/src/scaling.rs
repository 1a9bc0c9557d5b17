//! (g) How a drain's rate grows with partitions and with ingest processes. Called by `main`.
//!
//! A process joins the consumer group while others already read, so the rate is that of the rest of
//! the drain, from the moment when every process that can have a partition has one.

use std::io::Write as _;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::compare::LoadArgs;
use crate::database::Database;
use crate::drain::{Progress, seconds_between};
use crate::load::{Load, load};
use crate::machine::Machine;
use crate::meter::{Consumed, Meter};
use crate::program::{Program, Used, used_by};
use crate::progress::{note, step};
use crate::report::write_json;
use crate::stack::Stack;
use crate::stats::Spread;

const PARTITIONS: [i32; 4] = [1, 2, 4, 8];
const PROCESSES: [usize; 3] = [1, 2, 4];

/// Members of a group hear of a new one with their next heartbeat: the rest of the drain is what counts.
const SOON_TOGETHER: &[(&str, &str)] =
    &[("RUNLOG_KAFKA__PROPERTIES__HEARTBEAT_INTERVAL_MS", "200")];

/// What is compared.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    load: LoadArgs,
}

/// One drain.
#[derive(Debug, Serialize)]
struct Drain {
    partitions: i32,
    processes: usize,
    /// Records that were left when every process had its partitions.
    records: u64,
    /// How long these took.
    seconds: f64,
    /// Records per second.
    rate: f64,
    /// From the start of the processes, all events.
    all_seconds: f64,
    ingest: Used,
    servers: Consumed,
}

#[derive(Debug, Serialize)]
struct Measured {
    machine: Machine,
    loads: Vec<Load>,
    drains: Vec<Drain>,
}

/// Measures, prints the table and writes the file.
///
/// # Errors
/// Where a server or a program fails.
pub(crate) async fn run(stack: &Stack, args: &Args) -> anyhow::Result<()> {
    let mut database = Database::create(stack, "bench_first").await?;
    let machine = Machine::look(stack, &mut database.connection).await?;
    database.drop(stack).await?;
    let mut loads = Vec::new();
    for partitions in PARTITIONS {
        step(&format!("publishing to {partitions} partitions"));
        let options = args.load.options(args.load.events, 0);
        loads.push(load(stack, &format!("scaling_{partitions}"), partitions, options).await?);
    }
    let mut drains = Vec::new();
    for round in 0..args.load.pairs {
        step(&format!("round {} of {}", round + 1, args.load.pairs));
        for load in &loads {
            for processes in PROCESSES {
                let drain = drain(stack, load, processes).await?;
                note(&format!(
                    "{} partitions, {processes} processes: {:.0} records/s",
                    load.partitions, drain.rate
                ));
                drains.push(drain);
            }
        }
    }
    let measured = Measured {
        machine,
        loads,
        drains,
    };
    print(&measured)?;
    write_json(&args.load.json, &measured)
}

async fn drain(stack: &Stack, load: &Load, processes: usize) -> anyhow::Result<Drain> {
    let mut database = Database::create(stack, "bench_scaling").await?;
    database.checkpoint().await?;
    let meter = Meter::read(stack, &mut database.connection).await?;
    let mut ingest = Vec::new();
    for _ in 0..processes {
        ingest.push(Program::ingest(
            stack,
            &database,
            &load.topic,
            SOON_TOGETHER,
        )?);
    }
    let ((begun, at), (ended, from)) = wait(&mut database, load, &mut ingest).await?;
    let used = used_by(&ingest)?;
    let servers = meter.since(stack, &mut database.connection).await?;
    for program in ingest {
        program.stop().await?;
    }
    database.drop(stack).await?;
    let (records, seconds) = (load.records - at, seconds_between(begun, ended));
    Ok(Drain {
        partitions: load.partitions,
        processes,
        records,
        seconds,
        rate: records as f64 / seconds,
        all_seconds: seconds_between(from, ended),
        ingest: used,
        servers,
    })
}

type Begun = (DateTime<Utc>, u64);

/// When every process had a partition, and how many records were done then; when all were done, and
/// when this began.
async fn wait(
    database: &mut Database,
    load: &Load,
    ingest: &mut [Program],
) -> anyhow::Result<(Begun, (DateTime<Utc>, DateTime<Utc>))> {
    let state = "SELECT coalesce(sum(next_offset), 0)::bigint, count(DISTINCT owner), clock_timestamp() \
                 FROM event_log.stream";
    let all = ingest.len().min(usize::try_from(load.partitions)?);
    let (mut from, mut begun) = (None, None);
    let mut last = Progress::new("ingest");
    loop {
        let (offset, owners, now): (i64, i64, DateTime<Utc>) = sqlx::query_as(state)
            .fetch_one(&mut database.connection)
            .await?;
        from.get_or_insert(now);
        if usize::try_from(owners)? >= all {
            begun.get_or_insert((now, offset.cast_unsigned()));
        }
        if offset.cast_unsigned() == load.records {
            // Where the last process came too late for anything, the rate says nothing.
            let begun = begun.unwrap_or((now, load.records));
            return Ok((begun, (now, from.unwrap_or(now))));
        }
        last.next_look(offset, ingest).await?;
    }
}

fn print(measured: &Measured) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{}", measured.machine.lines())?;
    writeln!(
        out,
        "\n{:>10} {:>9} {:>30} {:>8} {:>8} {:>8} {:>10}",
        "partitions",
        "processes",
        "records/s (least to most)",
        "ingest",
        "Postgres",
        "Kafka",
        "cores busy"
    )?;
    writeln!(out, "{:>51} {:>26}", "", "CPU s per million")?;
    for load in &measured.loads {
        for processes in PROCESSES {
            let is = |d: &&Drain| d.partitions == load.partitions && d.processes == processes;
            let drains: Vec<&Drain> = measured.drains.iter().filter(is).collect();
            let start = format!("{:>10} {processes:>9}", load.partitions);
            writeln!(out, "{start} {}", line(&drains, 1e6 / load.events as f64))?;
        }
    }
    Ok(())
}

/// The medians of drains that differ in nothing.
fn line(drains: &[&Drain], million: f64) -> String {
    let spread = |value: &dyn Fn(&Drain) -> Option<f64>| {
        Spread::of(drains.iter().filter_map(|drain| value(drain)))
    };
    let median = |value: &dyn Fn(&Drain) -> Option<f64>| {
        spread(value).map_or_else(|| "-".to_owned(), |s| format!("{:.1}", s.median))
    };
    let rate = spread(&|d| d.rate.is_finite().then_some(d.rate));
    let rate = rate.map_or_else(String::new, |s| {
        format!("{:.0} ({:.0} to {:.0})", s.median, s.least, s.most)
    });
    let busy = |d: &Drain| {
        let cpu = d.ingest.cpu_s + d.servers.postgres_cpu_s? + d.servers.kafka_cpu_s?;
        Some(cpu / d.all_seconds)
    };
    format!(
        "{rate:>30} {:>8} {:>8} {:>8} {:>10}",
        median(&|d| Some(d.ingest.cpu_s * million)),
        median(&|d| Some(d.servers.postgres_cpu_s? * million)),
        median(&|d| Some(d.servers.kafka_cpu_s? * million)),
        median(&busy),
    )
}
