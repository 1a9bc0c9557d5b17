//! Partitions whose next record cannot be had: which one it is, since the client library's errors do
//! not name it, and what becomes of it. Called by the poll thread for such errors.

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaResult;

use super::{Poller, list_of};
use crate::claims::BROKER_TIMEOUT;
use crate::gather::{Delivery, Halt};
use crate::partitions::TopicPartition;
use crate::worker::{Ended, Notice};

/// A partition that is read, with what is needed to end that.
struct Place {
    partition: TopicPartition,
    worker: u64,
    expected: i64,
}

impl Poller<'_> {
    fn places(&self) -> Vec<Place> {
        let mut partitions = self.group().partitions();
        let place =
            |(topic, partition, reading): (&str, i32, &mut crate::partitions::Reading)| Place {
                partition: TopicPartition {
                    topic: topic.to_owned(),
                    partition,
                },
                worker: reading.worker.id,
                expected: reading.expected,
            };
        let readings = partitions.readings();
        readings
            .filter(|(_, _, reading)| !reading.halting)
            .map(place)
            .collect()
    }

    /// Has the partition claimed again.
    fn reclaim(&mut self, place: Place, reason: String) {
        let Place {
            partition, worker, ..
        } = place;
        self.ended(Notice {
            partition,
            worker,
            ended: Ended::Reclaim(reason),
        });
    }

    /// Halts the partition as soon as its worker has appended what it holds, which Kafka may not have
    /// any more.
    fn halt(&self, place: &Place, halt: Halt) {
        let TopicPartition { topic, partition } = &place.partition;
        let mut partitions = self.group().partitions();
        let Some(reading) = partitions.reading(topic, *partition) else {
            return;
        };
        tracing::warn!(partition = %place.partition, reason = halt.reason, "nothing more can be read");
        reading.halting = true;
        reading.paused = true;
        reading.worker.deliver(Delivery::Halt(halt));
        if let Err(error) = self.consumer.pause(&list_of(topic, *partition)) {
            tracing::warn!(%error, topic, partition, "cannot pause the partition");
        }
    }

    /// Some partition's position is outside its log; the error does not say which.
    pub(super) fn find_out_of_range(&mut self) {
        let mut others = Vec::new();
        let mut found = false;
        let mut answers = true;
        for place in self.places() {
            match answers.then(|| self.out_of_range(&place)) {
                Some(Ok(Some(halt))) => {
                    found = true;
                    self.halt(&place, halt);
                    continue;
                }
                Some(Ok(None)) => {}
                // Brokers that do not answer for one partition are not asked for the others: this
                // thread has to poll.
                Some(Err(_)) | None => answers = false,
            }
            others.push(place);
        }
        if !found {
            // A client library that met the error has stopped fetching that partition: start anew.
            for place in others {
                self.reclaim(place, "Kafka reported an offset out of range".to_owned());
            }
        }
    }

    fn out_of_range(&self, place: &Place) -> KafkaResult<Option<Halt>> {
        let TopicPartition { topic, partition } = &place.partition;
        let expected = place.expected;
        let (low, high) = self
            .consumer
            .fetch_watermarks(topic, *partition, BROKER_TIMEOUT)?;
        let (label, reason) = if expected < low {
            let reason = format!(
                "the next offset is {expected}, and Kafka's log begins at {low}: records may be lost"
            );
            ("expired", reason)
        } else if expected > high {
            let reason = format!(
                "the next offset is {expected}, and Kafka's log ends at {high}: was the topic recreated?"
            );
            ("beyond_end", reason)
        } else {
            return Ok(None);
        };
        Ok(Some(Halt { label, reason }))
    }

    /// The client library cannot read the next records of some partition (a checksum that is wrong,
    /// most likely), and would go on behind them, which would look like offsets that hold nothing.
    /// Its words name the offset where they begin: the one partition that stands there is halted.
    pub(super) fn find_unreadable(&mut self) {
        let words = self.group().last_words();
        let positions = self.consumer.position().ok();
        let at = offset_in(&words);
        let stands_there = |place: &Place| {
            let name = &place.partition;
            let position = positions
                .as_ref()
                .and_then(|list| list.find_partition(&name.topic, name.partition))
                .and_then(|element| element.offset().to_raw());
            at.is_some() && (at == Some(place.expected) || at == position)
        };
        let (mut there, elsewhere): (Vec<_>, Vec<_>) =
            self.places().into_iter().partition(stands_there);
        if there.len() == 1
            && let Some(place) = there.pop()
        {
            let expected = place.expected;
            let reason = format!("the records from offset {expected} on cannot be read: {words}");
            let label = "unreadable";
            return self.halt(&place, Halt { label, reason });
        }
        // Not to be told: nothing that follows is to be trusted, so all that may be meant start anew.
        let suspects = if there.is_empty() { elsewhere } else { there };
        for place in suspects {
            self.reclaim(place, format!("Kafka's records cannot be read: {words}"));
        }
    }
}

/// The offset that the client library names in the words of an error.
fn offset_in(words: &str) -> Option<i64> {
    let at = ["offset ", "message at "]
        .iter()
        .find_map(|before| Some(words.find(before)? + before.len()))?;
    let digits = words[at..].split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::offset_in;

    #[test]
    fn the_offset_is_found_in_the_client_librarys_words() {
        for (words, offset) in [
            (
                "MessageSet at offset 2543 (75040 bytes) failed CRC32C check (original 0x5 != calculated 0x3)",
                Some(2543),
            ),
            (
                "Decompression (codec 0x1) of message at 77 of 1024 bytes failed: Local: Invalid compressed data",
                Some(77),
            ),
            (
                "Message at offset 12 might be too large to fetch, try increasing receive.message.max.bytes",
                Some(12),
            ),
            ("1/1 brokers are down", None),
            ("at offset ?", None),
        ] {
            assert_eq!(offset_in(words), offset, "{words}");
        }
    }
}
