//! `runlog stream halted`: the partitions that wait for an operator.

use event_log::generation::{Generation, GenerationFilter};
use serde::Serialize;
use service::exit::Exit;

use super::{Place, advice, read};
use crate::app::App;
use crate::database::connect;
use crate::format::{Time, or_dash};
use crate::output::{Output, text};

/// List the partitions that wait for an operator, and what to do about each
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog stream halted
  runlog stream halted -o json | jq -r '.[] | \"\\(.topic)/\\(.partition) \\(.code)\"'

Codes:
  expired      Kafka no longer has the next offset: retention passed it
  beyond_end   the next offset lies beyond the end of Kafka's log, and no record that was read is missing
  truncated    Kafka's log was cut: the last record that was read is gone, or is another one
  recreated    the topic was deleted and made again
  unreadable   Kafka's copy of the next records cannot be read
  refused      the database refuses a record, and it is not known to be the record's fault
  panic        a bug in ingest
  stored       halted by an older version, which kept no code

Exit codes: 0 none is halted, 1 some are.")]
pub(crate) struct Args {
    /// Only of this topic
    #[arg(long)]
    topic: Option<String>,
}

#[derive(Debug, Serialize)]
struct Halted {
    topic: String,
    partition: i32,
    generation: i32,
    code: String,
    reason: String,
    /// Null = halted by an older version.
    since: Option<Time>,
    next_offset: i64,
    way_out: String,
}

pub(super) async fn run(args: &Args, app: &App) -> anyhow::Result<Exit> {
    let pool = connect(&app.config().database).await?;
    let filter = GenerationFilter {
        topic: args.topic.as_deref(),
        ..GenerationFilter::default()
    };
    let open = read(&pool, filter).await?;
    let halted: Vec<Halted> = open.into_iter().filter_map(Halted::of).collect();
    app.output
        .document(&halted, |output| table(&halted, output))?;
    Ok(if halted.is_empty() {
        Exit::Done
    } else {
        Exit::Problem
    })
}

impl Halted {
    fn of(open: Generation) -> Option<Self> {
        let halt = open.halted?;
        let place = Place {
            topic: open.topic,
            partition: open.partition,
        };
        Some(Self {
            way_out: advice::way_out(&place, &halt),
            topic: place.topic,
            partition: place.partition,
            generation: open.generation,
            code: halt.code,
            reason: halt.reason,
            since: open.halted_at.map(Time),
            next_offset: open.next_offset,
        })
    }
}

fn table(halted: &[Halted], output: &Output) -> String {
    if halted.is_empty() {
        return "No partition is halted.".to_owned();
    }
    let mut table = output.table(&["PARTITION", "CODE", "SINCE", "NEXT", "REASON"]);
    for row in halted {
        table.add_row(vec![
            format!("{}/{}", row.topic, row.partition),
            row.code.clone(),
            or_dash(row.since.as_ref()),
            row.next_offset.to_string(),
            row.reason.clone(),
        ]);
    }
    let ways = halted
        .iter()
        .map(|row| format!("{}/{}: {}", row.topic, row.partition, row.way_out));
    format!(
        "{}\n\n{}",
        text(&table),
        ways.collect::<Vec<_>>().join("\n")
    )
}
