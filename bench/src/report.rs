//! The table of `compare`, and its file. Called by `compare`; `goals` says what is reached.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

use crate::compare::{Measured, Pair};
use crate::meter::Consumed;
use crate::program::Used;
use crate::stats::Spread;

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
            "{:<26} {:>9.0} {:<34} {:>8} {:>9} {:>6} {:>9} {:>9}",
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

/// Prints the table and writes the file.
///
/// # Errors
/// Where the file cannot be written.
pub(crate) fn print(measured: &Measured, json: &Path) -> anyhow::Result<()> {
    let rows = rows(&measured.pairs);
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
    write_json(
        json,
        &File {
            measured,
            rows: &rows,
        },
    )
}

#[derive(Serialize)]
struct File<'a> {
    #[serde(flatten)]
    measured: &'a Measured,
    rows: &'a [Row],
}

fn heading(measured: &Measured) -> String {
    let load = &measured.load;
    format!(
        "{} events, 20 a run, {} runs at once, {} records of {:.0} bytes, {} partitions, {:?} event ids; \
         medians of {} pairs\n\n{:<26} {:>9} {:<34} {:>8} {:>9} {:>6} {:>9} {:>9}\n{:<26} {:>9} {:<34} {:>25} {:>9} {:>9}\n",
        load.events,
        load.options.active,
        load.records,
        load.mean_bytes,
        load.partitions,
        load.options.event_ids,
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

/// Writes figures as JSON.
///
/// # Errors
/// Where the file cannot be written.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(value)?;
    fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
}
