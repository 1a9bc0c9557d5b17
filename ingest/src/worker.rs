//! One partition's task: gathers deliveries into batches, appends them, retries what the
//! environment broke. Started by [`crate::group`] for a claim, ended with it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use event_log::{AppendError, Appended, Batch, Claim, FaultClass, StreamWriter};
use futures_util::FutureExt as _;
use service::backoff::Backoff;
use service::config::Config;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::Shared;
use crate::committed::{Committed, Cut};
use crate::gather::{Bounds, Delivery, Gather, Gathered};
use crate::judge::Rules;
use crate::partitions::TopicPartition;
use crate::progress::{InKafka, Progress, Step};
use crate::turns::{Account, Place};

/// An append that takes longer than this is shown in /readyz.
pub(crate) const SLOW: Duration = Duration::from_secs(10);
/// A row may be locked for so long before that is shown: a claim that is being made, for example.
const LOCKED: Duration = Duration::from_secs(2);
/// An append may take as long as this many statements that each run up to their own timeout. The
/// server's limits do not end it where the server is gone and the network does not say so.
const STATEMENTS: u32 = 4;
/// Idempotency keys that the partitions of the process remember together, some 200 bytes each.
const CACHED_KEYS: usize = 200_000;
/// A worker with nothing to append looks this often whether its stream row is as it left it.
const LOOK: Duration = Duration::from_secs(5);
/// After so long a batch that goes on (its records are refused one by one, say) leaves its writer to
/// those that wait, and is committed as far as it is.
const TURN: Duration = Duration::from_millis(200);
const PANICKED: &str = "its records were not appended because of a bug in runlog-ingest, which its log shows: please report it";

/// A handle on a partition's task.
pub(crate) struct Worker {
    /// Tells this worker from an earlier one of the same partition.
    pub(crate) id: u64,
    deliveries: UnboundedSender<Delivery>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    progress: Arc<Progress>,
    claim: Claim,
}

/// Why a worker ended by itself.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The claim is lost, or the stored offset is elsewhere: claim again and go on from there.
    Reclaim(String),
    /// The partition has to wait for an operator.
    Halt(&'static str, String),
    /// The process has to stop.
    Fatal(anyhow::Error),
}

/// What a worker tells the poll thread, at most once.
#[derive(Debug)]
pub(crate) struct Notice {
    pub(crate) partition: TopicPartition,
    pub(crate) worker: u64,
    pub(crate) ended: Ended,
}

