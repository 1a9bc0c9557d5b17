//! `runlog stream resume`: lets a halted partition go on.

use anyhow::bail;
use service::exit::Exit;

use super::act::{Act, ActArgs, Sources, carry_out, usage};
use super::advice::{Kind, choices};
use super::plan::Plan;
use super::{Place, place};
use crate::app::App;

/// Let a halted partition go on, at an offset that you choose
///
/// Closes the partition's generation and opens the next one at that offset, with a row in
/// event_log.audit, in one transaction. The gap or overlap between the two stays in the ledger, for
/// ever. Reading records again makes duplicates, never a second event.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog stream halted
  runlog stream resume run-events/1 --dry-run
  runlog stream resume run-events/1 --reason 'retention passed during the outage' --yes
  runlog stream resume run-events/1 --at next --reason 'constraint repaired, INC-17'
  runlog stream resume run-events/1 --at 4712 --reason 'skip the broken batch, INC-18' --yes
  runlog stream resume run-events/1 --at earliest --reason 'topic was made again' -o json

Where to go on, by the code of the halt:
  expired                            the default is earliest: what lies before is gone from Kafka
  recreated, truncated, beyond_end   earliest reads all that Kafka has now, and loses nothing;
                                     latest leaves all of it out; you must choose
  unreadable, refused, panic         next tries the same records again, once the cause is mended;
                                     an offset behind the bad record leaves it out; you must choose
The offset must be one that Kafka has. Where offsets are lost or left out for ever, somebody must
agree: at the terminal, or by --yes.

Exit codes: 0 done (or shown, with --dry-run), 1 refused: the partition is not halted, has changed,
or Kafka does not have the offset, 2 usage (also: a choice or --yes is missing), 3 Kafka or
PostgreSQL does not answer.")]
pub(crate) struct Args {
    /// The partition, as run-events/1
    #[arg(value_name = "TOPIC/PARTITION", value_parser = place)]
    place: Place,

    /// Where to go on: next, earliest, latest or an offset
    #[arg(long, value_name = "WHERE", value_parser = at)]
    at: Option<At>,

    #[command(flatten)]
    act: ActArgs,
}

/// Where a halted partition goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Next,
    Earliest,
    Latest,
    Offset(i64),
}

fn at(text: &str) -> Result<At, String> {
    match text {
        "next" => Ok(At::Next),
        "earliest" => Ok(At::Earliest),
        "latest" => Ok(At::Latest),
        _ => match text.parse() {
            Ok(offset) if offset >= 0 => Ok(At::Offset(offset)),
            _ => Err("must be next, earliest, latest or an offset".to_owned()),
        },
    }
}

pub(super) async fn run(args: &Args, app: &App) -> anyhow::Result<Exit> {
    let sources = Sources::gather(app, &args.place).await?;
    let (shown, marks) = (&sources.shown, sources.marks);
    let Some(halt) = &shown.halted else {
        bail!(
            "{} is not halted: ingest reads it by itself; `runlog stream rewind` reads it again from an earlier offset",
            args.place
        );
    };
    let start = match args.at {
        Some(At::Next) => shown.next_offset,
        Some(At::Earliest) => marks.low,
        Some(At::Latest) => marks.high,
        Some(At::Offset(offset)) => offset,
        None if Kind::of(&halt.code) == Kind::Expired => marks.low,
        None => return Err(usage(choices(&args.place, halt, shown.next_offset, marks))),
    };
    let plan = Plan::new(shown, start, marks)?;
    carry_out(Act::Resume, &sources, &plan, &args.act, app).await
}

#[cfg(test)]
mod tests {
    use super::{At, at};

    #[test]
    fn a_place_is_a_word_or_an_offset() {
        assert_eq!(at("next"), Ok(At::Next));
        assert_eq!(at("earliest"), Ok(At::Earliest));
        assert_eq!(at("latest"), Ok(At::Latest));
        assert_eq!(at("0"), Ok(At::Offset(0)));
        for text in ["", "-1", "soon", "1.5", "9223372036854775808"] {
            assert!(at(text).is_err(), "{text}");
        }
    }
}
