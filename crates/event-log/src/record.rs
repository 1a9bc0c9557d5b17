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

/// Consecutive offsets of one partition: what is appended at once.
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

    /// Parts it before an offset within it: what lies before, and what is left.
    #[must_use]
    pub fn parted(mut self, middle: i64) -> (Self, Self) {
        let (before, behind) = self.whole().at(middle);
        let rest = Self {
            start: behind.start,
            end: behind.end,
            skipped: behind.skipped,
            records: Vec::new(),
        };
        let (end, skipped, kept) = (before.end, before.skipped, before.records.len());
        let records = self.records.split_off(kept);
        let first = Self {
            end,
            skipped,
            ..self
        };
        (first, Self { records, ..rest })
    }

    /// The batch as one part.
    pub(crate) fn whole(&self) -> Part<'_> {
        Part {
            start: self.start,
            end: self.end,
            skipped: self.skipped,
            records: &self.records,
        }
    }
}

/// Consecutive offsets of a batch: what one transaction appends. Mostly that is the whole batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'b> {
    pub(crate) start: i64,
    pub(crate) end: i64,
    pub(crate) skipped: i64,
    pub(crate) records: &'b [Record],
}

impl<'b> Part<'b> {
    /// Parts it behind its first `records` records; `None` where it has no more than these.
    pub(crate) fn after(self, records: usize) -> Option<(Self, Self)> {
        let last = records.checked_sub(1)?;
        (records < self.records.len()).then(|| self.at(self.records[last].offset + 1))
    }

    /// Parts it before an offset within it.
    pub(crate) fn at(self, middle: i64) -> (Self, Self) {
        let (before, behind) = self
            .records
            .split_at(self.records.partition_point(|r| r.offset < middle));
        let skipped = middle - self.start - before.len() as i64;
        let first = Self {
            end: middle,
            skipped,
            records: before,
            ..self
        };
        let second = Self {
            start: middle,
            skipped: self.skipped - skipped,
            records: behind,
            ..self
        };
        (first, second)
    }
}

/// The event that a key already stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Original {
    /// Its identity.
    pub event_id: Uuid,
    /// Its place in the run.
    pub run_seq: i64,
    /// When the log took it.
    pub persisted_at: DateTime<Utc>,
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn batch(start: i64, end: i64, offsets: &[i64]) -> Batch {
        let record = |offset: &i64| Record {
            offset: *offset,
            timestamp_ms: None,
            key: None,
            value: None,
            headers: Vec::new(),
            verdict: Err(Rejection::new(Reason::Tombstone, "")),
        };
        Batch {
            start,
            end,
            skipped: end - start - offsets.len() as i64,
            records: offsets.iter().map(record).collect(),
        }
    }

    fn shape(part: Part<'_>) -> (i64, i64, i64, Vec<i64>) {
        let offsets = part.records.iter().map(|r| r.offset).collect();
        (part.start, part.end, part.skipped, offsets)
    }

    #[test]
    fn parts_follow_each_other_and_account_for_every_offset() {
        // Two offsets before the first record, one in the middle, three behind the last.
        let whole = batch(10, 19, &[12, 13, 15]);
        assert!(whole.is_accounted());
        let (first, rest) = whole.whole().after(1).unwrap();
        assert_eq!(shape(first), (10, 13, 2, vec![12]));
        assert_eq!(shape(rest), (13, 19, 4, vec![13, 15]));
        let (second, third) = rest.after(1).unwrap();
        assert_eq!(shape(second), (13, 14, 0, vec![13]));
        assert_eq!(shape(third), (14, 19, 4, vec![15]));
        let (before, behind) = whole.whole().at(15);
        assert_eq!(shape(before), (10, 15, 3, vec![12, 13]));
        assert_eq!(shape(behind), (15, 19, 3, vec![15]));
        let (before, behind) = whole.parted(13);
        assert!(before.is_accounted() && behind.is_accounted());
        assert_eq!(shape(before.whole()), (10, 13, 2, vec![12]));
        assert_eq!(shape(behind.whole()), (13, 19, 4, vec![13, 15]));
    }

    #[test]
    fn nothing_is_parted_behind_its_last_record() {
        for (offsets, records) in [(&[][..], 1), (&[12], 1), (&[12, 13], 2), (&[12, 13], 0)] {
            assert!(batch(10, 19, offsets).whole().after(records).is_none());
        }
    }
}
