//! Partitions whose next record cannot be had, or is not the one that should follow: which one it is,
//! since the client library's errors do not name it, and what becomes of it. Called by the poll
//! thread; what a finding means is decided in [`crate::resume`].

use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::consumer::Consumer;

use super::{Poller, list_of};
use crate::claims;
use crate::gather::Delivery;
use crate::partitions::{KnownLog, Reading, TopicPartition};
use crate::resume::{self, Finding, Halt, Verdict};
use crate::worker::{Ended, Notice};

/// How often records that cannot be read are asked for before their partition halts.
const READS: u32 = 3;
/// How long the errors of partitions that were found together may take to come.
const FORETOLD: Duration = Duration::from_secs(5);

/// A partition that is read, with what is needed to look at Kafka's log of it.
struct Place {
    partition: TopicPartition,
    worker: u64,
    expected: i64,
    /// The offset of the last record, where it is to be compared.
    unseen: Option<i64>,
    /// See [`KnownLog::damaged`].
    damaged: Option<i64>,
}

/// What is the matter with a partition that Kafka said is out of range.
enum Range {
    /// Nothing: it is another one.
    Inside,
    /// Kafka's log does not hold the next offset.
    Outside(Finding),
    /// Only the last record is gone: its log begins at this offset.
    LastGone(i64),
}

