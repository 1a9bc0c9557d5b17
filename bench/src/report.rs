//! The table of `compare`, and its file. Called by `compare`; `goals` says what is reached.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::compare::{Measured, Pair};
use crate::database::Size;
use crate::goals::{self, Goal};
use crate::idle::Idle;
use crate::latency::Latency;
use crate::meter::Consumed;
use crate::program::Used;
use crate::stats::Spread;

/// A table or index of fewer bytes has only its first pages.
const WORTH_A_LINE: i64 = 256 * 1024;

/// One line of the table: the same measurement of each pair.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) name: String,
    /// Events per second.
    pub(crate) rate: Spread,
    /// Its rate as a part of another one's of the same pair, and whose.
    pub(crate) ratio: Option<(Spread, &'static str)>,
    /// CPU seconds per million events: of the program, of PostgreSQL, of Kafka.
    pub(crate) program_cpu: Option<Spread>,
    /// As above.
    pub(crate) postgres_cpu: Option<Spread>,
    /// As above.
    pub(crate) kafka_cpu: Option<Spread>,
    /// The most resident memory of a program, in bytes.
    pub(crate) peak_bytes: Option<Spread>,
    /// Write-ahead log per event, in bytes.
    pub(crate) wal_bytes: Option<Spread>,
}

/// What a row is made of, of one pair.
struct Figures<'a> {
    rate: f64,
    events: u64,
    beside: Option<f64>,
    used: Vec<Used>,
    servers: &'a Consumed,
}

impl Row {
    fn of<'a>(
        name: &str,
        of: Option<&'static str>,
        pairs: &'a [Pair],
        figures: impl Fn(&'a Pair) -> Option<Figures<'a>>,
    ) -> Option<Self> {
        let figures: Vec<Figures<'_>> = pairs.iter().filter_map(figures).collect();
        let spread = |value: &dyn Fn(&Figures<'_>) -> Option<f64>| {
            Spread::of(figures.iter().filter_map(value))
        };
        let million = |f: &Figures<'_>, seconds: f64| seconds / f.events as f64 * 1e6;
        let used = |f: &Figures<'_>| f.used.iter().map(|u| u.cpu_s).sum::<f64>();
        let ratio = spread(&|f| Some(f.rate / f.beside?));
        Some(Self {
            name: name.to_owned(),
            rate: spread(&|f| Some(f.rate))?,
            ratio: ratio.zip(of),
            program_cpu: spread(&|f| (!f.used.is_empty()).then(|| million(f, used(f)))),
            postgres_cpu: spread(&|f| Some(million(f, f.servers.postgres_cpu_s?))),
            kafka_cpu: spread(&|f| Some(million(f, f.servers.kafka_cpu_s?))),
            peak_bytes: spread(&|f| f.used.iter().map(|u| u.peak_bytes as f64).reduce(f64::max)),
            wal_bytes: spread(&|f| Some(f.servers.wal_bytes as f64 / f.events as f64)),
        })
    }

    fn line(&self) -> String {
        let number = |s: Option<Spread>, scale: f64| {
            s.map_or_else(|| "-".to_owned(), |s| format!("{:.1}", s.median / scale))
        };
        let ratio = self.ratio.map_or_else(String::new, |(s, of)| {
            format!("{:.2} ({:.2} to {:.2}) of {of}", s.median, s.least, s.most)
        });
        format!(
            "{:<24} {:>9.0}  {:<34} {:>7} {:>8} {:>6} {:>8} {:>9}",
            self.name,
            self.rate.median,
            ratio,
            number(self.program_cpu, 1.0),
            number(self.postgres_cpu, 1.0),
            number(self.kafka_cpu, 1.0),
            number(self.peak_bytes, f64::from(1 << 20)),
            number(self.wal_bytes, 1.0),
        )
    }
}

/// The rows of the table.
pub(crate) fn rows(pairs: &[Pair]) -> Vec<Row> {
    let mut rows = vec![
        Row::of("floor: COPY", None, pairs, |p| {
            Some(Figures {
                rate: p.floor.rate,
                events: p.floor.events,
                beside: None,
                used: Vec::new(),
                servers: &p.floor.servers,
            })
        }),
        Row::of("ingest: drain", Some("the floor"), pairs, |p| {
            Some(Figures {
                rate: p.drain.rate,
                events: p.drain.events,
                beside: Some(p.floor.rate),
                used: vec![p.drain.ingest],
                servers: &p.drain.servers,
            })
        }),
    ];
    let names = pairs
        .first()
        .map(|p| p.projections.keys())
        .into_iter()
        .flatten();
    rows.extend(names.map(|name| {
        Row::of(&format!("{name}: catch-up"), Some("ingest"), pairs, |p| {
            let caught_up = p.projections.get(name)?;
            Some(Figures {
                rate: caught_up.rate,
                events: caught_up.events,
                beside: Some(p.drain.rate),
                used: vec![caught_up.projectors],
                servers: &caught_up.servers,
            })
        })
    }));
    rows.push(Row::of("all together", Some("ingest"), pairs, |p| {
        Some(Figures {
            rate: p.together.drained.rate,
            events: p.together.drained.events,
            beside: Some(p.drain.rate),
            used: vec![p.together.drained.ingest, p.together.projectors],
            servers: &p.together.drained.servers,
        })
    }));
    rows.into_iter().flatten().collect()
}

