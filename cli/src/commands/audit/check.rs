//! `runlog audit check`: whether a proof fits, and is of a seal that somebody kept. Needs no database and no
//! configuration. The file may come from anybody: a line of it is bounded, and nothing in it is trusted.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use chrono::NaiveDate;
use run_events::seal::proof::{Checked, Kept, ProofCheck};
use run_events::seal::read_seals;
use run_events::{Digest, IdempotencyKey};
use serde::Serialize;
use service::exit::Exit;

use crate::output::{Output, note, text};

/// Bytes of a line, and of a file of seals, at most: a record of the largest size and what stands around it.
const MOST: u64 = 80 << 20;

/// Check a proof, without the database, against a seal that was kept
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  runlog audit check proof.jsonl --seal seals.json
  runlog audit check proof.jsonl --seal 8c2ce1779e718f225d446763b64db257a6d2eccf941e9bd70a5f24d81ccce183
  runlog audit check proof.jsonl -o json | jq .fits

Computes every digest of the run's events anew, the run's chain, the way to the root, and the seals, and compares them
with the seal that you have kept. Seals are what `runlog audit seal` or `runlog audit list` wrote with -o json. The proof
holds all seals from its own day on, and any of them will do. Without --seal a file is only compared with itself, which
shows damage, and nothing about who wrote it.

Exit codes: 0 it fits, 1 it does not, 2 the file cannot be read as a proof.")]
pub(crate) struct Args {
    /// The proof: a file, or - for stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The seal that you kept: a file with it, or its digest
    #[arg(long, value_name = "SEALFILE|DIGEST")]
    seal: Option<String>,
}

/// What was checked.
#[derive(Debug, Serialize)]
struct Report {
    fits: bool,
    tenant_id: String,
    run_id: String,
    /// Events that were checked: the run up to here.
    run_seq: i64,
    /// The day of the seal that the run is part of.
    day: Option<NaiveDate>,
    /// The day of the seal that was kept; null = the file was compared with itself alone.
    kept: Option<NaiveDate>,
    /// Events of which only the digest of the content is in the proof.
    withheld: u64,
    problems: u64,
    /// The first of them.
    first: Vec<String>,
}

pub(super) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let read = kept(args.seal.as_deref()).and_then(|kept| Ok((kept, read(args)?)));
    let (kept, checked) = match read {
        Ok(read) => read,
        Err(what) => {
            note(format!("runlog: {what}"));
            return Ok(Exit::Usage);
        }
    };
    let report = report(&checked, kept.as_ref());
    for problem in &report.first {
        note(problem);
    }
    output.document(&report, |output| table(&report, output))?;
    if report.withheld > 0 {
        note(format!(
            "The content of {} events is withheld, of {:?} first: of those only the digest is proved.",
            report.withheld, checked.told.withheld
        ));
    }
    note(match (report.fits, &kept) {
        (false, _) => "It does not fit: this is not what was sealed.",
        (true, None) => {
            "It fits in itself. That proves nothing yet: compare it with a seal that you have kept (--seal)."
        }
        (true, Some(_)) => "It fits: the run was this when the day was sealed.",
    });
    Ok(if report.fits {
        Exit::Done
    } else {
        Exit::Problem
    })
}

fn report(checked: &Checked, kept: Option<&Kept>) -> Report {
    let (mut problems, mut first) = (checked.told.problem_count, checked.told.problems.clone());
    let common = match kept.map(|kept| checked.compare(kept)) {
        None => None,
        Some(Ok(day)) => Some(day),
        Some(Err(what)) => {
            problems += 1;
            first.push(what);
            None
        }
    };
    let head = &checked.head;
    Report {
        fits: problems == 0,
        tenant_id: head.tenant_id.clone(),
        run_id: head.run_id.clone(),
        run_seq: head.run_seq,
        day: head.seals.first().map(|written| written.seal.day),
        kept: common,
        withheld: checked.told.withheld_count,
        problems,
        first,
    }
}

fn table(report: &Report, output: &Output) -> String {
    let mut table = output.table(&["TENANT", "RUN", "EVENTS", "SEALED", "KEPT", "PROBLEMS"]);
    let day = |day: Option<NaiveDate>| crate::format::or_dash(day);
    table.add_row([
        // A file may hold a terminal's commands.
        report.tenant_id.escape_debug().to_string(),
        report.run_id.escape_debug().to_string(),
        report.run_seq.to_string(),
        day(report.day),
        day(report.kept),
        report.problems.to_string(),
    ]);
    text(&table)
}

/// Reads the proof, a line at a time.
fn read(args: &Args) -> Result<Checked, String> {
    let name = args.file.display().to_string();
    let unreadable = |what: String| format!("{name} cannot be read as a proof: {what}");
    let mut input: Box<dyn BufRead> = match name.as_str() {
        "-" => Box::new(io::stdin().lock()),
        _ => Box::new(BufReader::new(
            File::open(&args.file).map_err(|error| unreadable(error.to_string()))?,
        )),
    };
    let mut check = None;
    for number in 1_u64.. {
        let at = |what: String| unreadable(format!("line {number}: {what}"));
        let Some(line) = line(&mut input).map_err(|error| at(error.to_string()))? else {
            break;
        };
        match &mut check {
            None => check = Some(ProofCheck::begin(&line).map_err(|error| at(error.to_string()))?),
            Some(check) => check.event(&line).map_err(|error| at(error.to_string()))?,
        }
    }
    let check = check.ok_or_else(|| unreadable("it is empty".to_owned()))?;
    Ok(check.end())
}

/// The next line; `None` = there is none.
fn line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    input.by_ref().take(MOST).read_until(b'\n', &mut bytes)?;
    if bytes.len() as u64 == MOST && bytes.last() != Some(&b'\n') {
        return Err(io::Error::other(format!("it is longer than {MOST} bytes")));
    }
    if bytes.is_empty() {
        return Ok(None);
    }
    let line = String::from_utf8(bytes).map_err(io::Error::other)?;
    Ok(Some(line))
}

/// The seal that was kept.
fn kept(seal: Option<&str>) -> Result<Option<Kept>, String> {
    let Some(seal) = seal else {
        return Ok(None);
    };
    // As people copy it from paper.
    if let Some(digest) = IdempotencyKey::parse(&seal.trim().to_ascii_lowercase()) {
        return Ok(Some(Kept::Digest(Digest(digest.0))));
    }
    let unreadable =
        |what: String| format!("--seal {seal} is no digest and no file of seals: {what}");
    let file = File::open(seal).map_err(|error| unreadable(error.to_string()))?;
    let mut text = String::new();
    file.take(MOST)
        .read_to_string(&mut text)
        .map_err(|error| unreadable(error.to_string()))?;
    let seals = read_seals(&text).map_err(|error| unreadable(error.to_string()))?;
    Ok(Some(Kept::Seals(seals)))
}