impl Poller<'_> {
    fn places(&self) -> Vec<Place> {
        let mut partitions = self.group().partitions();
        let place = |(topic, partition, reading): (&str, i32, &mut Reading)| Place {
            partition: TopicPartition {
                topic: topic.to_owned(),
                partition,
            },
            worker: reading.worker.id,
            expected: reading.expected,
            unseen: reading.unseen.map(|last| last.offset),
            damaged: reading.log.damaged,
        };
        let readings = partitions.readings();
        readings
            .filter(|(_, _, reading)| !reading.ending)
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

    /// Ends the reading as soon as the worker has appended what it holds, which Kafka may not have any
    /// more.
    fn end(&self, name: &TopicPartition, ended: Ended) {
        let mut partitions = self.group().partitions();
        let Some(reading) = partitions.reading(&name.topic, name.partition) else {
            return;
        };
        reading.ending = true;
        reading.paused = true;
        reading.worker.deliver(Delivery::End(ended));
        if let Err(error) = self.consumer.pause(&list_of(&name.topic, name.partition)) {
            tracing::warn!(%error, partition = %name, "cannot pause the partition");
        }
    }

    /// Something does not fit. Before it is judged, Kafka is asked whether the topic is another now, and
    /// the last record is looked for, if either has not been done since.
    pub(super) fn suspect(&self, name: &TopicPartition, finding: Finding) {
        let (since, stored, place) = {
            let mut partitions = self.group().partitions();
            let Some(reading) = partitions.reading(&name.topic, name.partition) else {
                return;
            };
            if reading.ending {
                return;
            }
            let since = *reading.log.doubted.get_or_insert_with(Instant::now);
            (since, reading.topic_id, reading.place())
        };
        let identity = self.group().topics().identity(&name.topic, stored, since);
        tracing::warn!(partition = %name, ?finding, ?identity, ?place, "Kafka's log is not as it was");
        match resume::verdict(finding, identity, place) {
            Verdict::Halt(Halt { label, reason }) => self.end(name, Ended::Halt(label, reason)),
            // The next answer tells.
            Verdict::Look if finding == Finding::OtherTopic => {}
            Verdict::Look => {
                let reason = "Kafka's log of it is not as it was".to_owned();
                self.end(name, Ended::Reclaim(reason));
            }
            Verdict::GoOn => {}
        }
    }

    /// Kafka has told the topics' ids: those of partitions that are read are compared, and stored where
    /// they are not yet.
    pub(super) fn compare_topics(&self) {
        let mut others = Vec::new();
        for (topic, partition, reading) in self.group().partitions().readings() {
            let name = || TopicPartition {
                topic: topic.to_owned(),
                partition,
            };
            let ids = self.group().topics();
            if ids.seems_another(topic, reading.topic_id) {
                others.push(name());
            } else if reading.topic_id.is_none()
                && reading.unseen.is_none()
                && reading.log.doubted.is_none()
                && let Some(id) = ids.id(topic, reading.since)
            {
                reading.topic_id = Some(id);
                self.note_topic(reading.worker.claim().clone(), id);
            }
        }
        for name in others {
            self.suspect(&name, Finding::OtherTopic);
        }
    }

    /// Some partition's position is outside its log; the error does not say which.
    pub(super) fn find_out_of_range(&mut self) {
        let places = self.places();
        let ranges = self.ranges(&places);
        let mut others = Vec::new();
        let mut found = 0;
        for (place, range) in places.into_iter().zip(ranges) {
            match range {
                Range::Outside(finding) => self.suspect(&place.partition, finding),
                Range::LastGone(low) => {
                    // As retention does it: the next offset is there.
                    self.restart_behind(&place.partition, |log| log.low = Some(low));
                }
                Range::Inside => {
                    others.push(place);
                    continue;
                }
            }
            found += 1;
        }
        let now = Instant::now();
        if found > 0 {
            // Each of them has an error of its own.
            self.foretold = (found - 1, now + FORETOLD);
        } else if self.foretold.0 > 0 && now < self.foretold.1 {
            self.foretold.0 -= 1;
        } else {
            // A client library that met the error has stopped fetching that partition: start anew,
            // and look for the last record on the way.
            for place in others {
                self.reclaim(place, "Kafka reported an offset out of range".to_owned());
            }
        }
    }

    /// Where the partitions stand in Kafka's logs. Those that Kafka says nothing of are taken to be
    /// inside.
    fn ranges(&self, places: &[Place]) -> Vec<Range> {
        let ends = |which| {
            let names = places.iter().map(|place| &place.partition);
            claims::log_ends(self.consumer, names, which)
        };
        let lows = ends(Offset::Beginning);
        let bounds = lows.and_then(|lows| Ok((lows, ends(Offset::End)?)));
        let (lows, highs) = match bounds {
            Ok(bounds) => bounds,
            Err(error) => {
                tracing::warn!(%error, "Kafka does not say where its logs begin and end");
                return places.iter().map(|_| Range::Inside).collect();
            }
        };
        let range = |place: &Place| {
            let name = &place.partition;
            let bounds = claims::log_end(&lows, name).zip(claims::log_end(&highs, name));
            bounds.map_or(Range::Inside, |(low, high)| range(place, low, high))
        };
        places.iter().map(range).collect()
    }

    /// Fetches from the next offset, without a look at the last record; `note` says why.
    fn restart_behind(&self, name: &TopicPartition, note: impl FnOnce(&mut KnownLog)) {
        if let Some(reading) = self
            .group()
            .partitions()
            .reading(&name.topic, name.partition)
        {
            reading.seen();
            note(&mut reading.log);
        }
        if let Err(error) = self.group().restart(self.consumer, name) {
            let context = format!("the Kafka client refuses to read {name} from its next offset");
            self.group()
                .set_fatal(anyhow::Error::new(error).context(context));
        }
    }

    /// The log of a partition seems to end before the next offset.
    pub(super) fn find_short(&self, name: &TopicPartition) {
        let mut places = self.places().into_iter();
        let Some(place) = places.find(|place| place.partition == *name) else {
            return;
        };
        // Otherwise the end was another one's, or it lies at an open transaction.
        if let Some(Range::Outside(finding)) = self.ranges(&[place]).pop() {
            self.suspect(name, finding);
        }
    }

    /// The client library cannot read the next records of some partition (a checksum that is wrong,
    /// most likely), and would go on behind them, which would look like offsets that hold nothing.
    /// Its words name the offset where they begin. Whoever stands there is read again, since a fetch may
    /// be damaged on its way; who stands there every time is halted.
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
            at.is_some() && [Some(place.expected), position, place.damaged].contains(&at)
        };
        let (mut there, others): (Vec<_>, Vec<_>) =
            self.places().into_iter().partition(stands_there);
        if there.len() > 1 {
            there = self.with_more(there);
        }
        // Where the last record is to be compared, its batch is read again, which begins before it.
        let compares = |place: &Place| at.is_some_and(|at| place.unseen >= Some(at));
        let (mut behind, elsewhere): (Vec<_>, Vec<_>) = others.into_iter().partition(compares);
        if there.is_empty()
            && behind.len() == 1
            && let Some((place, at)) = behind.pop().zip(at)
        {
            let name = &place.partition;
            tracing::warn!(partition = %name, words, "the last record cannot be compared");
            self.restart_behind(name, |log| log.damaged = Some(at));
            return;
        }
        // Not to be told: nothing that follows is to be trusted, so all that may be meant start anew.
        // Those that can be read do not stand there any more the next time.
        let suspects = if there.is_empty() && behind.is_empty() {
            elsewhere
        } else {
            behind
        };
        for place in suspects {
            self.reclaim(place, format!("Kafka's records cannot be read: {words}"));
        }
        for place in there {
            self.unreadable(place, &words);
        }
    }

    /// A partition stands where the records cannot be read.
    fn unreadable(&mut self, place: Place, words: &str) {
        let (name, expected) = (&place.partition, place.expected);
        let reason = format!("the records from offset {expected} on cannot be read: {words}");
        let tried = {
            let mut partitions = self.group().partitions();
            let Some(reading) = partitions.reading(&name.topic, name.partition) else {
                return;
            };
            reading.log.tried_to_read(expected)
        };
        if tried < READS {
            self.reclaim(place, reason);
        } else {
            tracing::warn!(partition = %name, reason, "nothing more can be read");
            self.end(name, Ended::Halt("unreadable", reason));
        }
    }

    /// Those whose logs hold more records, or all of them where Kafka does not say.
    fn with_more(&self, places: Vec<Place>) -> Vec<Place> {
        let names = places.iter().map(|place| &place.partition);
        let Ok(highs) = claims::log_ends(self.consumer, names, Offset::End) else {
            return places;
        };
        let more = |place: &Place| {
            let high = claims::log_end(&highs, &place.partition);
            high.is_none_or(|high| place.expected < high)
        };
        places.into_iter().filter(more).collect()
    }
}

/// Where a partition stands in a log that begins at `low` and ends at `high`.
fn range(place: &Place, low: i64, high: i64) -> Range {
    if place.expected < low {
        Range::Outside(Finding::Expired { low })
    } else if place.expected > high {
        Range::Outside(Finding::BeyondEnd { high })
    } else if place.unseen.is_some_and(|last| last < low) {
        Range::LastGone(low)
    } else {
        Range::Inside
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
