//! What append must have made of the records: rows, dead letters and the ledger.
//!
//! Called by the suites with every record that Kafka acknowledged. A run's events are expected on
//! one partition, so that the offsets alone decide which record is first.

use super::Produced;
use super::envelope::{self, Event, Refusal};
use super::json::Json;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The part of an event that a retry must repeat.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    /// `eventType`
    pub event_type: String,
    /// `stepId`
    pub step_id: Option<String>,
    /// `logicalAttemptId`
    pub logical_attempt_id: i64,
    /// `planId`
    pub plan_id: String,
    /// `planVersion`
    pub plan_version: String,
    /// `projectId`
    pub project_id: String,
    /// `environmentId`
    pub environment_id: String,
    /// `payload`; JSON null is the same as absent.
    pub payload: Option<Json>,
}

/// A row of the log.
#[derive(Clone, Debug)]
pub struct Appended {
    /// Kafka partition of the record.
    pub partition: i32,
    /// Kafka offset of the record.
    pub offset: i64,
    /// 1, 2, 3 ... within (tenant, run).
    pub run_seq: i64,
    /// The event.
    pub event: Event,
}

/// A record that is a dead letter.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Index of the record in the slice that was judged.
    pub record: usize,
    /// Why.
    pub refusal: Refusal,
    /// Whether the row must name tenant and run: the record was a valid event, refused by what the
    /// log holds.
    pub names_run: bool,
}

/// What became of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A new row.
    Appended,
    /// The key is in the log with the same content.
    Duplicate,
    /// A dead letter.
    Dead,
}

/// How many records of a partition ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Rows.
    pub appended: i64,
    /// Duplicates.
    pub duplicates: i64,
    /// Dead letters.
    pub dead_lettered: i64,
}

/// One reading of a partition: a generation of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Kafka partition.
    pub partition: i32,
    /// 1, 2, 3 ...
    pub generation: i64,
    /// The first offset that it read.
    pub start: i64,
    /// The offset after the last one that it read.
    pub end: i64,
}

/// The expected log.
#[derive(Debug, Default)]
pub struct Log {
    /// Rows, by partition and offset.
    pub appended: Vec<Appended>,
    /// Dead letters, by partition and offset.
    pub dead_letters: Vec<DeadLetter>,
    /// Ledger totals by partition.
    pub totals: BTreeMap<i32, Totals>,
    /// Ledger totals by reading, where partitions were read in parts or more than once.
    pub readings: Vec<(Reading, Totals)>,
    /// What became of each record when it was first read, in the order of the slice that was judged.
    pub outcomes: Vec<Outcome>,
}

type RunKey = (String, String);

#[derive(Default)]
struct Memory {
    /// Per run: last runSeq, and the content under each key.
    runs: HashMap<RunKey, (i64, HashMap<String, Content>)>,
    /// Event ids that the log holds.
    event_ids: HashMap<String, (RunKey, String)>,
}

impl Memory {
    /// Decides one valid event: `Ok(Some(runSeq))` appended, `Ok(None)` duplicate.
    fn decide(&mut self, event: &Event) -> Result<Option<i64>, &'static [&'static str]> {
        let run_key = (event.tenant_id.clone(), event.run_id.clone());
        if let Some(first) = self
            .runs
            .get(&run_key)
            .and_then(|(_, keys)| keys.get(&event.idempotency_key))
        {
            return if *first == event.content {
                Ok(None)
            } else {
                Err(&["idempotency_conflict"])
            };
        }
        if self.event_ids.contains_key(&event.event_id) {
            return Err(&["event_id_reused"]);
        }
        let place = (run_key.clone(), event.idempotency_key.clone());
        self.event_ids.insert(event.event_id.clone(), place);
        let (last_seq, keys) = self.runs.entry(run_key).or_default();
        *last_seq += 1;
        keys.insert(event.idempotency_key.clone(), event.content.clone());
        Ok(Some(*last_seq))
    }
}

/// Judges every record, each partition read once from its beginning to its end.
///
/// # Panics
/// Where a run's records stand on two partitions: the outcome would depend on timing, and the
/// generator must not do that.
#[must_use]
pub fn judge(records: &[Produced]) -> Log {
    let partitions: BTreeSet<i32> = records.iter().map(|record| record.partition).collect();
    let whole = |partition| Reading {
        partition,
        generation: 1,
        start: 0,
        end: i64::MAX,
    };
    let readings: Vec<Reading> = partitions.into_iter().map(whole).collect();
    let mut log = judge_readings(records, &readings);
    log.readings.clear();
    log
}

/// Judges the records as these readings meet them, one after the other; what was read before is in
/// the log, or among the dead letters. Records that no reading meets are nowhere.
///
/// # Panics
/// As [`judge`].
#[must_use]
pub fn judge_readings(records: &[Produced], readings: &[Reading]) -> Log {
    assert_homes(records);
    let mut order: Vec<usize> = (0..records.len()).collect();
    order.sort_by_key(|&at| (records[at].partition, records[at].offset));
    let mut log = Log {
        outcomes: vec![Outcome::Dead; records.len()],
        ..Log::default()
    };
    let mut memory = Memory::default();
    let mut read_before = vec![false; records.len()];
    for reading in readings {
        let mut totals = Totals::default();
        let meets = |at: &&usize| {
            let record = &records[**at];
            record.partition == reading.partition
                && (reading.start..reading.end).contains(&record.offset)
        };
        for &at in order.iter().filter(meets) {
            let outcome = log.read(&mut memory, records, at);
            totals.count(outcome);
            log.totals
                .entry(reading.partition)
                .or_default()
                .count(outcome);
            if !std::mem::replace(&mut read_before[at], true) {
                log.outcomes[at] = outcome;
            }
        }
        log.readings.push((*reading, totals));
    }
    log
}