impl Worker {
    /// Starts the task for a claim.
    pub(crate) fn start(
        runtime: &Handle,
        shared: Arc<Shared>,
        claim: Claim,
        notices: Sender<Notice>,
    ) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let (deliveries, received) = unbounded_channel();
        let stop = CancellationToken::new();
        let partition = TopicPartition {
            topic: claim.topic.clone(),
            partition: claim.partition,
        };
        let memory = shared.memory.share();
        let progress = Arc::new(Progress::new(partition.clone(), memory, claim.next_offset));
        shared.pulse.watch(id, &progress);
        let task = Task {
            rules: Rules::new(&shared.config, &claim.topic),
            writer: StreamWriter::new(claim.clone())
                .without_waiting()
                .in_turns_of(TURN)
                .with_dead_letter_quota(shared.config.ingest.dead_letters.max_bytes_per_tenant),
            account: Account::default(),
            place: None,
            cut: Cut::default(),
            next: claim.next_offset,
            began: tokio::time::Instant::now(),
            received,
            stop: stop.clone(),
            progress: Arc::clone(&progress),
            shared,
        };
        let task = runtime.spawn(async move {
            // A panic is a bug that the same records may meet again: it stops their partition only.
            let panicked = |_| Some(Ended::Halt("panic", PANICKED.to_owned()));
            let run = AssertUnwindSafe(task.run()).catch_unwind();
            if let Some(ended) = run.await.unwrap_or_else(panicked) {
                // The poll thread is gone only at shutdown, when nobody needs to know.
                let _ = notices.send(Notice {
                    partition,
                    worker: id,
                    ended,
                });
            }
        });
        Self {
            id,
            deliveries,
            stop,
            task,
            progress,
            claim,
        }
    }

    /// Hands over a delivery. A worker that has ended drops it: its notice is on the way, and the
    /// partition will be read again from the stored offset.
    pub(crate) fn deliver(&self, delivery: Delivery) {
        let memory = delivery.memory();
        let offsets = match &delivery {
            Delivery::Record { skipped, .. } => skipped + 1,
            Delivery::Tail { skipped } => *skipped,
            Delivery::End(_) => 0,
        };
        self.progress.memory.take(memory);
        if self.deliveries.send(delivery).is_err() {
            self.progress.memory.give_back(memory);
        }
        self.progress.delivered_more(offsets);
    }

    /// Whether it holds its share of the process's memory: the partition is to be paused.
    pub(crate) fn is_full(&self) -> bool {
        self.progress.memory.is_full()
    }

    /// Whether a partition that was paused may be read again.
    pub(crate) fn has_room(&self) -> bool {
        self.progress.memory.has_room()
    }

    /// Whether the partition's leader can be reached, as far as is known.
    pub(crate) fn is_fetchable(&self) -> bool {
        self.progress.is_fetchable()
    }

    /// Takes note of what Kafka holds of the partition.
    pub(crate) fn note_kafka(&self, kafka: InKafka) {
        self.progress.note_kafka(kafka);
    }

    /// The stored offset.
    pub(crate) fn stored(&self) -> i64 {
        self.progress.stored()
    }

    /// Why the batch under way is not appended yet, if that is not as it should be.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.progress.trouble()
    }

    /// The claim that it works under.
    pub(crate) fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Asks the task to end after the batch under way.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// Waits for the task until the deadline, then drops it where it stands: its transaction is
    /// rolled back, and the next owner reads the batch again. Returns the stored offset.
    pub(crate) async fn ended(self, deadline: tokio::time::Instant) -> i64 {
        let abort = self.task.abort_handle();
        if tokio::time::timeout_at(deadline, self.task).await.is_err() {
            tracing::warn!(
                topic = self.claim.topic,
                partition = self.claim.partition,
                "the batch under way did not end in time and is abandoned; it will be read again"
            );
            abort.abort();
        }
        self.progress.stored()
    }
}

/// The task's own state.
struct Task {
    shared: Arc<Shared>,
    rules: Rules,
    writer: StreamWriter,
    account: Account,
    /// Where there is more to write and others wait: in line already, for the next batch.
    place: Option<Place>,
    cut: Cut,
    /// The stored offset, where the next batch starts.
    next: i64,
    /// When the last batch began.
    began: tokio::time::Instant,
    received: UnboundedReceiver<Delivery>,
    stop: CancellationToken,
    progress: Arc<Progress>,
}

