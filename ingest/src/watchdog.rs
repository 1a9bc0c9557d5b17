//! Ends the process where something stands still that has work and no known reason to: a bug, a
//! client library that hangs, a deadlock. A supervisor starts the process anew, which loses nothing.
//!
//! [`Watch`] decides, a pure function of what each look saw. [`run`] looks, from a thread of its own,
//! since what hangs may be the runtime or the poll thread; it reads only atomics and writes no log
//! before it has asked for the end, since what hangs may be the log.
//!
//! Faults of the environment are no stalls: a worker that tries its batch again and again moves, as
//! far as this goes, and what cannot be fetched because Kafka is away is excused. A halted partition
//! has no worker. Time counts only while this thread itself runs on time, so that a process that was
//! stopped and continued is not ended for it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::progress::{Progress, Step};
use crate::worker::{SLOW, longest_append};
use crate::{Shared, condition};

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);
/// A look that comes later than this after the one before was kept from it: the time between them is
/// nobody's fault.
const LATE: Duration = Duration::from_secs(3);
/// How long the process may take to end in order, once it is asked to.
const GRACE: Duration = Duration::from_secs(10);
/// Added to what a step may rightly last.
const MARGIN: Duration = Duration::from_secs(20);

/// A thread or task that says that it lives.
#[derive(Debug, Default)]
pub(crate) struct Beat(AtomicU64);

impl Beat {
    pub(crate) fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the watchdog looks at.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    /// Beats with every poll.
    pub(crate) poll_thread: Beat,
    /// Beats every second, from a task.
    pub(crate) runtime: Beat,
    workers: Mutex<Vec<(u64, Weak<Progress>)>>,
}

impl Pulse {
    /// Adds a worker; it is forgotten when it is gone.
    pub(crate) fn watch(&self, worker: u64, progress: &Arc<Progress>) {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.push((worker, Arc::downgrade(progress)));
    }

    fn workers(&self) -> Vec<(u64, Arc<Progress>)> {
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        workers.retain(|(_, progress)| progress.strong_count() > 0);
        let alive = workers
            .iter()
            .map(|(id, progress)| Some((*id, progress.upgrade()?)));
        alive.flatten().collect()
    }
}

/// One thing that ought to move while it has work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Thing {
    PollThread,
    Runtime,
    /// A partition's records on their way into the log.
    Worker(u64),
    /// A partition's records on their way here.
    Fetch(u64),
}

impl Thing {
    /// The higher, the more rests on it.
    fn depth(self) -> u8 {
        match self {
            Self::Runtime => 2,
            Self::PollThread => 1,
            Self::Worker(_) | Self::Fetch(_) => 0,
        }
    }
}

/// What one look saw of a thing.
#[derive(Debug, Clone)]
struct Seen {
    thing: Thing,
    /// Which partition, for people; empty for what has none.
    place: String,
    /// Changes when work is done.
    moved: i64,
    /// Changes when something is tried.
    tried: u64,
    has_work: bool,
    /// Whether a known reason keeps it from moving.
    is_excused: bool,
    /// How long it may stand still without one.
    limit: Duration,
}

/// How long a thing has stood still.
#[derive(Debug, Default)]
struct Still {
    moved: i64,
    tried: u64,
    /// Since work was done, whatever the reason.
    unmoved: Duration,
    /// Since anything happened, without an excuse.
    unexplained: Duration,
}

/// What ends the process.
#[derive(Debug, PartialEq, Eq)]
struct Stall {
    thing: Thing,
    place: String,
    lasted: Duration,
}

/// What all looks so far have seen.
#[derive(Debug, Default)]
struct Watch {
    things: HashMap<Thing, Still>,
}

impl Watch {
    /// Takes a look into account, `passed` after the one before. If something has stood still for its
    /// limit, the answer names what is likely to have kept it from moving.
    fn look(&mut self, passed: Duration, seen: &[Seen]) -> Option<Stall> {
        let passed = if passed < LATE {
            passed
        } else {
            Duration::ZERO
        };
        self.things
            .retain(|thing, _| seen.iter().any(|seen| seen.thing == *thing));
        let mut longest = None;
        for seen in seen {
            let fresh = || Still {
                moved: seen.moved,
                tried: seen.tried,
                ..Still::default()
            };
            let is_known = self.things.contains_key(&seen.thing);
            let still = self.things.entry(seen.thing).or_insert_with(fresh);
            if !is_known {
                continue;
            }
            let unmoved = seen.has_work && seen.moved == still.moved;
            let unexplained = unmoved && seen.tried == still.tried && !seen.is_excused;
            still.unmoved = lasting(still.unmoved, passed, unmoved);
            still.unexplained = lasting(still.unexplained, passed, unexplained);
            (still.moved, still.tried) = (seen.moved, seen.tried);
            if still.unexplained >= seen.limit {
                longest = longest.max(Some(still.unexplained));
            }
        }
        self.blame(longest?, seen)
    }

    /// What is to blame where something has stood still for so long: what hangs, and what hangs because
    /// of it, stop one soon after the other, and not all have the same limit.
    fn blame(&self, longest: Duration, seen: &[Seen]) -> Option<Stall> {
        let stalls = seen.iter().filter_map(|seen| {
            let lasted = self.things.get(&seen.thing)?.unexplained;
            (lasted >= longest / 2).then(|| Stall {
                thing: seen.thing,
                place: seen.place.clone(),
                lasted,
            })
        });
        stalls.max_by_key(|stall| (stall.thing.depth(), stall.lasted))
    }

