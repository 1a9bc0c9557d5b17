//! `runlog verify --chain`: shows what [`event_log::verify`] finds.

use std::sync::Arc;
use std::time::Duration;

use event_log::verify::{self, Finding, Findings, Found, Place};
use runlog_projectors::verify::applied;
use serde::Serialize;
use sqlx::PgPool;

use crate::database::failed;
use crate::format::count;
use crate::output::{Output, note, text};
use crate::progress::Progress;

/// Runs of the read model that are compared with the log at once.
const RUNS: i64 = 2_000;

/// What was read and found.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    runs: u64,
    events: u64,
    streams: u64,
    /// Days that were sealed.
    seals: u64,
    /// Runs that were retired.
    retired: u64,
    /// Events whose payloads were erased: their contents cannot be compared.
    erased: u64,
    findings: u64,
    /// Of all runs' last events, 64 hexadecimal digits.
    digest: String,
    found: Vec<OfKind>,
}

/// The findings of one kind.
#[derive(Debug, Serialize)]
struct OfKind {
    kind: &'static str,
    count: u64,
    /// The first of them.
    first: Vec<Line>,
}

/// One finding.
#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    place: Named,
    /// runSeq or Kafka offset, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<i64>,
    what: String,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Named {
    Run {
        tenant_id: String,
        run_id: String,
    },
    RunNo {
        run_no: i64,
    },
    Stream {
        topic: String,
        partition: i32,
        generation: i32,
    },
    StreamId {
        stream_id: i64,
    },
    Day {
        day: chrono::NaiveDate,
    },
}

impl Report {
    pub(super) fn is_well(&self) -> bool {
        self.findings == 0
    }
}

/// Verifies the log, and tells of what it finds on stderr.
pub(super) async fn verify(pool: &PgPool, workers: usize) -> anyhow::Result<Report> {
    let mut found = read(pool, workers).await?;
    found.findings.extend(tails(pool).await?);
    tell(&found.findings);
    Ok(report(&found))
}

async fn read(pool: &PgPool, workers: usize) -> anyhow::Result<Found> {
    let progress = Arc::new(verify::Progress::default());
    let options = pool.connect_options();
    let mut work = std::pin::pin!(verify::verify(&options, workers, &progress));
    let mut bar = Progress::start(Some(0), "log: {percent} %");
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    let found = loop {
        tokio::select! {
            found = &mut work => break found.map_err(|error| failed(error, "verify the log"))?,
            _ = tick.tick() => {
                bar.set_length(progress.total());
                bar.at(progress.done(), progress.events());
            }
        }
    };
    let seconds = bar.finish().as_secs_f64().max(0.001);
    note(format!(
        "{} events in {seconds:.1} s, {} events/s",
        count(found.events),
        count((found.events as f64 / seconds) as u64)
    ));
    Ok(found)
}

/// The runs of which the read model has more than the log.
async fn tails(pool: &PgPool) -> anyhow::Result<Findings> {
    let mut connection = pool
        .acquire()
        .await
        .map_err(|error| failed(error, "connect"))?;
    let mut findings = Findings::default();
    let mut after = (String::new(), String::new());
    loop {
        let page = applied(&mut connection, (&after.0, &after.1), RUNS)
            .await
            .map_err(|error| failed(error, "read the read model's runs"))?;
        let Some(last) = page.last() else {
            return Ok(findings);
        };
        after = (last.tenant_id.clone(), last.run_id.clone());
        let beyond = verify::beyond(&mut connection, &page)
            .await
            .map_err(|error| failed(error, "compare the read model's runs with the log"))?;
        findings.extend(beyond);
    }
}

fn tell(findings: &Findings) {
    for (kind, all, first) in findings.by_kind() {
        for finding in first {
            note(finding);
        }
        let more = all - first.len() as u64;
        if more > 0 {
            note(format!(
                "and {} more of kind {}",
                count(more),
                kind.as_str()
            ));
        }
    }
    if findings.count() > 0 {
        note(format!(
            "Findings: {}. docs/operations.md says what each means, and what to do.",
            count(findings.count())
        ));
    }
}

fn report(found: &Found) -> Report {
    let of_kind = |(kind, count, first): (verify::Kind, u64, &[Finding])| OfKind {
        kind: kind.as_str(),
        count,
        first: first.iter().map(line).collect(),
    };
    Report {
        runs: found.runs,
        events: found.events,
        streams: found.streams,
        seals: found.seals,
        retired: found.retired,
        erased: found.erased,
        findings: found.findings.count(),
        digest: found.heads.to_string(),
        found: found.findings.by_kind().map(of_kind).collect(),
    }
}

fn line(finding: &Finding) -> Line {
    let place = match finding.place.clone() {
        Place::Run { tenant_id, run_id } => Named::Run { tenant_id, run_id },
        Place::RunNo(run_no) => Named::RunNo { run_no },
        Place::Stream {
            topic,
            partition,
            generation,
        } => Named::Stream {
            topic,
            partition,
            generation,
        },
        Place::StreamId(stream_id) => Named::StreamId { stream_id },
        Place::Day(day) => Named::Day { day },
    };
    Line {
        place,
        at: finding.at,
        what: finding.what.clone(),
    }
}

pub(super) fn table(report: &Report, output: &Output) -> String {
    let mut table = output.table(&[
        "RUNS", "EVENTS", "STREAMS", "SEALS", "RETIRED", "ERASED", "FINDINGS", "DIGEST",
    ]);
    table.add_row(vec![
        report.runs.to_string(),
        report.events.to_string(),
        report.streams.to_string(),
        report.seals.to_string(),
        report.retired.to_string(),
        report.erased.to_string(),
        report.findings.to_string(),
        report.digest.clone(),
    ]);
    text(&table)
}