impl Task {
    /// Runs until stopped (`None`) or until it cannot go on.
    async fn run(mut self) -> Option<Ended> {
        loop {
            let first = tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                first = self.received.recv() => first?,
                () = tokio::time::sleep(LOOK) => match self.look().await {
                    Ok(()) => continue,
                    Err(ended) => return Some(ended),
                },
            };
            let started = Instant::now();
            let (gathered, memory, ended) = self.gather(first).await;
            let end = gathered.end;
            if end > gathered.start {
                match self.append_all(gathered, started).await {
                    Ok(true) => {}
                    Ok(false) => return None,
                    Err(ended) => return Some(ended),
                }
            }
            self.next = end;
            self.progress.set_stored(end);
            if ended.is_some() {
                return ended;
            }
            self.progress.memory.give_back(memory);
            self.progress.enter(Step::Gathering);
        }
    }

    /// Finds out, with nothing to append, that the partition was claimed elsewhere or that the
    /// database went back. Any other answer, or none, is left to the next batch.
    async fn look(&self) -> Result<(), Ended> {
        match timeout(LOOK, self.writer.look(&self.shared.pool, self.next)).await {
            Ok(Err(error @ (AppendError::Fenced | AppendError::Moved { .. }))) => {
                let nothing = Batch {
                    start: self.next,
                    end: self.next,
                    skipped: 0,
                    records: Vec::new(),
                };
                self.classed(error, &nothing)
            }
            _ => Ok(()),
        }
    }

    /// Gathers what is there, and waits for more until `batch.linger` after the last batch began, but not where
    /// it is in line. So a record that comes alone goes at once, and under load the batches grow.
    async fn gather(&mut self, first: Delivery) -> (Gathered, usize, Option<Ended>) {
        let settings = &self.shared.config.ingest.batch;
        let bounds = Bounds {
            max_events: settings.max_events,
            max_bytes: settings.max_bytes,
        };
        let linger = tokio::time::sleep_until(self.began + settings.linger);
        tokio::pin!(linger);
        let mut gather = Gather::new(self.next, bounds);
        let mut next = Some(first);
        while let Some(delivery) = next {
            gather.push(delivery);
            if gather.is_full() {
                break;
            }
            next = match self.received.try_recv() {
                Ok(delivery) => Some(delivery),
                // The turn may be there already.
                Err(_) if self.place.is_some() => None,
                Err(_) => tokio::select! {
                    biased;
                    () = self.stop.cancelled() => None,
                    delivery = self.received.recv() => delivery,
                    () = &mut linger => None,
                },
            };
        }
        self.began = tokio::time::Instant::now();
        gather.finish()
    }

    /// Appends the batch in as many turns as it takes; false = stopped before its end.
    async fn append_all(&mut self, gathered: Gathered, started: Instant) -> Result<bool, Ended> {
        let quota = self.shared.config.ingest.dead_letters.max_bytes_per_tenant;
        let mut next = Some(gathered);
        while let Some(gathered) = next {
            let Some((committed, rest)) = self.append(gathered).await? else {
                return Ok(false);
            };
            let claim = self.writer.claim();
            committed.count(claim, &self.shared.metrics, started);
            self.cut.say(claim, &committed.appended.truncated, quota);
            self.progress.set_stored(committed.appended.end);
            if rest.is_some() && self.stop.is_cancelled() {
                return Ok(false);
            }
            next = rest.map(Gathered::unjudged);
        }
        Ok(true)
    }

    /// Appends what a turn is enough for, however often it takes; `None` = stopped while waiting.
    async fn append(&mut self, gathered: Gathered) -> Result<Option<Turned>, Ended> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        // A row that another transaction holds: asked for again and again, without a permit in between.
        let mut locked = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
        let started = Instant::now();
        let mut gathered = gathered;
        let mut failed = false;
        loop {
            let delay = match self.try_append(gathered).await {
                Ok((committed, rest)) => {
                    failpoints::hit("ingest.appended");
                    if failed {
                        self.progress.set_trouble(None);
                        tracing::info!(partition = %self.name(), "appending again");
                    }
                    return Ok(Some((committed, rest)));
                }
                Err((error, batch)) if error.is_locked() && started.elapsed() < LOCKED => {
                    tracing::debug!(partition = %self.name(), %error, "a row is locked; trying again");
                    gathered = Gathered::unjudged(batch);
                    locked.next_delay()
                }
                Err((error, batch)) => {
                    let delays = if error.is_locked() {
                        &mut locked
                    } else {
                        &mut backoff
                    };
                    self.classed(error, &batch)?;
                    gathered = Gathered::unjudged(batch);
                    failed = true;
                    self.shared.metrics.retries.inc();
                    delays.next_delay()
                }
            };
            self.progress.enter(Step::BackingOff);
            tokio::select! {
                () = self.stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(delay) => {}
            }
        }
    }

    /// Judges and appends the batch, or as much of it as a turn is enough for. Both while it has a writer:
    /// events take much more memory than their bytes, and so no more batches than that hold them,
    /// however many wait.
    async fn try_append(&mut self, gathered: Gathered) -> Result<Turned, (AppendError, Batch)> {
        self.progress.enter(Step::WaitingForWriter);
        let shared = Arc::clone(&self.shared);
        let place = match self.place.take() {
            Some(place) => place,
            None => shared.writers.line_up(&self.account),
        };
        let turn = place.turn().await;
        self.progress.enter(Step::Appending);
        self.writer
            .bound_cache(CACHED_KEYS / shared.memory.sharers());
        let (batch, noticed) = self.rules.batch(gathered);
        let _timer = shared.metrics.commit_seconds.start_timer();
        match self.append_once(&batch).await {
            Ok(appended) => {
                let end = appended.end;
                let (batch, rest) = if end < batch.end {
                    let (batch, rest) = batch.parted(end);
                    (batch, Some(rest))
                } else {
                    (batch, None)
                };
                let committed = Committed {
                    batch,
                    appended,
                    noticed,
                };
                if rest.is_some() || !self.received.is_empty() {
                    self.place = turn.again();
                }
                Ok((committed, rest))
            }
            Err(error) => Err((error, batch)),
        }
    }

    async fn append_once(&mut self, batch: &Batch) -> Result<Appended, AppendError> {
        let longest = longest_append(&self.shared.config);
        let (name, start, end) = (self.name(), batch.start, batch.end);
        let result = {
            let append = self.writer.append(&self.shared.pool, batch);
            tokio::pin!(append);
            match timeout(SLOW, &mut append).await {
                Ok(result) => return result,
                Err(_) => {
                    let slow = SLOW.as_secs();
                    let trouble = format!(
                        "appending {name} {start}..{end} takes longer than {slow} s: does PostgreSQL hang?"
                    );
                    tracing::warn!("{trouble}");
                    self.progress.set_trouble(Some(trouble));
                    timeout(longest, append).await
                }
            }
        };
        self.progress.set_trouble(None);
        result.unwrap_or_else(|_| {
            // Whether it was committed is unknown, and so is what it did to its runs.
            self.writer.abandoned();
            let waited = "the database did not answer in time".to_owned();
            Err(sqlx::Error::Protocol(waited).into())
        })
    }

    /// What an error means: `Ok` = try again, for ever.
    fn classed(&self, error: AppendError, batch: &Batch) -> Result<(), Ended> {
        let (start, end) = (batch.start, batch.end);
        match error {
            AppendError::Fenced => {
                self.shared.metrics.fenced.inc();
                Err(Ended::Reclaim(
                    "another process has claimed it, or an operator has resumed or rewound it"
                        .to_owned(),
                ))
            }
            AppendError::Moved { stored, start } => Err(Ended::Reclaim(format!(
                "its stored offset is {stored}, not {start}"
            ))),
            AppendError::Fault {
                // A batch that is cancelled is one record that takes too long: the writer halves others.
                class: FaultClass::Environment | FaultClass::Unique | FaultClass::Cancelled,
                ref source,
                ..
            } => {
                let reason = format!("cannot append {} {start}..{end}: {source}", self.name());
                tracing::warn!("{reason}; trying again");
                self.progress.set_trouble(Some(reason));
                Ok(())
            }
            AppendError::Fault {
                class: FaultClass::Record | FaultClass::Unlisted,
                offset,
                ref source,
            } => {
                let place =
                    offset.map_or_else(|| format!("{start}..{end}"), |offset| offset.to_string());
                Err(Ended::Halt(
                    "refused",
                    format!("the database refuses offset {place}: {source}"),
                ))
            }
            AppendError::Fault {
                class: FaultClass::Fatal,
                ..
            }
            | AppendError::Unaccounted { .. } => {
                let name = self.name();
                Err(Ended::Fatal(
                    anyhow::Error::new(error)
                        .context(format!("cannot append {name} {start}..{end}")),
                ))
            }
        }
    }

    fn name(&self) -> TopicPartition {
        let claim = self.writer.claim();
        TopicPartition {
            topic: claim.topic.clone(),
            partition: claim.partition,
        }
    }
}

/// What a turn has brought into the log, and what is left of the batch, if anything is.
type Turned = (Committed, Option<Batch>);

/// How long one try of a batch may take, at most, once it is slow.
pub(crate) fn longest_append(config: &Config) -> Duration {
    STATEMENTS * config.database.statement_timeout
}
