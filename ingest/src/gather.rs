//! Gathers one partition's deliveries into a batch. Pure.

use event_log::{Batch, Record};

use crate::raw_record::RawRecord;
use crate::worker::Ended;

/// What the poll thread hands to a partition's worker, in offset order.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// A record, after `skipped` offsets that hold none for a reader.
    Record {
        /// Offsets between the last delivery and this one.
        skipped: i64,
        /// The record.
        record: RawRecord,
    },
    /// The end of the partition lies `skipped` offsets after the last delivery: control records.
    Tail {
        /// How many.
        skipped: i64,
    },
    /// Nothing can be read behind the last delivery: to be appended up to here, then ended so.
    End(Ended),
}

/// A batch in the making.
#[derive(Debug)]
pub(crate) struct Gather {
    end: Option<Ended>,
    batch: Batch,
    bytes: usize,
    memory: usize,
    max_events: usize,
    max_bytes: usize,
}

impl Gather {
    /// An empty batch that starts at `start`.
    pub(crate) fn new(start: i64, max_events: usize, max_bytes: usize) -> Self {
        let batch = Batch {
            start,
            end: start,
            skipped: 0,
            records: Vec::new(),
        };
        Self {
            end: None,
            batch,
            bytes: 0,
            memory: 0,
            max_events,
            max_bytes,
        }
    }

    /// Adds a delivery; `judged` makes a record of its bytes.
    pub(crate) fn push(&mut self, delivery: Delivery, judged: impl FnOnce(RawRecord) -> Record) {
        let (skipped, record) = match delivery {
            Delivery::Record { skipped, record } => (skipped, Some(record)),
            Delivery::Tail { skipped } => (skipped, None),
            Delivery::End(ended) => {
                self.end = Some(ended);
                return;
            }
        };
        self.batch.skipped += skipped;
        self.batch.end += skipped;
        if let Some(record) = record {
            self.bytes += record.bytes();
            self.memory += record.memory();
            self.batch.end += 1;
            self.batch.records.push(judged(record));
        }
    }

    /// Whether the batch has reached one of its bounds, or nothing can follow.
    pub(crate) fn is_full(&self) -> bool {
        self.end.is_some()
            || self.batch.records.len() >= self.max_events
            || self.bytes >= self.max_bytes
    }

    /// The batch, what its records cost in memory, and whether and how to end behind it.
    pub(crate) fn finish(self) -> (Batch, usize, Option<Ended>) {
        (self.batch, self.memory, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use run_events::{Reason, Rejection};

    fn delivery(offset: i64, skipped: i64, bytes: usize) -> Delivery {
        let record = RawRecord {
            offset,
            timestamp_ms: None,
            key: None,
            value: Some(vec![b'x'; bytes]),
            headers: vec![],
        };
        Delivery::Record { skipped, record }
    }

    fn judged(raw: RawRecord) -> Record {
        raw.judged(Err(Rejection::new(Reason::InvalidJson, "")))
    }

    #[test]
    fn jumps_and_the_tail_are_counted_as_skipped() {
        let mut gather = Gather::new(10, 100, 1000);
        gather.push(delivery(10, 0, 1), judged);
        gather.push(delivery(13, 2, 1), judged);
        gather.push(Delivery::Tail { skipped: 1 }, judged);
        let (batch, ..) = gather.finish();
        assert_eq!(
            (batch.start, batch.end, batch.skipped, batch.records.len()),
            (10, 15, 3, 2)
        );
    }

    #[test]
    fn a_tail_alone_is_a_batch() {
        let mut gather = Gather::new(10, 100, 1000);
        gather.push(Delivery::Tail { skipped: 2 }, judged);
        let (batch, ..) = gather.finish();
        assert_eq!((batch.end, batch.skipped), (12, 2));
    }

    #[test]
    fn an_end_cuts_the_batch_and_keeps_what_came_before() {
        let mut gather = Gather::new(10, 100, 1000);
        gather.push(delivery(10, 0, 1), judged);
        let ended = Ended::Halt("expired", String::new());
        gather.push(Delivery::End(ended), judged);
        assert!(gather.is_full());
        let (batch, _, end) = gather.finish();
        assert_eq!((batch.end, batch.records.len()), (11, 1));
        assert!(end.is_some());
    }

    #[test]
    fn either_bound_fills_it() {
        let mut by_count = Gather::new(0, 2, 1000);
        by_count.push(delivery(0, 0, 1), judged);
        assert!(!by_count.is_full());
        by_count.push(delivery(1, 0, 1), judged);
        assert!(by_count.is_full());
        let mut by_bytes = Gather::new(0, 100, 10);
        by_bytes.push(delivery(0, 0, 10), judged);
        assert!(by_bytes.is_full());
    }
}
