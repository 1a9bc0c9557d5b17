//! `runlog publish`: NDJSON from a file or stdin to the topic, checked line by line.

mod line;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use chrono::Utc;
use run_events::Micros;
use serde::Serialize;
use service::config::Config;
use service::exit::Exit;
use tokio_util::sync::CancellationToken;

use self::line::{Line, checked, unchecked};
use crate::app::App;
use crate::format::count;
use crate::kafka::publisher::{Publisher, Record, RecordTooLarge};
use crate::kafka::topics;
use crate::output::note;
use crate::progress::Progress;

/// Lines that were read and wait to be sent.
const LINES_AHEAD: usize = 64;
/// The longest line, in bytes: `limits.max_record_bytes` cannot be more.
const MAX_LINE: u64 = 64 << 20;

/// Publish events: one JSON object per line
///
/// Fills in eventId (UUIDv7), emittedAt (now) and idempotencyKey (derived) where they are absent,
/// checks each event by the rules of the log, and sends it with its runId as the key. Ends when the
/// brokers have acknowledged everything.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog publish events.ndjson
  generate-events | runlog publish --keep-going
  echo '{\"eventType\":\"RunStarted\",\"tenantId\":\"acme\",\"projectId\":\"shop\",\"environmentId\":\"prod\",
    \"runId\":\"run-1\",\"planId\":\"nightly\",\"planVersion\":\"v1\",\"engineAttemptId\":1,
    \"logicalAttemptId\":1}' | tr -d '\\n' | runlog publish

A line that is refused is named with its number and what is wrong. Publishing a file again is safe
where its lines carry their idempotencyKey or leave it to be derived: what is in the log already is
recognised.

Exit codes: 0 everything was published, 1 a line was refused or the topic is not there,
3 Kafka does not answer.")]
pub(crate) struct Args {
    /// File with one event per line; "-" = stdin
    #[arg(default_value = "-", value_name = "FILE")]
    file: PathBuf,

    /// The topic [default: the first of ingest.topics]
    #[arg(long)]
    topic: Option<String>,

    /// Leave out lines that are refused, and go on
    #[arg(long)]
    keep_going: bool,

    /// Send every line as it is, without filling in or checking anything
    #[arg(long, conflicts_with = "keep_going")]
    unchecked: bool,
}

/// What became of the lines.
#[derive(Debug, Serialize)]
struct Summary {
    topic: String,
    lines: u64,
    published: u64,
    refused: u64,
    seconds: f64,
}

pub(crate) async fn run(args: Args, app: &App) -> anyhow::Result<Exit> {
    let stop = service::shutdown::install();
    let config = app.config().clone();
    let (summary, end) =
        tokio::task::spawn_blocking(move || publish(&args, &config, &stop)).await??;
    app.output.document(&summary, |_| {
        format!(
            "{} lines: {} published to {}, {} refused, in {:.1} s",
            count(summary.lines),
            count(summary.published),
            summary.topic,
            count(summary.refused),
            summary.seconds
        )
    })?;
    Ok(match end {
        End::OfInput if summary.refused == 0 => Exit::Done,
        End::OfInput | End::Refused | End::Stopped => Exit::Problem,
    })
}

/// Why publishing ended.
enum End {
    /// All lines were read.
    OfInput,
    /// A line was refused.
    Refused,
    /// A signal.
    Stopped,
}

