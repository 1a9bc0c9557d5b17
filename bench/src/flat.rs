//! (h) Whether a drain into a log that holds much is as fast as into one that holds little: two
//! databases, filled beforehand, in turn. Called by `main`.

use std::io::Write as _;
use std::time::Instant;

use serde::Serialize;
use sqlx::PgConnection;

use crate::compare::{LoadArgs, PARTITIONS};
use crate::database::{Database, Size, connect};
use crate::drain::{Drained, drain};
use crate::generator::EventIds;
use crate::load::load;
use crate::machine::Machine;
use crate::progress::{note, step};
use crate::report::write_json;
use crate::stack::Stack;
use crate::stats::Spread;

/// Events of a run of the filling.
const A_RUN: u64 = 20;
/// Runs that one statement fills in.
const RUNS_AT_ONCE: u64 = 25_000;

/// What is compared.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    load: LoadArgs,

    /// Events in the large log, before the first drain
    #[arg(long, default_value_t = 50_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    large: u64,

    /// Events in the small log, before the first drain
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    small: u64,
}

#[derive(Debug, Serialize)]
struct Pair {
    small: Drained,
    large: Drained,
}

#[derive(Debug, Serialize)]
struct Measured {
    machine: Machine,
    event_ids: EventIds,
    small: u64,
    large: u64,
    events_a_drain: u64,
    pairs: Vec<Pair>,
    /// Of the large log, at the end.
    sizes: Vec<Size>,
}

/// Measures, prints the table and writes the file.
///
/// # Errors
/// Where a server or a program fails.
pub(crate) async fn run(stack: &Stack, args: &Args) -> anyhow::Result<()> {
    let ids = args.load.event_ids;
    let mut small = filled(stack, "bench_small", args.small, ids).await?;
    let mut large = filled(stack, "bench_large", args.large, ids).await?;
    let machine = Machine::look(stack, &mut small.connection).await?;
    let mut pairs = Vec::new();
    for number in 0..args.load.pairs {
        step(&format!("pair {} of {}", number + 1, args.load.pairs));
        // Events of its own: the databases have those of the pairs before.
        let options = args.load.options(args.load.events, u64::from(number));
        let load = load(stack, &format!("flat_{number}"), PARTITIONS, options).await?;
        let pair = if number.is_multiple_of(2) {
            let of_small = drain(stack, &mut small, &load, 1).await?;
            let of_large = drain(stack, &mut large, &load, 1).await?;
            (of_small, of_large)
        } else {
            let of_large = drain(stack, &mut large, &load, 1).await?;
            let of_small = drain(stack, &mut small, &load, 1).await?;
            (of_small, of_large)
        };
        note(&format!(
            "small {:.0}, large {:.0} events/s",
            pair.0.rate, pair.1.rate
        ));
        pairs.push(Pair {
            small: pair.0,
            large: pair.1,
        });
    }
    let measured = Measured {
        machine,
        event_ids: ids,
        small: args.small,
        large: args.large,
        events_a_drain: args.load.events,
        pairs,
        sizes: large.sizes().await?,
    };
    print(&measured)?;
    write_json(&args.load.json, &measured)?;
    small.drop(stack).await?;
    large.drop(stack).await
}

