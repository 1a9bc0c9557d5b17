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
    /// SHA-256 over the timestamp, the key and the value, each with its length: the same offset of
    /// a recreated topic holds a record with another digest.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.timestamp_ms.unwrap_or(-1).to_be_bytes());
        for part in [&self.key, &self.value] {
            let length = part.as_ref().map_or(-1, |bytes| bytes.len() as i64);
            hash.update(length.to_be_bytes());
            hash.update(part.as_deref().unwrap_or_default());
        }
        hash.finalize().into()
    }
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

    /// Two batches of half the records each, in order: less work for one transaction.
    ///
    /// # Errors
    /// The batch itself, where it has no two records.
    pub fn halves(mut self) -> Result<(Self, Self), Self> {
        let Some(middle) = self.middle() else {
            return Err(self);
        };
        let records = self.records.split_off(self.records.len() / 2);
        let skipped = middle - self.start - self.records.len() as i64;
        let second = Self {
            start: middle,
            end: self.end,
            skipped: self.skipped - skipped,
            records,
        };
        let first = Self {
            end: middle,
            skipped,
            ..self
        };
        Ok((first, second))
    }

    /// Where its second half starts: behind the last record of the first.
    pub(crate) fn middle(&self) -> Option<i64> {
        let last = (self.records.len() / 2).checked_sub(1)?;
        self.records.get(last).map(|record| record.offset + 1)
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

    fn shape(batch: &Batch) -> (i64, i64, i64, Vec<i64>) {
        let offsets = batch.records.iter().map(|r| r.offset).collect();
        (batch.start, batch.end, batch.skipped, offsets)
    }

    #[test]
    fn halves_follow_each_other_and_account_for_every_offset() {
        // Two offsets before the first record, one in the middle, three behind the last.
        let (first, second) = batch(10, 19, &[12, 13, 15]).halves().unwrap();
        assert_eq!(shape(&first), (10, 13, 2, vec![12]));
        assert_eq!(shape(&second), (13, 19, 4, vec![13, 15]));
        assert!(first.is_accounted() && second.is_accounted());
        let (second, third) = second.halves().unwrap();
        assert_eq!(shape(&second), (13, 14, 0, vec![13]));
        assert_eq!(shape(&third), (14, 19, 4, vec![15]));
    }

    #[test]
    fn a_batch_of_one_record_or_none_has_no_halves() {
        for offsets in [&[][..], &[12]] {
            let whole = batch(10, 19, offsets).halves().unwrap_err();
            assert_eq!(shape(&whole), shape(&batch(10, 19, offsets)));
        }
    }
}
