//! The producers: they send generated records for as long as the round lasts, each run to the
//! partition that a keyed producer would choose, also while partitions are added.
//!
//! Called by [`super::round`].

use crate::generator::{Record, partition_of};
use crate::oracle::Produced;
use crate::topic::Topic;
use anyhow::Result;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Producers of a round, each with a client of its own.
const PRODUCERS: u32 = 2;
/// Records that are sent at once.
const BURST: usize = 50;
/// Records that may wait to be stored before the producers pause: faults outlast any rate.
const BACKLOG: i64 = 30_000;

/// What all producers of a round share.
#[derive(Debug, Default)]
pub struct Heads {
    heads: Mutex<BTreeMap<i32, i64>>,
    partitions: AtomicI32,
    finished: AtomicBool,
}

impl Heads {
    /// Whether no more records will come.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.finished.load(Ordering::SeqCst)
    }

    /// One past the last acknowledged offset of each partition.
    #[must_use]
    pub fn acknowledged(&self) -> BTreeMap<i32, i64> {
        let heads = self.heads.lock();
        heads.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records acknowledged so far.
    #[must_use]
    pub fn total(&self) -> i64 {
        self.acknowledged().values().sum()
    }

    fn acknowledge(&self, produced: &[Produced]) {
        let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        for record in produced {
            let head = heads.entry(record.partition).or_default();
            *head = (*head).max(record.offset + 1);
        }
    }
}

/// The producers at work.
pub struct Feed {
    /// What they have sent.
    pub heads: Arc<Heads>,
    topics: Vec<Topic>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<Result<Vec<Produced>>>>,
}

impl Feed {
    /// Starts to send `records`, at most `rate` a second altogether. `stored` says how many records
    /// the log has taken.
    ///
    /// # Errors
    /// Where a producer cannot be made.
    pub fn start(
        topic: &Topic,
        records: Vec<Record>,
        rate: u32,
        stored: &watch::Receiver<i64>,
    ) -> Result<Self> {
        let heads = Arc::new(Heads {
            partitions: AtomicI32::new(topic.partitions),
            ..Heads::default()
        });
        let (stop, stopped) = watch::channel(false);
        let mut feed = Self {
            heads: Arc::clone(&heads),
            topics: Vec::new(),
            stop,
            tasks: Vec::new(),
        };
        let mut shares = vec![Vec::new(); PRODUCERS as usize];
        for record in records {
            // Every record of a run, whatever becomes of it, is one producer's.
            shares[(record.hash % PRODUCERS) as usize].push(record);
        }
        let pace = Duration::from_secs(1) * PRODUCERS * BURST as u32 / rate.max(1);
        for share in shares {
            let topic = topic.with_own_producer()?;
            feed.topics.push(topic.clone());
            let (heads, stopped, stored) = (Arc::clone(&heads), stopped.clone(), stored.clone());
            feed.tasks.push(tokio::spawn(send(
                topic, share, pace, heads, stopped, stored,
            )));
        }
        Ok(feed)
    }

    /// Adds a partition to the topic, and sends to it from then on.
    ///
    /// # Errors
    /// Where the broker refuses.
    pub async fn add_partition(&self) -> Result<()> {
        let total = self.heads.partitions.load(Ordering::Relaxed) + 1;
        if let Some(topic) = self.topics.first() {
            topic.grow_to(total).await?;
        }
        for topic in &self.topics {
            topic.learn_partitions(total).await?;
        }
        self.heads.partitions.store(total, Ordering::Relaxed);
        Ok(())
    }

    /// Stops sending and returns all that was acknowledged.
    ///
    /// # Errors
    /// Where a record was not acknowledged.
    pub async fn finish(self) -> Result<Vec<Produced>> {
        self.stop.send_replace(true);
        let mut produced = Vec::new();
        for task in self.tasks {
            produced.extend(task.await??);
        }
        self.heads.finished.store(true, Ordering::SeqCst);
        Ok(produced)
    }
}

async fn send(
    topic: Topic,
    mut records: Vec<Record>,
    pace: Duration,
    heads: Arc<Heads>,
    mut stopped: watch::Receiver<bool>,
    mut stored: watch::Receiver<i64>,
) -> Result<Vec<Produced>> {
    let mut produced = Vec::with_capacity(records.len());
    let mut ticks = tokio::time::interval(pace);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for burst in records.chunks_mut(BURST) {
        let room = stored.wait_for(|stored| heads.total() - *stored < BACKLOG);
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => break,
            room = room => drop(room?),
        }
        ticks.tick().await;
        let partitions = heads.partitions.load(Ordering::Relaxed);
        for record in &mut *burst {
            record.partition = partition_of(record.hash, partitions);
        }
        let sent = topic.send(burst).await?;
        heads.acknowledge(&sent);
        produced.extend(sent);
    }
    Ok(produced)
}
