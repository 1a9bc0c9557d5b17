//! `runlog stream list`: the ledger.

use event_log::generation::{Generation, GenerationFilter};
use serde::Serialize;
use service::exit::Exit;

use super::read;
use crate::app::App;
use crate::database::connect;
use crate::format::{Time, count, or_dash};
use crate::output::{Output, text};

/// List the ledger: what became of every offset of each partition
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog stream list
  runlog stream list --topic run-events --partition 1 --all
  runlog stream list --all -o json | jq '.[] | select(.gap > 0)'

In each row: next - start = appended + duplicates + dead letters + skipped. GAP is the start less the
next offset of the generation before: above 0 are offsets that were never read, below 0 offsets that
are read again. (After a topic was made again its offsets mean other records, and so does the gap.)")]
pub(crate) struct Args {
    /// Only of this topic
    #[arg(long)]
    topic: Option<String>,

    /// Only of partitions with this number
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,

    /// The closed generations too
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Serialize)]
struct Stream {
    topic: String,
    partition: i32,
    generation: i32,
    group_id: String,
    start_offset: i64,
    next_offset: i64,
    appended: i64,
    duplicates: i64,
    dead_lettered: i64,
    skipped: i64,
    gap: Option<i64>,
    owner: Option<String>,
    halted_code: Option<String>,
    halted_reason: Option<String>,
    halted_at: Option<Time>,
    updated_at: Time,
    closed_at: Option<Time>,
}

pub(super) async fn run(args: &Args, app: &App) -> anyhow::Result<Exit> {
    let pool = connect(&app.config().database).await?;
    let filter = GenerationFilter {
        topic: args.topic.as_deref(),
        partition: args.partition,
        closed: args.all,
    };
    let found = read(&pool, filter).await?;
    let streams: Vec<Stream> = found.into_iter().map(Stream::from).collect();
    app.output
        .document(&streams, |output| table(&streams, output))?;
    Ok(Exit::Done)
}

impl From<Generation> for Stream {
    fn from(row: Generation) -> Self {
        let (halted_code, halted_reason) = row.halted.map(|halt| (halt.code, halt.reason)).unzip();
        Self {
            topic: row.topic,
            partition: row.partition,
            generation: row.generation,
            group_id: row.group_id,
            start_offset: row.start_offset,
            next_offset: row.next_offset,
            appended: row.appended,
            duplicates: row.duplicates,
            dead_lettered: row.dead_lettered,
            skipped: row.skipped,
            gap: row.gap,
            owner: row.owner,
            halted_code,
            halted_reason,
            halted_at: row.halted_at.map(Time),
            updated_at: Time(row.updated_at),
            closed_at: row.closed_at.map(Time),
        }
    }
}

impl Stream {
    fn state(&self) -> String {
        match (&self.closed_at, &self.halted_code) {
            (Some(at), _) => format!("closed {at}"),
            (None, Some(code)) => format!("halted: {code}"),
            (None, None) => "open".to_owned(),
        }
    }
}

fn table(streams: &[Stream], output: &Output) -> String {
    if streams.is_empty() {
        return "There are no such streams: ingest has not claimed any.".to_owned();
    }
    let mut table = output.table(&[
        "PARTITION",
        "GENERATION",
        "STATE",
        "START",
        "NEXT",
        "APPENDED",
        "DUPLICATES",
        "DEAD LETTERS",
        "SKIPPED",
        "GAP",
        "OWNER",
    ]);
    for row in streams {
        table.add_row(vec![
            format!("{}/{}", row.topic, row.partition),
            row.generation.to_string(),
            row.state(),
            row.start_offset.to_string(),
            row.next_offset.to_string(),
            count(row.appended),
            count(row.duplicates),
            count(row.dead_lettered),
            count(row.skipped),
            or_dash(row.gap),
            or_dash(row.owner.as_ref()),
        ]);
    }
    text(&table)
}