    /// How long the work that waits longest has not moved.
    fn oldest(&self) -> Duration {
        let of = |(thing, still): (&Thing, &Still)| match thing {
            Thing::Worker(_) | Thing::Fetch(_) => still.unmoved,
            Thing::PollThread | Thing::Runtime => Duration::ZERO,
        };
        self.things.iter().map(of).max().unwrap_or_default()
    }
}

fn lasting(so_far: Duration, passed: Duration, goes_on: bool) -> Duration {
    if goes_on {
        so_far + passed
    } else {
        Duration::ZERO
    }
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = &self.place;
        let (what, look_at) = match self.thing {
            Thing::PollThread => (
                "the thread that reads from Kafka".to_owned(),
                "the log lines before this one, and whether standard error can be written",
            ),
            Thing::Runtime => (
                "the runtime that the workers share".to_owned(),
                "the log lines before this one, and whether standard error can be written",
            ),
            Thing::Worker(_) => (
                format!("the worker of {place}, which holds records that are not appended,"),
                "the log lines of that partition and the sessions in pg_stat_activity",
            ),
            Thing::Fetch(_) => (
                format!("the fetching of {place}, of which Kafka holds more records,"),
                "the partition's leader and the Kafka client's lines in the log",
            ),
        };
        write!(
            f,
            "{what} has stood still for {} s, and no fault of Kafka or PostgreSQL that is known here \
             explains it (ingest.stall_timeout): ending, so that a new process takes over; nothing is \
             lost. Look at {look_at}. If it happens again, please report it",
            self.lasted.as_secs()
        )
    }
}

/// Starts the thread and the runtime's beat. The receiver gets the stall that has to end the process;
/// the thread ends when `stop`'s other end is dropped.
pub(crate) fn start(
    shared: &Arc<Shared>,
    stop: Receiver<()>,
) -> std::io::Result<oneshot::Receiver<anyhow::Error>> {
    let (stalled, stall) = oneshot::channel();
    let beating = Arc::clone(shared);
    tokio::spawn(async move {
        loop {
            beating.pulse.runtime.beat();
            tokio::time::sleep(LOOK).await;
        }
    });
    let shared = Arc::clone(shared);
    std::thread::Builder::new()
        .name("watchdog".to_owned())
        .spawn(move || run(&shared, &stop, stalled))?;
    Ok(stall)
}

fn run(shared: &Shared, stop: &Receiver<()>, stalled: oneshot::Sender<anyhow::Error>) {
    let timeout = shared.config.ingest.stall_timeout;
    let mut watch = Watch::default();
    let mut before = Instant::now();
    while matches!(stop.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout)) {
        let now = Instant::now();
        let passed = now - before;
        before = now;
        let stall = watch.look(passed, &look(shared));
        let oldest = i64::try_from(watch.oldest().as_secs()).unwrap_or(i64::MAX);
        shared.metrics.unmoved_seconds.set(oldest);
        if let Some(stall) = stall
            && !timeout.is_zero()
        {
            // Gone only where the process ends anyway.
            let _ = stalled.send(anyhow::anyhow!("{stall}"));
            std::thread::sleep(GRACE);
            // The part that ends the process in order hangs as well; so may standard error.
            std::process::exit(1);
        }
    }
}

fn look(shared: &Shared) -> Vec<Seen> {
    let config = &shared.config;
    let timeout = config.ingest.stall_timeout;
    let of_beat = |thing, beat: &Beat, may_last: Duration| Seen {
        thing,
        place: String::new(),
        moved: 0,
        tried: beat.count(),
        // Before the first beat it is not started.
        has_work: beat.count() > 0,
        is_excused: false,
        limit: timeout.max(may_last),
    };
    let pulse = &shared.pulse;
    // A revocation waits for the drain.
    let rebalance = config.ingest.drain_timeout + MARGIN;
    let mut seen = vec![
        of_beat(Thing::PollThread, &pulse.poll_thread, rebalance),
        of_beat(Thing::Runtime, &pulse.runtime, Duration::ZERO),
    ];
    let is_kafka_away = !shared.health.is_met(condition::KAFKA);
    let are_writers_free = shared.writers.is_free();
    let append = longest_append(config) + SLOW + MARGIN;
    for (id, progress) in pulse.workers() {
        let (step, tried) = progress.step();
        let has_records = progress.memory.held() > 0;
        let place = progress.partition.to_string();
        let (fetched, has_more) = progress.fetching();
        seen.push(Seen {
            thing: Thing::Worker(id),
            place: place.clone(),
            moved: progress.stored(),
            tried,
            has_work: has_records,
            // Whoever holds the writers is looked at for itself.
            is_excused: step == Step::WaitingForWriter && !are_writers_free,
            limit: match step {
                Step::Appending | Step::BackingOff => timeout.max(append),
                Step::Gathering | Step::WaitingForWriter => timeout,
            },
        });
        seen.push(Seen {
            thing: Thing::Fetch(id),
            place,
            moved: progress.delivered(),
            tried: fetched.unsigned_abs(),
            // With records in hand it may be paused.
            has_work: has_more && !has_records,
            is_excused: is_kafka_away || !progress.is_fetchable(),
            // Nothing is fetched while the poll thread lets partitions go.
            limit: timeout.max(rebalance),
        });
    }
    seen
}

#[cfg(test)]
#[path = "watchdog_tests.rs"]
mod tests;
