//! `runlog stream rewind`: has a partition read again.

use anyhow::{anyhow, bail};
use chrono::{DateTime, Utc};
use service::exit::Exit;

use super::act::{Act, ActArgs, Sources, ask_kafka, carry_out};
use super::plan::Plan;
use super::{Place, place};
use crate::app::App;

/// Read a partition again from an earlier offset
///
/// Closes the partition's generation and opens the next one at that offset, with a row in
/// event_log.audit, in one transaction. Events that the log has become duplicates, never second
/// events; a record that was refused and is accepted now is appended, and projected; one that is
/// refused again is a dead letter of the new generation too.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog stream rewind run-events/1 --to 4000 --dry-run
  runlog stream rewind run-events/1 --to 4000 --reason 'tenant allowed since today, INC-21'
  runlog stream rewind run-events/1 --to earliest --reason 'restored from the backup of 02:00'
  runlog stream rewind run-events/1 --to 2026-01-31T02:00:00Z --reason 'limits were raised'

Needs nothing to be stopped: a running ingest notices with its next batch, or within seconds, and goes
on at the offset. It may be any that Kafka still has, below what was read.

Exit codes: 0 done (or shown, with --dry-run), 1 refused: the partition has changed, or the offset is
not one to go back to, 2 usage, 3 Kafka or PostgreSQL does not answer.")]
pub(crate) struct Args {
    /// The partition, as run-events/1
    #[arg(value_name = "TOPIC/PARTITION", value_parser = place)]
    place: Place,

    /// Where to go back to: an offset, earliest, or a time: the first record from then on
    #[arg(long, value_name = "OFFSET|earliest|TIME", value_parser = to)]
    to: To,

    #[command(flatten)]
    act: ActArgs,
}

/// Where a partition goes back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    Earliest,
    Offset(i64),
    Time(DateTime<Utc>),
}

fn to(text: &str) -> Result<To, String> {
    if text == "earliest" {
        return Ok(To::Earliest);
    }
    if let Ok(offset) = text.parse::<i64>()
        && offset >= 0
    {
        return Ok(To::Offset(offset));
    }
    DateTime::parse_from_rfc3339(text)
        .map(|time| To::Time(time.to_utc()))
        .map_err(|_| "must be an offset, earliest, or a time as 2026-01-31T02:00:00Z".to_owned())
}

pub(super) async fn run(args: &Args, app: &App) -> anyhow::Result<Exit> {
    let sources = Sources::gather(app, &args.place).await?;
    let (shown, marks) = (&sources.shown, sources.marks);
    let start = match args.to {
        To::Earliest => marks.low,
        To::Offset(offset) => offset,
        To::Time(time) => first_from(app, &args.place, time).await?,
    };
    if start >= shown.next_offset {
        bail!(
            "{} has read up to offset {}, so that from {start} on there is nothing to read again; \
             a rewind never leaves offsets out (`runlog stream resume` can, for a halted partition)",
            args.place,
            shown.next_offset
        );
    }
    let plan = Plan::new(shown, start, marks)?;
    carry_out(Act::Rewind, &sources, &plan, &args.act, app).await
}

/// The offset of the first record with this time or a later one.
async fn first_from(app: &App, place: &Place, time: DateTime<Utc>) -> anyhow::Result<i64> {
    let at = time.timestamp_millis();
    let found = ask_kafka(app, place, move |probe, topic, partition| {
        probe.offset_from(topic, partition, at)
    });
    found.await?.ok_or_else(|| {
        anyhow!("{place} has no record of {time} or later: there is nothing to read again")
    })
}

#[cfg(test)]
mod tests {
    use super::{To, to};

    #[test]
    fn a_place_to_go_back_to_is_a_word_an_offset_or_a_time() {
        assert_eq!(to("earliest"), Ok(To::Earliest));
        assert_eq!(to("17"), Ok(To::Offset(17)));
        let time = to("1970-01-01T01:00:01+01:00");
        assert!(
            matches!(time, Ok(To::Time(time)) if time.timestamp_millis() == 1_000),
            "{time:?}"
        );
        for text in ["", "latest", "-1", "2026-01-31", "yesterday"] {
            assert!(to(text).is_err(), "{text}");
        }
    }
}
