//! Gathers one partition's deliveries into a batch. Pure.

use event_log::Batch;

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

impl Delivery {
    /// What it costs in memory, about.
    pub(crate) fn memory(&self) -> usize {
        match self {
            Self::Record { record, .. } => record.memory(),
            // Small, but without number where a producer aborts all its transactions.
            Self::Tail { .. } | Self::End(_) => size_of::<Self>(),
        }
    }
}

/// Consecutive offsets of the partition, not yet judged.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// The first offset.
    pub(crate) start: i64,
    /// One past the last offset.
    pub(crate) end: i64,
    /// Offsets in between that hold no record for a reader.
    pub(crate) skipped: i64,
    /// The records in offset order.
    pub(crate) records: Vec<RawRecord>,
}

impl Gathered {
    /// The same offsets without the events that were found in them: what a batch goes back to while it
    /// waits to be tried again, since events take much more memory than their bytes.
    pub(crate) fn unjudged(batch: Batch) -> Self {
        Self {
            start: batch.start,
            end: batch.end,
            skipped: batch.skipped,
            records: batch.records.into_iter().map(RawRecord::unjudged).collect(),
        }
    }
}

/// When a batch is full.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Records.
    pub(crate) max_events: usize,
    /// Bytes of the records.
    pub(crate) max_bytes: usize,
}

/// What a batch may cost in memory while it is judged and written, for each byte that it may have. An
/// ordinary batch stays below; records of many tiny JSON objects make smaller batches.
const MEMORY_PER_BYTE: usize = 6;

/// A batch in the making.
#[derive(Debug)]
pub(crate) struct Gather {
    end: Option<Ended>,
    gathered: Gathered,
    bytes: usize,
    memory: usize,
    memory_judged: usize,
    bounds: Bounds,
}

impl Gather {
    /// An empty batch that starts at `start`.
    pub(crate) fn new(start: i64, bounds: Bounds) -> Self {
        Self {
            end: None,
            gathered: Gathered {
                start,
                end: start,
                skipped: 0,
                records: Vec::new(),
            },
            bytes: 0,
            memory: 0,
            memory_judged: 0,
            bounds,
        }
    }

    /// Adds a delivery.
    pub(crate) fn push(&mut self, delivery: Delivery) {
        self.memory += delivery.memory();
        let (skipped, record) = match delivery {
            Delivery::Record { skipped, record } => (skipped, Some(record)),
            Delivery::Tail { skipped } => (skipped, None),
            Delivery::End(ended) => {
                self.end = Some(ended);
                return;
            }
        };
        self.gathered.skipped += skipped;
        self.gathered.end += skipped;
        if let Some(record) = record {
            self.bytes += record.bytes();
            self.memory_judged += record.memory_judged();
            self.gathered.end += 1;
            self.gathered.records.push(record);
        }
    }

    /// Whether the batch has reached one of its bounds, or nothing can follow.
    pub(crate) fn is_full(&self) -> bool {
        let Bounds {
            max_events,
            max_bytes,
        } = self.bounds;
        self.end.is_some()
            || self.gathered.records.len() >= max_events
            || self.bytes >= max_bytes
            || self.memory_judged >= MEMORY_PER_BYTE * max_bytes
    }

    /// The batch, what its deliveries cost in memory, and whether and how to end behind it.
    pub(crate) fn finish(self) -> (Gathered, usize, Option<Ended>) {
        (self.gathered, self.memory, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        max_events: 100,
        max_bytes: 1000,
    };

    fn of(offset: i64, skipped: i64, value: Vec<u8>) -> Delivery {
        let record = RawRecord {
            offset,
            timestamp_ms: None,
            key: None,
            value: Some(value),
            headers: vec![],
            refused: None,
        };
        Delivery::Record { skipped, record }
    }

    fn delivery(offset: i64, skipped: i64, bytes: usize) -> Delivery {
        of(offset, skipped, vec![b'x'; bytes])
    }

    #[test]
    fn jumps_and_the_tail_are_counted_as_skipped() {
        let mut gather = Gather::new(10, BOUNDS);
        gather.push(delivery(10, 0, 1));
        gather.push(delivery(13, 2, 1));
        gather.push(Delivery::Tail { skipped: 1 });
        let (batch, ..) = gather.finish();
        assert_eq!(
            (batch.start, batch.end, batch.skipped, batch.records.len()),
            (10, 15, 3, 2)
        );
    }

    #[test]
    fn a_tail_alone_is_a_batch() {
        let mut gather = Gather::new(10, BOUNDS);
        gather.push(Delivery::Tail { skipped: 2 });
        let (batch, ..) = gather.finish();
        assert_eq!((batch.end, batch.skipped), (12, 2));
    }

    #[test]
    fn an_end_cuts_the_batch_and_keeps_what_came_before() {
        let mut gather = Gather::new(10, BOUNDS);
        gather.push(delivery(10, 0, 1));
        let ended = Ended::Halt("expired", String::new());
        gather.push(Delivery::End(ended));
        assert!(gather.is_full());
        let (batch, _, end) = gather.finish();
        assert_eq!((batch.end, batch.records.len()), (11, 1));
        assert!(end.is_some());
    }

    #[test]
    fn either_bound_fills_it() {
        let two = Bounds {
            max_events: 2,
            ..BOUNDS
        };
        let mut by_count = Gather::new(0, two);
        by_count.push(delivery(0, 0, 1));
        assert!(!by_count.is_full());
        by_count.push(delivery(1, 0, 1));
        assert!(by_count.is_full());
        let mut by_bytes = Gather::new(0, BOUNDS);
        by_bytes.push(delivery(0, 0, 999));
        assert!(!by_bytes.is_full());
        by_bytes.push(delivery(1, 0, 1));
        assert!(by_bytes.is_full());
    }

    #[test]
    fn records_that_are_large_only_once_they_are_judged_make_small_batches() {
        let mib = Bounds {
            max_events: 2000,
            max_bytes: 1 << 20,
        };
        let filled_by = |value: &[u8]| {
            let mut gather = Gather::new(0, mib);
            while !gather.is_full() {
                gather.push(of(gather.gathered.end, 0, value.to_vec()));
            }
            gather.bytes
        };
        let text = format!("{{\"a\":\"{}\"}}", "x".repeat(20_000));
        assert!(filled_by(text.as_bytes()) >= 1 << 20);
        let objects = format!("{{\"a\":[{}0]}}", "{\"\":0},".repeat(2_500));
        assert!(filled_by(objects.as_bytes()) < 1 << 18);
    }

    #[test]
    fn what_is_given_back_is_what_was_taken() {
        let deliveries = [delivery(0, 0, 7), Delivery::Tail { skipped: 1 }];
        let taken: usize = deliveries.iter().map(Delivery::memory).sum();
        let mut gather = Gather::new(0, BOUNDS);
        deliveries
            .into_iter()
            .for_each(|delivery| gather.push(delivery));
        let (_, memory, _) = gather.finish();
        assert_eq!(memory, taken);
    }
}
