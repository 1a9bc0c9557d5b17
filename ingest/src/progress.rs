//! What others see of a partition's task while it works: the poll thread (to pause, to show offsets),
//! /readyz and the watchdog. Written by the worker and, for what Kafka has, by the client's statistics.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::memory::Share;
use crate::partitions::TopicPartition;

/// What a task is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Step {
    /// Waits for deliveries, or gathers them.
    Gathering,
    /// Has a batch and waits for one of `ingest.writers`.
    WaitingForWriter,
    /// Judges and appends the batch.
    Appending,
    /// Waits before it tries the batch again.
    BackingOff,
}

impl Step {
    fn from_u8(step: u8) -> Self {
        [
            Self::Gathering,
            Self::WaitingForWriter,
            Self::Appending,
            Self::BackingOff,
        ]
        .into_iter()
        .find(|known| *known as u8 == step)
        .unwrap_or(Self::Gathering)
    }
}

/// The progress of one task.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) partition: TopicPartition,
    /// The memory of the deliveries that are not committed yet.
    pub(crate) memory: Share,
    /// The stored offset.
    stored: AtomicI64,
    /// The offset after the last delivery.
    delivered: AtomicI64,
    step: AtomicU8,
    /// Counts the steps: what does not step stands still, or is in one that lasts.
    steps: AtomicU64,
    /// Why the batch under way is not appended yet, if that is not as it should be.
    trouble: Mutex<Option<String>>,
    /// Where the client library stands in fetching.
    fetched: AtomicI64,
    /// Whether Kafka holds more than that.
    has_more: AtomicBool,
    /// Whether the partition's leader can be reached.
    is_fetchable: AtomicBool,
}

/// What the client's statistics say of a partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InKafka {
    /// One past the last offset that a reader may see.
    pub(crate) end: i64,
    /// Where the client library fetches next.
    pub(crate) fetched: i64,
    /// Whether the partition's leader can be reached.
    pub(crate) is_fetchable: bool,
}

impl Progress {
    pub(crate) fn new(partition: TopicPartition, memory: Share, next_offset: i64) -> Self {
        Self {
            partition,
            memory,
            stored: AtomicI64::new(next_offset),
            delivered: AtomicI64::new(next_offset),
            step: AtomicU8::new(Step::Gathering as u8),
            steps: AtomicU64::new(0),
            trouble: Mutex::default(),
            fetched: AtomicI64::new(next_offset),
            has_more: AtomicBool::new(false),
            is_fetchable: AtomicBool::new(true),
        }
    }

    pub(crate) fn enter(&self, step: Step) {
        self.step.store(step as u8, Ordering::Relaxed);
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn step(&self) -> (Step, u64) {
        let step = Step::from_u8(self.step.load(Ordering::Relaxed));
        (step, self.steps.load(Ordering::Relaxed))
    }

    pub(crate) fn set_stored(&self, offset: i64) {
        self.stored.store(offset, Ordering::Relaxed);
    }

    pub(crate) fn stored(&self) -> i64 {
        self.stored.load(Ordering::Relaxed)
    }

    pub(crate) fn delivered_more(&self, offsets: i64) {
        self.delivered.fetch_add(offsets, Ordering::Relaxed);
    }

    pub(crate) fn delivered(&self) -> i64 {
        self.delivered.load(Ordering::Relaxed)
    }

    pub(crate) fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        let trouble = &self.trouble;
        trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn note_kafka(&self, kafka: InKafka) {
        self.fetched.store(kafka.fetched, Ordering::Relaxed);
        // What the library itself has read counts, not what was delivered: behind the last record of a
        // compacted partition there may be offsets that nobody is told of.
        let has_more = kafka.fetched >= 0 && kafka.fetched < kafka.end;
        self.has_more.store(has_more, Ordering::Relaxed);
        self.is_fetchable
            .store(kafka.is_fetchable, Ordering::Relaxed);
    }

    /// Where the client library fetches next, and whether there is more.
    pub(crate) fn fetching(&self) -> (i64, bool) {
        (
            self.fetched.load(Ordering::Relaxed),
            self.has_more.load(Ordering::Relaxed),
        )
    }

    pub(crate) fn is_fetchable(&self) -> bool {
        self.is_fetchable.load(Ordering::Relaxed)
    }
}
