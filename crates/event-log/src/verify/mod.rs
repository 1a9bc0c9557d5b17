//! Whether the log is what was appended, as far as the log itself can tell: tamper evidence. Called by
//! `runlog verify --chain`.
//!
//! Every run is read once in runSeq order ([`log`]) and judged by a pure part ([`run`]): the sequence,
//! each content digest, each link of the chain. Every stream is read once in offset order and compared
//! with its row in the ledger ([`ledger`]); days that were sealed are compared with their seals
//! ([`seals`]). All is read in short statements that are right whatever is appended meanwhile. Somebody
//! with a superuser's rights who computes the chains *and* the ledger anew is found where days were
//! sealed; who computes the seals anew as well, by a seal that was kept outside. Runs that
//! were retired are judged by their tombstones ([`retired`]).

mod applied;
mod finding;
mod heads;
mod ledger;
mod log;
mod retired;
mod row;
mod run;
#[cfg(test)]
mod run_tests;
mod seals;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

pub use applied::{Applied, beyond};
pub use finding::{Finding, Findings, Kind, Place, TOLD};
pub use heads::Heads;
use ledger::Stream;
use log::LogReader;

use crate::seal::{self, Stored};

/// Run numbers that a worker takes at once.
const RUNS: i64 = 200;
/// Runs without events that are looked up at once among the dead letters.
const REFUSED: usize = 10_000;

/// What was read and found.
#[derive(Debug, Default)]
pub struct Found {
    /// Runs that have events.
    pub runs: u64,
    /// Events of those runs.
    pub events: u64,
    /// Streams that were compared with the ledger.
    pub streams: u64,
    /// Days that were compared with their seals.
    pub seals: u64,
    /// Runs that were retired: the log has their tombstones.
    pub retired: u64,
    /// Events whose payloads were erased: their contents cannot be compared with their digests.
    pub erased: u64,
    /// What is wrong.
    pub findings: Findings,
    /// Of all runs' heads, the retired ones' included: retention does not change it.
    pub heads: Heads,
    /// Runs without events, not yet explained.
    empty_runs: Vec<i64>,
}

impl Found {
    fn merge(&mut self, other: Self) {
        self.runs += other.runs;
        self.events += other.events;
        self.streams += other.streams;
        self.seals += other.seals;
        self.retired += other.retired;
        self.erased += other.erased;
        self.findings.extend(other.findings);
        self.heads.merge(other.heads);
        self.empty_runs.extend(other.empty_runs);
    }
}

/// How far a verification is. Every event is read twice, in its run and in its stream, and once more where
/// its day was sealed.
#[derive(Debug, Default)]
pub struct Progress {
    total: AtomicI64,
    judged: AtomicI64,
    counted: AtomicI64,
    of_days: seal::Progress,
}

impl Progress {
    /// Readings that there were to do when it began.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed).unsigned_abs()
    }

    /// Readings that are done.
    pub fn done(&self) -> u64 {
        let counted = self.counted.load(Ordering::Relaxed).unsigned_abs();
        self.events() + counted + self.of_days.events()
    }

    /// Events whose digests were computed.
    pub fn events(&self) -> u64 {
        self.judged.load(Ordering::Relaxed).unsigned_abs()
    }

    fn judged(&self, events: i64) {
        self.judged.fetch_add(events, Ordering::Relaxed);
    }

    fn counted(&self, events: i64) {
        self.counted.fetch_add(events, Ordering::Relaxed);
    }
}

/// What there was to do when the verification began, and what of it is taken.
struct Work {
    last_run: i64,
    next_run: AtomicI64,
    streams: Vec<Stream>,
    next_stream: AtomicUsize,
    seals: Vec<Stored>,
    next_seal: AtomicUsize,
    progress: Arc<Progress>,
}

impl Work {
    /// The next range of runs: above the first number and up to the second.
    fn take_runs(&self) -> Option<(i64, i64)> {
        let end = |after: i64| after.saturating_add(RUNS).min(self.last_run);
        let take = |after: i64| (after < self.last_run).then(|| end(after));
        let taken = self
            .next_run
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.ok().map(|after| (after, end(after)))
    }
}