/// Prints the tables and writes the file.
///
/// # Errors
/// Where the file cannot be written.
pub(crate) fn print(measured: &Measured, json: &Path) -> anyhow::Result<()> {
    let rows = rows(&measured.pairs);
    let goals = goals::judge(measured, &rows);
    let mut out = std::io::stdout().lock();
    write!(
        out,
        "\n{}\n\n{}",
        measured.machine.lines(),
        heading(measured)
    )?;
    for row in &rows {
        writeln!(out, "{}", row.line())?;
    }
    write!(out, "\n{}", sizes(&measured.sizes, measured.load.events))?;
    write!(out, "\n{}", latencies(&measured.latency))?;
    write!(out, "\n{}", idle(&measured.idle))?;
    writeln!(out, "\n{:<66} {:>10}", "goal", "measured")?;
    for goal in &goals {
        writeln!(out, "{}", goal.line())?;
    }
    let file = File {
        measured,
        rows: &rows,
        goals: &goals,
    };
    write_json(json, &file)
}

#[derive(Serialize)]
struct File<'a> {
    #[serde(flatten)]
    measured: &'a Measured,
    rows: &'a [Row],
    goals: &'a [Goal],
}

fn heading(measured: &Measured) -> String {
    let load = &measured.load;
    let batch = measured.pairs.first().map_or(0, |pair| {
        pair.floor.events / (pair.floor.batches as u64).max(1)
    });
    format!(
        "{} events, 20 a run, {} runs at once; {} records of {:.0} bytes on average in {} partitions; {:?} event ids; \
         {} connections;\nbatches of {batch} on average; medians of {} pairs\n\n\
         {:<24} {:>9}  {:<34} {:>7} {:>8} {:>6} {:>8} {:>9}\n{:<24} {:>9}  {:<34} {:>23} {:>8} {:>9}\n",
        load.events,
        load.options.active,
        load.records,
        load.mean_bytes,
        load.partitions,
        load.options.event_ids,
        measured.machine.writers,
        measured.pairs.len(),
        "",
        "events/s",
        "ratio (least to most)",
        "program",
        "Postgres",
        "Kafka",
        "peak MiB",
        "WAL bytes",
        "",
        "",
        "",
        "CPU s per million",
        "",
        "per event"
    )
}

fn sizes(sizes: &[Size], events: u64) -> String {
    let each = |size: &Size| size.bytes as f64 / events as f64;
    let line = |name: &str, bytes: f64| format!("{name:<72} {bytes:>7.1}\n");
    let mut text = format!(
        "{:<64} {:>15}\n",
        "table, or table: index", "bytes per event"
    );
    for size in sizes.iter().filter(|size| size.bytes >= WORTH_A_LINE) {
        let name = match &size.index {
            Some(index) => format!("{}: {index}", size.table),
            None => size.table.clone(),
        };
        text += &line(&name, each(size));
    }
    let of_log = sizes.iter().filter(|s| s.table.starts_with("event_log."));
    text += &line("event_log in all", of_log.map(each).sum());
    text + &line("everything", sizes.iter().map(each).sum())
}

fn latencies(latencies: &[Latency]) -> String {
    let mut text = format!(
        "{:<46} {:>9} {:>9} {:>9} {:>9}\n",
        "latency in ms", "p50", "p99", "p99.9", "most"
    );
    for latency in latencies {
        for (what, q) in [
            ("acknowledged to the log", latency.acked_to_log),
            ("acknowledged to run_current", latency.acked_to_run_current),
            ("intended to acknowledged", latency.intended_to_acked),
            ("intended to the log", latency.intended_to_log),
            ("from look to look", latency.looks),
        ] {
            let what = format!("{}/s: {what}", latency.rate);
            text += &format!(
                "{what:<46} {:>9.1} {:>9.1} {:>9.1} {:>9.1}\n",
                q.p50, q.p99, q.p999, q.max
            );
        }
        text += &format!("{}\n", cpu_at_a_rate(latency));
    }
    text
}

/// Per million records, those of the warm-up included.
fn cpu_at_a_rate(latency: &Latency) -> String {
    let million = 1e6 / latency.sent as f64;
    let cpu = |s: Option<f64>| s.map_or_else(|| "-".to_owned(), |s| format!("{:.0}", s * million));
    let [ingest, projectors] = latency.programs_cpu_s;
    format!(
        "{}/s: CPU s per million: ingest {}, projectors {}, PostgreSQL {} ({} of it the observer's), Kafka {}",
        latency.rate,
        cpu(Some(ingest)),
        cpu(Some(projectors)),
        cpu(latency.servers.postgres_cpu_s),
        cpu(latency.observer_cpu_s),
        cpu(latency.servers.kafka_cpu_s),
    )
}

fn idle(idle: &Idle) -> String {
    let cpu = |cpu: Option<f64>| cpu.map_or_else(|| "-".to_owned(), |c| format!("{:.1}", c * 1e3));
    let statements = idle.statements_per_second();
    format!(
        "idle, per second: CPU ms: ingest {}, projectors {}, PostgreSQL {}, Kafka {}; WAL {:.0} bytes; \
         {} statements in {:.1} transactions\n",
        cpu(Some(idle.ingest_cpu)),
        cpu(Some(idle.projectors_cpu)),
        cpu(idle.postgres_cpu),
        cpu(idle.kafka_cpu),
        idle.wal_bytes,
        statements.map_or_else(|| "-".to_owned(), |s| format!("{s:.1}")),
        idle.transactions
    )
}

/// Writes figures as JSON.
///
/// # Errors
/// Where the file cannot be written.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}
