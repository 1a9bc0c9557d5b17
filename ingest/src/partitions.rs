//! The partitions that the group has given to this process, and how far each has come.
//! Owned by the poll thread; the group's callbacks run on it too.

use std::collections::HashMap;
use std::fmt;
use std::time::Instant;

use service::backoff::Backoff;

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
pub(crate) enum Held {
    /// Claimed and read.
    Reading(Reading),
    /// Not claimed (yet, or any more): to be claimed again.
    Waiting(Waiting),
    /// Waits for an operator, for this short reason.
    Halted(String),
}

/// A partition that is being read.
pub(crate) struct Reading {
    pub(crate) worker: Worker,
    /// The offset after the last one that was delivered to the worker.
    pub(crate) expected: i64,
    /// Whether the fetching is paused because the worker has enough.
    pub(crate) paused: bool,
    /// Whether nothing can be read behind `expected`: it halts when the worker has come that far.
    pub(crate) halting: bool,
    /// The offset last committed to Kafka for the lag tools.
    pub(crate) shown_to_kafka: i64,
}

/// A partition to be claimed.
pub(crate) struct Waiting {
    pub(crate) retry_at: Instant,
    pub(crate) backoff: Backoff,
    /// Whether a claim is under way.
    pub(crate) claiming: bool,
    /// Why the last claim failed, if one did.
    pub(crate) trouble: Option<String>,
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
