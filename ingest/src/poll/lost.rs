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
/// The same, where it is not known to be that partition.
const READS_IN_DOUBT: u32 = 8;
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
    /// Whether nothing is fetched of it now: the worker has enough, or its leader is away.
    is_resting: bool,
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
            is_resting: reading.paused || !reading.worker.is_fetchable(),
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
            let log = &mut reading.log;
            let doubt = match finding {
                Finding::OtherTopic => &mut log.id_doubted,
                _ => &mut log.doubted,
            };
            let since = *doubt.get_or_insert_with(Instant::now);
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
                continue;
            }
            reading.log.id_doubted = None;
            if reading.topic_id.is_none()
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
    /// most likely), and may go on behind them, which would look like offsets that hold nothing. Its
    /// words name the offset where their batch begins, and no partition. So all that may be meant are read
    /// again: the others read on, and a fetch may have been damaged on its way. Who meets it again and
    /// again without a record in between is halted.
    pub(super) fn find_unreadable(&mut self) {
        let words = self.group().last_words();
        let batch = offset_in(&words);
        let places = self.places();
        let more = self.have_more(&places);
        let positions = self.consumer.position().ok();
        let suspect = |(place, has_more): (Place, Option<bool>)| {
            let name = &place.partition;
            let position = positions
                .as_ref()
                .and_then(|list| list.find_partition(&name.topic, name.partition))
                .and_then(|element| element.offset().to_raw())
                .filter(|offset| *offset >= 0);
            suspicion(&place, batch, position, has_more).map(|suspicion| (place, suspicion))
        };
        let mut suspects: Vec<_> = places.into_iter().zip(more).filter_map(suspect).collect();
        if let [(place, Suspicion::Compares)] = suspects.as_slice()
            && let Some(batch) = batch
        {
            let name = &place.partition;
            tracing::warn!(partition = %name, words, "the last record cannot be compared");
            self.restart_behind(name, |log| log.damaged = Some(batch));
            return;
        }
        let is_alone = suspects.len() == 1;
        for (place, suspicion) in suspects.drain(..) {
            match suspicion {
                Suspicion::Compares => {
                    self.reclaim(place, format!("Kafka's records cannot be read: {words}"));
                }
                Suspicion::Stands => self.unreadable(place, &words, READS),
                Suspicion::Near if is_alone => self.unreadable(place, &words, READS),
                Suspicion::Near => self.unreadable(place, &words, READS_IN_DOUBT),
            }
        }
    }

    /// A partition may stand where the records cannot be read: it is read again, or halted after so many
    /// times at the same offset.
    fn unreadable(&mut self, place: Place, words: &str, reads: u32) {
        let (name, expected) = (&place.partition, place.expected);
        let reason = format!("the records from offset {expected} on cannot be read: {words}");
        let tried = {
            let mut partitions = self.group().partitions();
            let Some(reading) = partitions.reading(&name.topic, name.partition) else {
                return;
            };
            reading.log.tried_to_read(expected)
        };
        if tried < reads {
            self.reclaim(place, reason);
        } else {
            tracing::warn!(partition = %name, reason, "nothing more can be read");
            self.end(name, Ended::Halt("unreadable", reason));
        }
    }

    /// Whether Kafka's logs hold more records than were read; `None` = Kafka does not say.
    fn have_more(&self, places: &[Place]) -> Vec<Option<bool>> {
        let names = places.iter().map(|place| &place.partition);
        let highs = claims::log_ends(self.consumer, names, Offset::End).ok();
        let more = |place: &Place| {
            let high = claims::log_end(highs.as_ref()?, &place.partition)?;
            Some(place.expected < high)
        };
        places.iter().map(more).collect()
    }
}

/// Why a partition may be the one whose records cannot be read.
#[derive(Debug, PartialEq, Eq)]
enum Suspicion {
    /// It stands at the very offset, and there is more to read.
    Stands,
    /// It reads the batch of its last record again, to compare it.
    Compares,
    /// It has come near: to an offset inside that batch, or to some before it that may hold nothing.
    Near,
}

/// `batch` is where the batch begins that cannot be read, if that is known; `position`, where the client
/// library stands, if it has read anything.
fn suspicion(
    place: &Place,
    batch: Option<i64>,
    position: Option<i64>,
    has_more: Option<bool>,
) -> Option<Suspicion> {
    if place
        .unseen
        .is_some_and(|last| batch.is_none_or(|batch| batch <= last))
    {
        return Some(Suspicion::Compares);
    }
    if place.is_resting || has_more == Some(false) {
        return None;
    }
    let Some(batch) = batch else {
        return Some(Suspicion::Near);
    };
    if [Some(place.expected), position, place.damaged].contains(&Some(batch)) {
        // Where Kafka does not say that there is more, it may be another's batch.
        return Some(has_more.map_or(Suspicion::Near, |_| Suspicion::Stands));
    }
    let is_inside = place.expected > batch && position.is_none();
    (is_inside || place.expected < batch).then_some(Suspicion::Near)
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
    use super::{Place, Suspicion, offset_in, suspicion};
    use crate::partitions::TopicPartition;

    fn place(expected: i64) -> Place {
        Place {
            partition: TopicPartition {
                topic: "t".to_owned(),
                partition: 0,
            },
            worker: 0,
            expected,
            unseen: None,
            damaged: None,
            is_resting: false,
        }
    }

    #[test]
    fn who_may_be_meant_depends_on_where_it_stands_and_what_there_is_to_read() {
        use Suspicion::{Compares, Near, Stands};
        let (batch, yes, no) = (Some(100), Some(true), Some(false));
        let at = |expected, position, more| suspicion(&place(expected), batch, position, more);
        assert_eq!(at(100, None, yes), Some(Stands));
        assert_eq!(at(100, Some(100), None), Some(Near), "Kafka does not say");
        assert_eq!(at(100, Some(100), no), None, "nothing is left to read");
        assert_eq!(at(95, Some(100), yes), Some(Stands), "behind a marker");
        assert_eq!(at(95, Some(95), yes), Some(Near), "nothing may lie between");
        assert_eq!(at(103, None, yes), Some(Near), "begun inside the batch");
        assert_eq!(at(103, Some(103), yes), None, "it has read past it");
        let resting = Place {
            is_resting: true,
            ..place(100)
        };
        assert_eq!(suspicion(&resting, batch, None, yes), None);
        let comparing = |unseen| Place {
            unseen: Some(unseen),
            ..place(120)
        };
        assert_eq!(suspicion(&comparing(110), batch, None, no), Some(Compares));
        assert_eq!(suspicion(&comparing(90), batch, Some(90), no), None);
        let damaged = Place {
            damaged: batch,
            ..place(120)
        };
        assert_eq!(suspicion(&damaged, batch, None, yes), Some(Stands));
        assert_eq!(suspicion(&place(7), None, Some(7), yes), Some(Near));
        assert_eq!(suspicion(&place(7), None, Some(7), no), None);
    }

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
