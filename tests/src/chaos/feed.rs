//! The producers: they send generated records for as long as the round lasts, each run to the
//! partition that a keyed producer would choose, also while partitions are added.
//!
//! Called by [`super::round`].

use crate::generator::{Record, partition_of};
use crate::oracle::Produced;
use crate::topic::Topic;
use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Producers of a round, each with a client of its own.
const PRODUCERS: u32 = 2;
/// Records that are sent at once.
const BURST: usize = 50;
/// How long a burst may take to be acknowledged before a new client sends it again. A broker that is
/// starting names no broker, and the client library then looks for none any more (its issue 5301).
const ACKNOWLEDGED: Duration = Duration::from_secs(25);
/// Records that may wait to be stored before the producers pause: faults outlast any rate.
const BACKLOG: i64 = 30_000;

/// What all producers of a round share.
#[derive(Debug, Default)]
pub struct Heads {
    heads: Mutex<BTreeMap<i32, i64>>,
    partitions: AtomicI32,
    /// Producers that have more to send.
    at_work: AtomicU32,
}

impl Heads {
    /// Whether no more records will come.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.at_work.load(Ordering::SeqCst) == 0
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
    topic: Topic,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<Result<()>>>,
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
            at_work: AtomicU32::new(PRODUCERS),
            ..Heads::default()
        });
        let (stop, stopped) = watch::channel(false);
        let mut feed = Self {
            heads: Arc::clone(&heads),
            topic: topic.clone(),
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
        self.topic.grow_to(total).await?;
        self.heads.partitions.store(total, Ordering::Relaxed);
        Ok(())
    }

    /// Stops sending, and returns every record that is in the topic.
    ///
    /// # Errors
    /// Where a record was acknowledged and is not there, or the broker does not answer.
    pub async fn finish(self) -> Result<Vec<Produced>> {
        self.stop.send_replace(true);
        for task in self.tasks {
            task.await??;
        }
        let partitions = self.heads.partitions.load(Ordering::SeqCst);
        let produced = self.topic.records(partitions).await?;
        for (partition, head) in self.heads.acknowledged() {
            let there = produced
                .iter()
                .filter(|record| record.partition == partition);
            let count = there.count();
            ensure!(
                count >= usize::try_from(head)?,
                "Kafka acknowledged {head} records of partition {partition} and has {count}"
            );
        }
        Ok(produced)
    }
}

async fn send(
    mut topic: Topic,
    mut records: Vec<Record>,
    pace: Duration,
    heads: Arc<Heads>,
    mut stopped: watch::Receiver<bool>,
    mut stored: watch::Receiver<i64>,
) -> Result<()> {
    let mut known = 0;
    let mut ticks = tokio::time::interval(pace);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for burst in records.chunks_mut(BURST) {
        let room = stored.wait_for(|stored| heads.total() - *stored < BACKLOG);
        tokio::select! {
            _ = stopped.wait_for(|stopped| *stopped) => break,
            room = room => drop(room?),
        }
        ticks.tick().await;
        // What was sent and not acknowledged is sent again: a retry, as producers send it.
        loop {
            let partitions = heads.partitions.load(Ordering::Relaxed);
            for record in &mut *burst {
                record.partition = partition_of(record.hash, partitions);
            }
            if known < partitions {
                // In vain where the client has lost its broker; the next one knows it at once.
                let _known = topic.learn_partitions(partitions).await;
                known = partitions;
            }
            if let Ok(Ok(sent)) = timeout(ACKNOWLEDGED, topic.send(burst)).await {
                heads.acknowledge(&sent);
                break;
            }
            topic = topic.with_own_producer()?;
            known = 0;
        }
    }
    heads.at_work.fetch_sub(1, Ordering::SeqCst);
    Ok(())
}
