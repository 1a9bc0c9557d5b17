//! The partitions that the group has given to this process, and how far each has come.
//! Owned by the poll thread; the group's callbacks run on it too.

use std::collections::HashMap;
use std::fmt;
use std::time::Instant;

use event_log::LastRecord;
use service::backoff::Backoff;
use uuid::Uuid;

use crate::resume::Place;
use crate::worker::Worker;

/// A partition's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TopicPartition {
    pub(crate) topic: String,
    pub(crate) partition: i32,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// What this process does with a partition that it was given.
#[allow(
    clippy::large_enum_variant,
    reason = "one per partition, and most are read"
)]
pub(crate) enum Held {
    /// Claimed and read.
    Reading(Reading),
    /// Not claimed (yet, or any more): to be claimed again.
    Waiting(Waiting),
    /// Waits for an operator.
    Halted(Halted),
}

/// A partition that is being read.
pub(crate) struct Reading {
    pub(crate) worker: Worker,
    /// The offset after the last one that was delivered to the worker.
    pub(crate) expected: i64,
    /// The last record that was read before, while Kafka's copy of it is to be compared.
    pub(crate) unseen: Option<LastRecord>,
    /// The offset of the last record that was read, by whomever.
    pub(crate) last: Option<i64>,
    /// The offset of the record that was compared since the claim, or found to be gone.
    pub(crate) looked: Option<i64>,
    /// The topic's stored id.
    pub(crate) topic_id: Option<Uuid>,
    /// When it was claimed.
    pub(crate) since: Instant,
    /// What was found out about Kafka's log of it.
    pub(crate) log: KnownLog,
    /// The delays of claims that lead to nothing.
    backoff: Backoff,
    /// Whether the fetching is paused because the worker has enough.
    pub(crate) paused: bool,
    /// Whether nothing can be read behind `expected`: it ends when the worker has come that far.
    pub(crate) ending: bool,
    /// The offset last committed to Kafka for the lag tools.
    pub(crate) shown_to_kafka: i64,
}

impl Reading {
    /// A reading from the claim on. The last record is looked for, unless it is known to be gone.
    pub(crate) fn new(worker: Worker, log: KnownLog, backoff: Backoff) -> Self {
        let claim = worker.claim();
        let last = claim.last_record;
        let unseen = last.filter(|last| {
            log.low.is_none_or(|low| low <= last.offset)
                && log.damaged.is_none_or(|batch| batch > last.offset)
        });
        let gone = last.filter(|_| unseen.is_none());
        Self {
            expected: claim.next_offset,
            unseen,
            last: last.map(|last| last.offset),
            looked: gone.map(|last| last.offset),
            topic_id: claim.topic_id,
            since: Instant::now(),
            log,
            backoff,
            paused: false,
            ending: false,
            shown_to_kafka: -1,
            worker,
        }
    }

    /// The partition as it is to be claimed again. The delays grow until a claim leads to something.
    pub(crate) fn waiting(&self) -> Waiting {
        let mut waiting = Waiting {
            log: self.log,
            backoff: self.backoff.clone(),
            ..Waiting::now()
        };
        if self.worker.stored() > self.worker.claim().next_offset {
            waiting.backoff.reset();
        }
        waiting
    }

    /// Where Kafka is to be read from.
    pub(crate) fn fetch_from(&self) -> i64 {
        self.unseen.map_or(self.expected, |last| last.offset)
    }

    /// Notes that the last record that was read before was compared, or is gone.
    pub(crate) fn seen(&mut self) {
        if let Some(last) = self.unseen.take() {
            self.looked = Some(last.offset);
        }
    }

    /// Where the log stands in it.
    pub(crate) fn place(&self) -> Place {
        Place {
            next: self.expected,
            last: self.last,
            looked: self.last == self.looked,
        }
    }
}

/// What was found out about Kafka's log of a partition, kept while it is claimed again.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct KnownLog {
    /// Since when it is in doubt whether it is the log that was read before.
    pub(crate) doubted: Option<Instant>,
    /// Since when Kafka seems to have another id for the topic; records that come say nothing about it.
    pub(crate) id_doubted: Option<Instant>,
    /// An offset that it began at: what lies before is gone.
    pub(crate) low: Option<i64>,
    /// Where a batch begins that cannot be read (any more) and holds the last record.
    pub(crate) damaged: Option<i64>,
    /// An offset that could not be read, and how often that was tried.
    pub(crate) unreadable: Option<(i64, u32)>,
}

impl KnownLog {
    /// Counts one more try to read from an offset; how many there were.
    pub(crate) fn tried_to_read(&mut self, offset: i64) -> u32 {
        let before = self.unreadable.filter(|(at, _)| *at == offset);
        let tried = before.map_or(0, |(_, tried)| tried) + 1;
        self.unreadable = Some((offset, tried));
        tried
    }
}

