//! A Kafka record on its way into the log, the batch it travels in, and what became of it.

use chrono::{DateTime, Utc};
use run_events::{Reason, Rejection, RunEvent};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// A record's header. Names are bytes on the wire: a producer can send one that is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The name, without Kafka's terminating NUL.
    pub name: Vec<u8>,
    /// The value; `None` = null.
    pub value: Option<Vec<u8>>,
}

/// One record with its bytes, which a dead letter keeps, and its verdict so far.
#[derive(Debug, Clone)]
pub struct Record {
    /// The Kafka offset.
    pub offset: i64,
    /// The record's timestamp in milliseconds since 1970; `None` where the broker has none.
    pub timestamp_ms: Option<i64>,
    /// The key; `None` = null.
    pub key: Option<Vec<u8>>,
    /// The value; `None` = a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers, in order.
    pub headers: Vec<Header>,
    /// The valid event in it, or why there is none.
    pub verdict: Result<RunEvent, Rejection>,
}

impl Record {
    /// See [`record_digest`].
    pub fn digest(&self) -> [u8; 32] {
        let (key, value) = (self.key.as_deref(), self.value.as_deref());
        record_digest(self.timestamp_ms, key, value)
    }
}

/// SHA-256 over a record's timestamp, key and value, each with its length: the same offset of a
/// recreated topic holds a record with another digest.
pub fn record_digest(
    timestamp_ms: Option<i64>,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(timestamp_ms.unwrap_or(-1).to_be_bytes());
    for part in [key, value] {
        let length = part.map_or(-1, |bytes| bytes.len() as i64);
        hash.update(length.to_be_bytes());
        hash.update(part.unwrap_or_default());
    }
    hash.finalize().into()
}

/// Consecutive offsets of one partition: what one transaction appends.
#[derive(Debug)]
pub struct Batch {
    /// The first offset of the batch: the stream's stored `next_offset`.
    pub start: i64,
    /// One past the last offset of the batch.
    pub end: i64,
    /// Offsets in between that hold no record for a reader, counted where the records arrived.
    pub skipped: i64,
    /// The records in offset order.
    pub records: Vec<Record>,
}

impl Batch {
    /// Whether every offset of the batch is a record or was counted as skipped, in order.
    pub(crate) fn is_accounted(&self) -> bool {
        let in_range = |r: &Record| (self.start..self.end).contains(&r.offset);
        self.end - self.start == self.skipped + self.records.len() as i64
            && self.records.iter().all(in_range)
            && self.records.windows(2).all(|w| w[0].offset < w[1].offset)
    }
}

/// The event that a key already stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Original {
    /// Its identity.
    pub event_id: Uuid,
    /// Its place in the run.
    pub run_seq: i64,
    /// When the log took it.
    pub persisted_at: DateTime<Utc>,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is an event of the log.
    Appended {
        /// Its place in the run.
        run_seq: i64,
    },
    /// The log held it already; nothing was inserted.
    Duplicate(Original),
    /// The log holds its key with other content; it is a dead letter.
    Conflict(Original),
    /// It is a dead letter for this reason.
    DeadLetter(Reason),
}