/// A database with so many events, rounded down to whole runs on each partition.
async fn filled(stack: &Stack, name: &str, events: u64, ids: EventIds) -> anyhow::Result<Database> {
    let mut database = Database::create(stack, name).await?;
    step(&format!("filling {name} with {events} events"));
    let partitions = u64::from(PARTITIONS.unsigned_abs());
    let runs = events / A_RUN / partitions * partitions;
    sqlx::query(include_str!("sql/fill_streams.sql"))
        .bind(PARTITIONS)
        .bind(database.group.clone())
        .bind((runs / partitions * A_RUN).cast_signed())
        .execute(&mut database.connection)
        .await?;
    let mut others = [connect(stack, name).await?, connect(stack, name).await?];
    let begun = Instant::now();
    let mut first = 0;
    while first < runs {
        let middle = (first + RUNS_AT_ONCE).min(runs);
        let last = (middle + RUNS_AT_ONCE).min(runs);
        let [one, other] = &mut others;
        tokio::try_join!(
            fill(one, first..middle, runs, ids),
            fill(other, middle..last, runs, ids)
        )?;
        first = last;
        let seconds = begun.elapsed().as_secs();
        note(&format!(
            "{} of {} events after {seconds} s",
            last * A_RUN,
            runs * A_RUN
        ));
    }
    for statement in [
        "SELECT setval(pg_get_serial_sequence('event_log.run', 'run_no'), max(run_no)) FROM event_log.run",
        "VACUUM (FREEZE, ANALYZE) event_log.run",
        "VACUUM (FREEZE, ANALYZE) event_log.event",
    ] {
        sqlx::raw_sql(statement)
            .execute(&mut database.connection)
            .await?;
    }
    Ok(database)
}

async fn fill(
    connection: &mut PgConnection,
    runs: std::ops::Range<u64>,
    of: u64,
    ids: EventIds,
) -> anyhow::Result<()> {
    if runs.is_empty() {
        return Ok(());
    }
    // The filling is no measurement: its commits need not wait for the disk.
    sqlx::raw_sql("SET synchronous_commit = off")
        .execute(&mut *connection)
        .await?;
    let last = (runs.end - 1).cast_signed();
    for statement in [
        include_str!("sql/fill_runs.sql"),
        include_str!("sql/fill_events.sql"),
    ] {
        sqlx::query(statement)
            .bind(runs.start.cast_signed())
            .bind(last)
            .bind(PARTITIONS)
            .bind((of * A_RUN).cast_signed())
            .bind(ids == EventIds::V7)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

fn print(measured: &Measured) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let (ids, events, pairs) = (
        measured.event_ids,
        measured.events_a_drain,
        measured.pairs.len(),
    );
    writeln!(out, "\n{}", measured.machine.lines())?;
    writeln!(
        out,
        "\n{ids:?} event ids, drains of {events} events, medians of {pairs} pairs"
    )?;
    writeln!(
        out,
        "\n{:<34} {:>9} {:>9} {:>9} {:>9}",
        "", "events/s", "ingest", "Postgres", "WAL bytes"
    )?;
    writeln!(
        out,
        "{:<44} {:>19} {:>9}",
        "", "CPU s per million", "per event"
    )?;
    writeln!(out, "{}", line(measured, measured.small, |p| &p.small))?;
    writeln!(out, "{}", line(measured, measured.large, |p| &p.large))?;
    let ratio = Spread::of(measured.pairs.iter().map(|p| p.large.rate / p.small.rate));
    if let Some(ratio) = ratio {
        let reached = if ratio.median >= 0.9 {
            "reached"
        } else {
            "not reached"
        };
        writeln!(
            out,
            "\nlarge / small: {:.3} ({:.3} to {:.3}); goal >= 0.9: {reached}",
            ratio.median, ratio.least, ratio.most
        )?;
    }
    Ok(())
}

/// The medians of the drains into one of the logs.
fn line(measured: &Measured, events: u64, of: fn(&Pair) -> &Drained) -> String {
    let median = |value: &dyn Fn(&Drained) -> Option<f64>| {
        let values = measured.pairs.iter().filter_map(|p| value(of(p)));
        Spread::of(values).map_or(f64::NAN, |s| s.median)
    };
    let million = 1e6 / measured.events_a_drain as f64;
    format!(
        "{:<34} {:>9.0} {:>9.1} {:>9.1} {:>9.1}",
        format!("a log of {events} events"),
        median(&|d| Some(d.rate)),
        median(&|d| Some(d.ingest.cpu_s * million)),
        median(&|d| Some(d.servers.postgres_cpu_s? * million)),
        median(&|d| Some(d.servers.wal_bytes as f64 / d.events as f64)),
    )
}