/// Verifies the whole log over `workers` connections of its own. Reads only; it may be dropped at any
/// point.
///
/// # Errors
/// The database's.
pub async fn verify(
    options: &PgConnectOptions,
    workers: usize,
    progress: &Arc<Progress>,
) -> Result<Found, sqlx::Error> {
    let mut connection = connect(options).await?;
    retired::hold(&mut connection).await?;
    let streams = ledger::streams(&mut connection).await?;
    let seals = seal::seals(&mut connection, None).await?;
    progress
        .total
        .store(readings(&streams, &seals), Ordering::Relaxed);
    let mut found = Found::default();
    seals::chain(&seals, &mut found);
    let (first_run, last_run) = run_numbers(&mut connection).await?;
    let work = Arc::new(Work {
        last_run,
        next_run: AtomicI64::new(first_run.saturating_sub(1)),
        streams,
        next_stream: AtomicUsize::new(0),
        seals,
        next_seal: AtomicUsize::new(0),
        progress: Arc::clone(progress),
    });
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..workers {
        let (options, work) = (options.clone(), Arc::clone(&work));
        tasks.spawn(async move { worker(&options, &work).await });
    }
    while let Some(ended) = tasks.join_next().await {
        let ended = ended.map_err(|error| sqlx::Error::Protocol(error.to_string()))?;
        found.merge(ended?);
    }
    ledger::unknown_streams(&mut connection, &mut found).await?;
    unexplained(&mut connection, &mut found).await?;
    retired::runs(&mut connection, &mut found).await?;
    connection.close().await?;
    Ok(found)
}

fn readings(streams: &[Stream], seals: &[Stored]) -> i64 {
    let of_streams: i64 = streams.iter().map(|stream| stream.appended).sum();
    let of_days = seals.iter().map(|stored| stored.written.seal.events);
    let of_days = of_days.fold(0_u64, u64::saturating_add);
    let of_days = i64::try_from(of_days).unwrap_or(i64::MAX);
    of_streams.saturating_mul(2).saturating_add(of_days)
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    let mut connection = PgConnection::connect_with(options).await?;
    // A plan that was made for any range would not be made for a narrow one, and one that sorts reads all
    // of a long run again for each page. Everything that is ordered here has an index in that order.
    sqlx::raw_sql("SET plan_cache_mode = force_custom_plan; SET enable_sort = off; SET enable_incremental_sort = off")
        .execute(&mut connection)
        .await?;
    Ok(connection)
}

/// The first and the last run number that a run or an event has; (1, 0) where there is none.
async fn run_numbers(connection: &mut PgConnection) -> Result<(i64, i64), sqlx::Error> {
    sqlx::query_as(
        "SELECT coalesce(least(run.first, event.first), 1), coalesce(greatest(run.last, event.last), 0)
         FROM (SELECT min(run_no) AS first, max(run_no) AS last FROM event_log.run) AS run,
              (SELECT min(run_no) AS first, max(run_no) AS last FROM event_log.event) AS event",
    )
    .fetch_one(connection)
    .await
}

/// Takes ranges of runs, then streams, then sealed days, until there are no more.
async fn worker(options: &PgConnectOptions, work: &Work) -> Result<Found, sqlx::Error> {
    let mut connection = connect(options).await?;
    let mut found = Found::default();
    let mut log = LogReader::new(&mut connection, &work.progress);
    while let Some((after, to)) = work.take_runs() {
        if !log.range(after, to, &mut found).await? {
            // Numbers that were drawn and not used may be many.
            let next = log.next_run(to).await?;
            let before = next.map_or(work.last_run, |next| next.saturating_sub(1));
            work.next_run.fetch_max(before, Ordering::Relaxed);
        }
    }
    loop {
        let next = work.next_stream.fetch_add(1, Ordering::Relaxed);
        let Some(stream) = work.streams.get(next) else {
            break;
        };
        ledger::stream(&mut connection, stream, &work.progress, &mut found).await?;
    }
    loop {
        let next = work.next_seal.fetch_add(1, Ordering::Relaxed);
        let Some(stored) = work.seals.get(next) else {
            break;
        };
        seals::day(&mut connection, stored, &work.progress.of_days, &mut found).await?;
    }
    connection.close().await?;
    Ok(found)
}

/// Runs without events that no tombstone and no dead letter explains. What the log cannot tell apart stays unsaid: a run
/// whose events were deleted and of which a record was refused, too.
async fn unexplained(connection: &mut PgConnection, found: &mut Found) -> Result<(), sqlx::Error> {
    found.empty_runs.sort_unstable();
    for runs in std::mem::take(&mut found.empty_runs).chunks(REFUSED) {
        let runs: Vec<(i64, String, String)> =
            sqlx::query_as(include_str!("../sql/verify_refused_runs.sql"))
                .bind(runs)
                .fetch_all(&mut *connection)
                .await?;
        for (number, tenant_id, run_id) in runs {
            found.findings.push(Finding {
                kind: Kind::Run,
                place: Place::Run { tenant_id, run_id },
                at: None,
                what: "the log has no event of it, and no refused record that explains it"
                    .to_owned(),
                number,
            });
        }
    }
    Ok(())
}
