//! The topic of a scenario: a handful of offsets per partition, and every batch that can be cut from
//! them, judged and prepared once as the product does it.

use std::collections::HashMap;

use run_events::{EventType, IdempotencyKey, Micros, Reason, Rejection, RunEvent};
use uuid::Uuid;

use crate::decide::Prepared;
use crate::record::{Batch, Record};

/// What one offset of a partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// No record for a reader: a control record.
    Gap,
    /// A valid event.
    Event(Spec),
    /// A record that validation refuses.
    Poison,
    /// A valid event that PostgreSQL refuses to store.
    Unstorable(Spec),
    /// A valid event that the configuration refuses, until an operator has corrected that and has the
    /// partition read again.
    RefusedAtFirst(Spec),
}

/// What an event is told apart by: its run, and small numbers for key, content and event id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) run: u8,
    pub(crate) key: u8,
    pub(crate) content: u8,
    pub(crate) id: u8,
}

/// An event of run 0 with this key and event id.
pub(crate) fn event(key: u8, id: u8) -> Spec {
    Spec {
        run: 0,
        key,
        content: 0,
        id,
    }
}

/// The names of a batch: which offsets of which partition, in which reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BatchId {
    pub(crate) partition: usize,
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// Whether a rewind came before.
    pub(crate) is_read_again: bool,
    /// A faulty client lost its first record on the way.
    pub(crate) lacks_a_record: bool,
}

/// A batch as the product sees it.
pub(crate) struct Cut {
    pub(crate) batch: &'static Batch,
    pub(crate) prepared: Prepared<'static>,
}

/// The topic.
pub(crate) struct Kafka {
    partitions: Vec<Vec<Slot>>,
    cuts: HashMap<BatchId, Cut>,
}

impl Kafka {
    /// A topic with these partitions. Its batches live as long as the process: tests are few.
    pub(crate) fn new(partitions: Vec<Vec<Slot>>) -> Self {
        let mut cuts = HashMap::new();
        for (partition, slots) in partitions.iter().enumerate() {
            let end = slots.len() as i64;
            for start in 0..end {
                for end in start + 1..=end {
                    for flags in 0..4 {
                        let id = BatchId {
                            partition,
                            start,
                            end,
                            is_read_again: flags & 1 > 0,
                            lacks_a_record: flags & 2 > 0,
                        };
                        cuts.insert(id, cut(slots, id));
                    }
                }
            }
        }
        Self { partitions, cuts }
    }

    pub(crate) fn partitions(&self) -> usize {
        self.partitions.len()
    }

    /// One past the partition's last offset.
    pub(crate) fn end(&self, partition: usize) -> i64 {
        self.partitions[partition].len() as i64
    }

    pub(crate) fn slot(&self, partition: usize, offset: i64) -> Slot {
        self.partitions[partition][offset as usize]
    }

    pub(crate) fn cut(&self, id: &BatchId) -> &Cut {
        &self.cuts[id]
    }

    /// Where a batch that starts at `start` may end: behind any of the next `most` records, or at the
    /// end of the partition.
    pub(crate) fn ends(&self, partition: usize, start: i64, most: usize) -> Vec<i64> {
        let end = self.end(partition);
        let is_record = |offset: &i64| self.slot(partition, *offset) != Slot::Gap;
        let mut ends: Vec<i64> = (start..end)
            .filter(is_record)
            .map(|offset| offset + 1)
            .take(most)
            .collect();
        let records = (start..end).filter(is_record).count();
        if records <= most && start < end && ends.last() != Some(&end) {
            ends.push(end);
        }
        ends
    }
}

impl Slot {
    /// The event in it, if one can come out of it at all.
    pub(crate) fn spec(self) -> Option<Spec> {
        match self {
            Self::Gap | Self::Poison => None,
            Self::Event(spec) | Self::Unstorable(spec) | Self::RefusedAtFirst(spec) => Some(spec),
        }
    }

    /// What ingest's rules make of it.
    pub(crate) fn verdict(self, is_read_again: bool) -> Option<Result<RunEvent, Rejection>> {
        let refused = |reason| Some(Err(Rejection::new(reason, "refused by a rule")));
        match self {
            Self::Gap => None,
            Self::Poison => refused(Reason::InvalidJson),
            Self::RefusedAtFirst(_) if !is_read_again => refused(Reason::TenantNotAllowed),
            Self::Event(spec) | Self::Unstorable(spec) | Self::RefusedAtFirst(spec) => {
                Some(Ok(spec.event()))
            }
        }
    }
}

impl Spec {
    pub(crate) fn event(self) -> RunEvent {
        RunEvent {
            event_id: self.event_id(),
            event_type: EventType::from_name("StepStarted".to_owned()),
            tenant_id: "t".to_owned(),
            project_id: "p".to_owned(),
            environment_id: "e".to_owned(),
            run_id: self.run.to_string(),
            plan_id: "p".to_owned(),
            plan_version: self.content.to_string(),
            engine_attempt_id: 1,
            logical_attempt_id: 1,
            idempotency_key: self.idempotency_key(),
            emitted_at: Micros(0),
            step_id: Some("s".to_owned()),
            payload: None,
        }
    }

    pub(crate) fn event_id(self) -> Uuid {
        Uuid::from_u128(u128::from(self.id))
    }

    pub(crate) fn idempotency_key(self) -> IdempotencyKey {
        IdempotencyKey([self.key; 32])
    }

    /// The run's number: the model numbers runs by their names.
    pub(crate) fn run_no(self) -> i64 {
        i64::from(self.run) + 1
    }
}

fn cut(slots: &[Slot], id: BatchId) -> Cut {
    let record = |offset: i64| {
        let verdict = slots[offset as usize].verdict(id.is_read_again)?;
        Some(Record {
            offset,
            timestamp_ms: None,
            key: None,
            value: None,
            headers: Vec::new(),
            verdict,
        })
    };
    let mut records: Vec<Record> = (id.start..id.end).filter_map(record).collect();
    let skipped = id.end - id.start - records.len() as i64;
    if id.lacks_a_record && !records.is_empty() {
        records.remove(0);
    }
    let batch: &'static Batch = Box::leak(Box::new(Batch {
        start: id.start,
        end: id.end,
        skipped,
        records,
    }));
    Cut {
        batch,
        prepared: Prepared::new(&batch.records),
    }
}