/// A partition to be claimed.
pub(crate) struct Waiting {
    pub(crate) retry_at: Instant,
    pub(crate) backoff: Backoff,
    /// Whether a claim is under way.
    pub(crate) claiming: bool,
    /// Why the last claim failed, if one did.
    pub(crate) trouble: Option<String>,
    /// What was found out about Kafka's log of it.
    pub(crate) log: KnownLog,
}

/// A partition that waits for an operator.
pub(crate) struct Halted {
    /// The stream row: an operator clears the halt in it, or closes it.
    pub(crate) stream_id: i64,
    /// Whether the halt stands in the row. Before, nobody can have cleared it.
    pub(crate) stored: bool,
    /// In one word, for the metrics.
    pub(crate) code: String,
    /// For people.
    pub(crate) reason: String,
}

/// All of them, by topic and partition; looked up per record, so without an allocation.
#[derive(Default)]
pub(crate) struct Partitions {
    topics: HashMap<String, HashMap<i32, Held>>,
}

impl Partitions {
    pub(crate) fn get_mut(&mut self, topic: &str, partition: i32) -> Option<&mut Held> {
        self.topics.get_mut(topic)?.get_mut(&partition)
    }

    pub(crate) fn reading(&mut self, topic: &str, partition: i32) -> Option<&mut Reading> {
        match self.get_mut(topic, partition) {
            Some(Held::Reading(reading)) => Some(reading),
            _ => None,
        }
    }

    pub(crate) fn insert(&mut self, name: &TopicPartition, held: Held) {
        self.topics
            .entry(name.topic.clone())
            .or_default()
            .insert(name.partition, held);
    }

    pub(crate) fn remove(&mut self, name: &TopicPartition) -> Option<Held> {
        self.topics.get_mut(&name.topic)?.remove(&name.partition)
    }

    /// Every partition with its name.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&str, i32, &mut Held)> {
        self.topics.iter_mut().flat_map(|(topic, partitions)| {
            partitions
                .iter_mut()
                .map(move |(partition, held)| (topic.as_str(), *partition, held))
        })
    }

    /// Those that are being read.
    pub(crate) fn readings(&mut self) -> impl Iterator<Item = (&str, i32, &mut Reading)> {
        self.iter_mut()
            .filter_map(|(topic, partition, held)| match held {
                Held::Reading(reading) => Some((topic, partition, reading)),
                _ => None,
            })
    }

    /// Why one of them is not read or appended as it should be, if that is so.
    pub(crate) fn trouble(&mut self) -> Option<String> {
        self.iter_mut().find_map(|(_, _, held)| match held {
            Held::Reading(reading) => reading.worker.trouble(),
            Held::Waiting(waiting) => waiting.trouble.clone(),
            Held::Halted(_) => None,
        })
    }

    /// Which of them wait for an operator, for people; `None` = none does.
    pub(crate) fn halted(&mut self) -> Option<String> {
        let reason = |(topic, partition, held): (&str, i32, &mut Held)| match held {
            Held::Halted(halted) => {
                Some(format!("{topic}/{partition} is halted: {}", halted.reason))
            }
            _ => None,
        };
        let mut reasons: Vec<String> = self.iter_mut().filter_map(reason).collect();
        reasons.sort();
        Some(reasons.join("; ")).filter(|text| !text.is_empty())
    }

    /// The stream rows of stored halts.
    pub(crate) fn halted_streams(&mut self) -> Vec<i64> {
        let stream = |(_, _, held): (&str, i32, &mut Held)| match held {
            Held::Halted(halted) if halted.stored => Some(halted.stream_id),
            _ => None,
        };
        self.iter_mut().filter_map(stream).collect()
    }

    /// Notes that the halt of a partition stands in its stream row.
    pub(crate) fn halt_stored(&mut self, name: &TopicPartition) {
        if let Some(Held::Halted(halted)) = self.get_mut(&name.topic, name.partition) {
            halted.stored = true;
        }
    }

    /// The name of the halted partition with this stream row.
    pub(crate) fn halted_with(&mut self, stream_id: i64) -> Option<TopicPartition> {
        self.iter_mut().find_map(|(topic, partition, held)| {
            matches!(held, Held::Halted(halted) if halted.stream_id == stream_id).then(|| {
                TopicPartition {
                    topic: topic.to_owned(),
                    partition,
                }
            })
        })
    }

    /// The names of all of them.
    pub(crate) fn names(&self) -> Vec<TopicPartition> {
        let of = |(topic, partitions): (&String, &HashMap<i32, Held>)| {
            let name = |partition: &i32| TopicPartition {
                topic: topic.clone(),
                partition: *partition,
            };
            partitions.keys().map(name).collect::<Vec<_>>()
        };
        self.topics.iter().flat_map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::KnownLog;

    #[test]
    fn tries_are_counted_at_one_offset() {
        let mut log = KnownLog::default();
        let tried = [7, 7, 7, 9, 7].map(|offset| log.tried_to_read(offset));
        assert_eq!(tried, [1, 2, 3, 1, 1]);
    }
}