fn assert_homes(records: &[Produced]) {
    let mut home: HashMap<RunKey, i32> = HashMap::new();
    for record in records {
        if let Ok(event) = envelope::read(record) {
            let partition = *home
                .entry((event.tenant_id, event.run_id.clone()))
                .or_insert(record.partition);
            assert_eq!(
                partition, record.partition,
                "run {} stands on two partitions",
                event.run_id
            );
        }
    }
}

impl Totals {
    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Appended => self.appended += 1,
            Outcome::Duplicate => self.duplicates += 1,
            Outcome::Dead => self.dead_lettered += 1,
        }
    }
}

impl Log {
    /// One record is read: what becomes of it.
    fn read(&mut self, memory: &mut Memory, records: &[Produced], at: usize) -> Outcome {
        let record = &records[at];
        let (refusal, names_run) = match envelope::read(record) {
            Ok(event) => match memory.decide(&event) {
                Ok(Some(run_seq)) => {
                    self.appended.push(Appended {
                        partition: record.partition,
                        offset: record.offset,
                        run_seq,
                        event,
                    });
                    return Outcome::Appended;
                }
                Ok(None) => return Outcome::Duplicate,
                Err(reasons) => {
                    let (tenant_id, run_id) = (Some(event.tenant_id), Some(event.run_id));
                    let refusal = Refusal {
                        reasons,
                        field: None,
                        tenant_id,
                        run_id,
                    };
                    (refusal, true)
                }
            },
            Err(refusal) => (refusal, false),
        };
        self.dead_letters.push(DeadLetter {
            record: at,
            refusal,
            names_run,
        });
        Outcome::Dead
    }
}

#[cfg(test)]
mod tests {
    use super::{Outcome, Reading, judge, judge_readings};
    use crate::oracle::Produced;

    fn record(offset: i64, event_id: u8, run: &str, key: char, payload: &str) -> Produced {
        let value = format!(
            r#"{{"eventId":"00000000-0000-0000-0000-0000000000{event_id:02}","eventType":"RunQueued","tenantId":"t",
            "projectId":"p","environmentId":"e","runId":"{run}","planId":"l","planVersion":"v","engineAttemptId":{event_id},
            "logicalAttemptId":1,"idempotencyKey":"{}","emittedAt":"2026-01-01T00:00:00Z","payload":{payload}}}"#,
            String::from(key).repeat(64)
        );
        Produced {
            partition: 0,
            offset,
            key: None,
            value: Some(value.into_bytes()),
            content_type: None,
        }
    }

    #[test]
    fn the_first_offset_wins_and_the_key_is_asked_before_the_event_id() {
        let records = [
            record(6, 1, "a", 'b', "{}"), // event id 1 is taken
            record(0, 1, "a", 'a', "{\"n\":1}"),
            record(1, 2, "a", 'a', "{\"n\":1.0}"), // a retry
            record(2, 3, "a", 'a', "{\"n\":2}"),   // a conflict
            record(3, 3, "a", 'c', "null"),        // the conflict's event id is free
            record(4, 1, "a", 'c', "null"), // a retry, under an event id that another event holds
            record(5, 4, "b", 'a', "{}"),   // the same key in another run
        ];
        let log = judge(&records);
        use Outcome::{Appended, Dead, Duplicate};
        assert_eq!(
            log.outcomes,
            [
                Dead, Appended, Duplicate, Dead, Appended, Duplicate, Appended
            ]
        );
        let sequence: Vec<_> = log
            .appended
            .iter()
            .map(|row| (row.offset, row.run_seq))
            .collect();
        assert_eq!(sequence, [(0, 1), (3, 2), (5, 1)]);
        let reasons: Vec<_> = log
            .dead_letters
            .iter()
            .map(|dead| dead.refusal.reasons[0])
            .collect();
        assert_eq!(reasons, ["idempotency_conflict", "event_id_reused"]);
    }

    #[test]
    fn a_second_reading_knows_what_the_first_one_appended() {
        let records = [
            record(0, 1, "a", 'a', "null"),
            record(1, 1, "a", 'b', "null"), // event id 1 is taken
            record(2, 2, "a", 'b', "null"), // the same event, under an id of its own
            record(3, 3, "a", 'a', "{}"),   // a conflict
            record(4, 4, "a", 'd', "null"),
            record(5, 5, "a", 'e', "null"),
        ];
        let reading = |generation, start, end| Reading {
            partition: 0,
            generation,
            start,
            end,
        };
        let readings = [reading(1, 0, 4), reading(2, 1, 4), reading(3, 5, 6)];
        let log = judge_readings(&records, &readings);
        let totals: Vec<_> = log
            .readings
            .iter()
            .map(|(_, t)| [t.appended, t.duplicates, t.dead_lettered])
            .collect();
        // What was refused for its event id is a duplicate when its key is in the log.
        assert_eq!(totals, [[2, 0, 2], [0, 2, 1], [1, 0, 0]]);
        let offsets: Vec<_> = log.appended.iter().map(|row| row.offset).collect();
        assert_eq!(offsets, [0, 2, 5], "offset 4 was never read");
    }
}
