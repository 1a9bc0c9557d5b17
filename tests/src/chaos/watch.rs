//! Looks at the ledger and the checkpoints many times a second: how long it takes after each fault
//! until everything that was acknowledged before is stored and projected, and offsets that must
//! never fall.
//!
//! Started by [`super::round`], beside the faults.

use super::feed::Heads;
use super::tally::Shared;
use crate::observe;
use crate::topic::Topic;
use sqlx::PgPool;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(100);
/// Pause between two looks at the offsets that the group has in Kafka.
const KAFKA_PAUSE: Duration = Duration::from_secs(2);

/// A fault that has ended, until everything from before it is there.
#[derive(Debug)]
struct Healed {
    name: String,
    at: Instant,
    /// Records acknowledged when it ended.
    before: i64,
    /// What has to be there; `None` until a record was acknowledged after the fault, which shows that
    /// things go on.
    heads: Option<BTreeMap<i32, i64>>,
}

/// What the watch and the faults share.
pub struct Watch {
    /// The database to look at; another one after a failover.
    pub pool: watch::Sender<PgPool>,
    /// Records that the log has taken.
    pub stored: watch::Sender<i64>,
    /// Failovers: the database may then be behind what it was.
    pub failovers: AtomicU64,
    heads: Arc<Heads>,
    healed: Mutex<Vec<Healed>>,
    tally: Shared,
}

impl Watch {
    /// Nothing is watched yet.
    #[must_use]
    pub fn new(pool: PgPool, stored: watch::Sender<i64>, heads: Arc<Heads>, tally: Shared) -> Self {
        Self {
            pool: watch::Sender::new(pool),
            stored,
            failovers: AtomicU64::new(0),
            heads,
            healed: Mutex::default(),
            tally,
        }
    }

    /// A fault has ended now.
    pub fn healed(&self, name: &str) {
        let healed = Healed {
            name: name.to_owned(),
            at: Instant::now(),
            before: self.heads.total(),
            heads: None,
        };
        self.lock().push(healed);
    }

    /// Faults that have ended and whose records are not all there yet.
    #[must_use]
    pub fn open(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Healed>> {
        self.healed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks until dropped.
    pub async fn run(&self) {
        // Per partition the highest stored offset, since this many failovers.
        let mut highest: (u64, BTreeMap<i32, i64>) = (0, BTreeMap::new());
        loop {
            let before = self.failovers.load(Ordering::SeqCst);
            let pool = self.pool.borrow().clone();
            let positions = tokio::time::timeout(Duration::from_secs(2), observe::positions(&pool));
            // Away, which is what the faults are about.
            if let Ok(Ok(positions)) = positions.await {
                if before != highest.0 {
                    highest = (before, BTreeMap::new());
                }
                if before == self.failovers.load(Ordering::SeqCst) {
                    self.compare(&positions, &mut highest.1);
                }
                self.settle(&positions);
                let stored = positions.values().map(|position| position[0]).sum();
                self.stored.send_replace(stored);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// I5: a stored offset never falls.
    fn compare(&self, positions: &BTreeMap<i32, [i64; 4]>, highest: &mut BTreeMap<i32, i64>) {
        for (partition, [stored, ..]) in positions {
            let highest = highest.entry(*partition).or_default();
            if stored < highest {
                self.tally.violation(format!(
                    "partition {partition}: next_offset fell from {highest} to {stored}"
                ));
            }
            *highest = (*highest).max(*stored);
        }
    }

    fn settle(&self, positions: &BTreeMap<i32, [i64; 4]>) {
        let is_there = |healed: &Healed| {
            let is_there = |(partition, head): (&i32, &i64)| {
                let [stored, _, projected, _] =
                    positions.get(partition).copied().unwrap_or_default();
                stored >= *head && projected >= *head
            };
            healed
                .heads
                .as_ref()
                .is_some_and(|heads| heads.iter().all(is_there))
        };
        let goes_on = |before: i64| self.heads.total() > before || self.heads.is_finished();
        let mut open = self.lock();
        for healed in open.iter_mut().filter(|healed| healed.heads.is_none()) {
            healed.heads = goes_on(healed.before).then(|| self.heads.acknowledged());
        }
        let (there, left): (Vec<_>, Vec<_>) = open.drain(..).partition(is_there);
        *open = left;
        drop(open);
        let mut tally = self.tally.lock();
        for healed in there {
            let seconds = healed.at.elapsed().as_secs_f64();
            eprintln!(
                "          lag 0 again, {seconds:.1} s after {}",
                healed.name
            );
            tally.recovery.entry(healed.name).or_default().push(seconds);
        }
    }

    /// Until dropped: no offset that the group shows in Kafka is ahead of the stored one, since it is
    /// written after the transaction. Not told after a failover, which may lose what was stored.
    pub async fn run_kafka(&self, topic: &Topic, group: &str) {
        let mut topic = topic.clone();
        loop {
            topic.partitions = self
                .heads
                .acknowledged()
                .len()
                .try_into()
                .unwrap_or(1)
                .max(1);
            let shown =
                tokio::time::timeout(Duration::from_secs(5), topic.group_offsets(group)).await;
            let pool = self.pool.borrow().clone();
            if let Ok(Ok(shown)) = shown
                && let Ok(positions) = observe::positions(&pool).await
                && self.failovers.load(Ordering::SeqCst) == 0
            {
                for (partition, offset) in shown {
                    let stored = positions.get(&partition).map_or(0, |position| position[0]);
                    if offset > stored {
                        self.tally.violation(format!(
                            "partition {partition}: Kafka was shown {offset}, and {stored} is stored"
                        ));
                    }
                }
            }
            tokio::time::sleep(KAFKA_PAUSE).await;
        }
    }
}