fn publish(
    args: &Args,
    config: &Config,
    stop: &CancellationToken,
) -> anyhow::Result<(Summary, End)> {
    let topic = topic_or_default(args.topic.as_deref(), config);
    let (lines, length) = open(&args.file)?;
    topics::require(&config.kafka, &topic)?;
    let mut publisher = Publisher::new(config, &topic)?;
    let mut progress = Progress::start(length, "{bytes}/{total_bytes}");
    let mut summary = Summary {
        topic,
        lines: 0,
        published: 0,
        refused: 0,
        seconds: 0.0,
    };
    let mut bytes = 0;
    let end = loop {
        if stop.is_cancelled() {
            note("Stopped: the lines that follow were not published.");
            break End::Stopped;
        }
        let line = match lines.recv_timeout(Duration::from_millis(50)) {
            Ok(line) => line.context(format!("cannot read line {}", summary.lines + 1))?,
            Err(RecvTimeoutError::Timeout) => {
                publisher.take_reports(Duration::ZERO)?;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => break End::OfInput,
        };
        summary.lines += 1;
        bytes += line.len() as u64;
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        if line.trim_ascii().is_empty() {
            continue;
        }
        if let Err(problem) = send(args.unchecked, config, &mut publisher, line)? {
            summary.refused += 1;
            note(format!("line {}: {problem}", summary.lines));
            if !args.keep_going {
                note("Stopped there; correct the line and publish again, or use --keep-going.");
                break End::Refused;
            }
        }
        progress.at(bytes, summary.lines);
    };
    summary.published = publisher.finish()?;
    summary.seconds = progress.finish().as_secs_f64();
    Ok((summary, end))
}

/// Sends one line; the inner error is what is wrong with that line alone.
fn send(
    as_it_is: bool,
    config: &Config,
    publisher: &mut Publisher,
    line: &[u8],
) -> anyhow::Result<Result<(), String>> {
    let line = if as_it_is {
        Ok(unchecked(line))
    } else {
        checked(
            line,
            Micros::from(Utc::now()),
            config.limits.max_record_bytes,
        )
    };
    let Line { run_id, value } = match line {
        Ok(line) => line,
        Err(rejection) => return Ok(Err(rejection.to_string())),
    };
    let record = Record {
        key: run_id.as_deref(),
        value: &value,
    };
    match publisher.send(&record) {
        Err(error) if error.is::<RecordTooLarge>() => Ok(Err(error.to_string())),
        other => other.map(Ok),
    }
}

/// The topic that was named, or the first configured one.
pub(crate) fn topic_or_default(named: Option<&str>, config: &Config) -> String {
    let first = config.ingest.topics.first();
    let default = first.map_or("run-events", |topic| topic.name.as_str());
    named.unwrap_or(default).to_owned()
}

type Lines = Receiver<io::Result<Vec<u8>>>;

/// Reads lines on a thread of its own, since a read from a terminal or a pipe cannot be interrupted.
/// Also gives the length in bytes where it is known.
fn open(path: &Path) -> anyhow::Result<(Lines, Option<u64>)> {
    let (reader, length): (Box<dyn BufRead + Send>, _) = if path.as_os_str() == "-" {
        (Box::new(BufReader::new(io::stdin())), None)
    } else {
        let file = File::open(path).with_context(|| {
            format!(
                "cannot read {}; give a file, or - for stdin",
                path.display()
            )
        })?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            bail!(
                "{} is a folder; give a file, or - for stdin",
                path.display()
            );
        }
        let length = metadata.is_file().then_some(metadata.len());
        (Box::new(BufReader::with_capacity(1 << 16, file)), length)
    };
    let (sender, lines) = sync_channel(LINES_AHEAD);
    std::thread::Builder::new()
        .name("lines".to_owned())
        .spawn(move || read_lines(reader, MAX_LINE, &sender))
        .map_err(|error| anyhow!(error).context("cannot start a thread to read lines"))?;
    Ok((lines, length))
}

/// Sends each line with its end. A line that is longer than `max_line` bytes ends the reading: it can
/// be no record, and must not fill the memory.
fn read_lines(
    mut reader: impl BufRead,
    max_line: u64,
    lines: &std::sync::mpsc::SyncSender<io::Result<Vec<u8>>>,
) {
    loop {
        let mut line = Vec::new();
        let read = match reader.by_ref().take(max_line).read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) if line.len() as u64 == max_line && !line.ends_with(b"\n") => Err(
                io::Error::other(format!("it is longer than {max_line} bytes")),
            ),
            Ok(_) => Ok(line),
            Err(error) => Err(error),
        };
        let failed = read.is_err();
        // Nobody takes lines any more, or there are no more to give.
        if lines.send(read).is_err() || failed {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::read_lines;

    #[test]
    fn a_line_beyond_the_bound_ends_the_reading_and_those_before_it_are_sent() {
        let (sender, lines) = sync_channel(8);
        read_lines(&b"1234\n12345678\n1\n"[..], 8, &sender);
        drop(sender);
        let lines: Vec<_> = lines.iter().collect();
        assert_eq!(lines.len(), 2);
        assert!(matches!(&lines[0], Ok(line) if line == b"1234\n"));
        assert!(matches!(&lines[1], Err(error) if error.to_string().contains("longer than 8")));
    }

    #[test]
    fn a_last_line_without_an_end_counts() {
        let (sender, lines) = sync_channel(8);
        read_lines(&b"1\n2"[..], 8, &sender);
        drop(sender);
        let lines: Vec<_> = lines.iter().flatten().collect();
        assert_eq!(lines, [b"1\n".to_vec(), b"2".to_vec()]);
    }
}
