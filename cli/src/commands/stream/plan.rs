//! What opening a generation at an offset means: what is lost, left out, read again. Pure.
//! Called by `stream resume` and `stream rewind`.

use event_log::generation::Generation;
use serde::Serialize;

use super::Place;
use super::advice::Kind;
use crate::format::{count, or_dash};
use crate::kafka::probe::Watermarks;
use crate::output::{Output, text};

/// What is done to a partition, and what that means.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Plan {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) closed_generation: i32,
    pub(super) opened_generation: i32,
    /// Where the closed generation ends.
    pub(super) next_offset: i64,
    /// Where the opened one begins.
    pub(super) start_offset: i64,
    /// The oldest offset that Kafka has.
    pub(super) kafka_low: i64,
    /// The next offset that a reader of committed records would be given.
    pub(super) kafka_high: i64,
    pub(super) halted_code: Option<String>,
    pub(super) halted_reason: Option<String>,
    /// Offsets that were not read and that Kafka no longer has.
    pub(super) lost: i64,
    /// Offsets that Kafka has and that are not read: a gap in the ledger, for ever.
    pub(super) left_out: i64,
    /// Offsets that were read before, at most: they become duplicates, or dead letters once more.
    pub(super) read_again: i64,
    /// Offsets that Kafka has now and that are read from here on, those included.
    pub(super) to_read: i64,
}

/// Why an offset cannot be where a generation begins.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{place} cannot go on at offset {start}: Kafka has the offsets from {low} on, and {high} is the next it will give out"
)]
pub(super) struct OutsideKafka {
    place: String,
    start: i64,
    low: i64,
    high: i64,
}

impl Plan {
    /// # Errors
    /// [`OutsideKafka`].
    pub(super) fn new(
        shown: &Generation,
        start: i64,
        marks: Watermarks,
    ) -> Result<Self, OutsideKafka> {
        let Watermarks { low, high } = marks;
        if !(low..=high).contains(&start) {
            return Err(OutsideKafka {
                place: format!("{}/{}", shown.topic, shown.partition),
                start,
                low,
                high,
            });
        }
        let next = shown.next_offset;
        let code = shown.halted.as_ref().map(|halt| halt.code.as_str());
        let before = (next.min(high) - start).max(0);
        let (lost, left_out, read_again) = match code.map(Kind::of) {
            // Below its end there may be anything that was never read.
            Some(Kind::OtherLog) if code == Some("recreated") => (0, start - low, 0),
            Some(Kind::OtherLog) => (0, start - low, before),
            _ => ((low - next).max(0), (start - next.max(low)).max(0), before),
        };
        Ok(Self {
            topic: shown.topic.clone(),
            partition: shown.partition,
            closed_generation: shown.generation,
            opened_generation: shown.generation + 1,
            next_offset: next,
            start_offset: start,
            kafka_low: low,
            kafka_high: high,
            halted_code: code.map(str::to_owned),
            halted_reason: shown.halted.as_ref().map(|halt| halt.reason.clone()),
            lost,
            left_out,
            read_again,
            to_read: high - start,
        })
    }

    pub(super) fn place(&self) -> Place {
        Place {
            topic: self.topic.clone(),
            partition: self.partition,
        }
    }

    /// Whether something will never be read, so that somebody has to say yes to it.
    pub(super) fn gives_up(&self) -> bool {
        self.lost + self.left_out > 0
    }

    /// What will never be read, as a sentence.
    pub(super) fn given_up(&self) -> String {
        let parts = [
            (self.lost, "that Kafka no longer has"),
            (self.left_out, "that Kafka has and that are left out"),
        ];
        let parts = parts.into_iter().filter(|(offsets, _)| *offsets > 0);
        let parts: Vec<_> = parts
            .map(|(offsets, which)| format!("{} offsets {which}", count(offsets)))
            .collect();
        format!(
            "{} would leave a gap in the ledger for ever: {}",
            self.place(),
            parts.join(", ")
        )
    }

    pub(super) fn table(&self, act: &str, output: &Output) -> String {
        let mut table = output.table(&[act, &self.place().to_string()]);
        let (closed, opened) = (self.closed_generation, self.opened_generation);
        table.add_row(["halted", &or_dash(self.halted())]);
        table.add_row([
            "closes",
            &format!("generation {closed} at offset {}", self.next_offset),
        ]);
        table.add_row([
            "opens",
            &format!("generation {opened} at offset {}", self.start_offset),
        ]);
        table.add_row([
            "Kafka has",
            &format!("{}..{}", self.kafka_low, self.kafka_high),
        ]);
        for (what, offsets) in [
            ("lost in Kafka", self.lost),
            ("left out", self.left_out),
            ("read again", self.read_again),
            ("to read", self.to_read),
        ] {
            table.add_row([what, &format!("{} offsets", count(offsets))]);
        }
        text(&table)
    }

    fn halted(&self) -> Option<String> {
        let reason = self.halted_reason.as_deref()?;
        Some(format!("{}: {reason}", self.halted_code.as_deref()?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use chrono::DateTime;
    use event_log::Halt;
    use event_log::generation::Generation;

    use super::{OutsideKafka, Plan};
    use crate::kafka::probe::Watermarks;

    fn plan(
        code: Option<&str>,
        next: i64,
        start: i64,
        low: i64,
        high: i64,
    ) -> Result<Plan, OutsideKafka> {
        let shown = Generation {
            stream_id: 1,
            topic: "t".to_owned(),
            partition: 0,
            generation: 3,
            group_id: "g".to_owned(),
            start_offset: 0,
            next_offset: next,
            appended: next,
            duplicates: 0,
            dead_lettered: 0,
            skipped: 0,
            owner: None,
            halted: code.map(|code| Halt {
                code: code.to_owned(),
                reason: "because".to_owned(),
            }),
            halted_at: None,
            updated_at: DateTime::UNIX_EPOCH,
            closed_at: None,
            gap: None,
        };
        Plan::new(&shown, start, Watermarks { low, high })
    }

    /// lost, left out, read again, to read
    fn numbers(code: Option<&str>, next: i64, start: i64, low: i64, high: i64) -> [i64; 4] {
        let plan = plan(code, next, start, low, high).unwrap();
        [plan.lost, plan.left_out, plan.read_again, plan.to_read]
    }

    #[test]
    fn what_expired_is_lost_and_what_is_passed_by_is_left_out() {
        let expired = Some("expired");
        assert_eq!(numbers(expired, 100, 110, 110, 200), [10, 0, 0, 90]);
        assert_eq!(numbers(expired, 100, 150, 110, 200), [10, 40, 0, 50]);
        assert!(plan(expired, 100, 110, 110, 200).unwrap().gives_up());
    }

    #[test]
    fn the_same_record_again_gives_nothing_up_and_passing_it_by_does() {
        let refused = Some("refused");
        assert_eq!(numbers(refused, 100, 100, 50, 200), [0, 0, 0, 100]);
        assert!(!plan(refused, 100, 100, 50, 200).unwrap().gives_up());
        assert_eq!(numbers(refused, 100, 103, 50, 200), [0, 3, 0, 97]);
        assert!(plan(refused, 100, 103, 50, 200).unwrap().gives_up());
    }

    #[test]
    fn in_another_log_everything_below_the_start_is_left_out() {
        assert_eq!(numbers(Some("recreated"), 100, 0, 0, 30), [0, 0, 0, 30]);
        assert_eq!(numbers(Some("recreated"), 100, 30, 0, 30), [0, 30, 0, 0]);
        assert_eq!(
            numbers(Some("truncated"), 100, 10, 10, 120),
            [0, 0, 90, 110]
        );
        assert_eq!(numbers(Some("beyond_end"), 100, 80, 10, 80), [0, 70, 0, 0]);
    }

    #[test]
    fn a_rewind_reads_again_and_gives_nothing_up() {
        assert_eq!(numbers(None, 100, 40, 10, 120), [0, 0, 60, 80]);
        assert!(!plan(None, 100, 40, 10, 120).unwrap().gives_up());
    }

    #[test]
    fn an_offset_that_kafka_does_not_have_is_refused() {
        for (start, good) in [(9, false), (10, true), (120, true), (121, false)] {
            let plan = plan(None, 100, start, 10, 120);
            assert_eq!(plan.is_ok(), good, "{start}");
        }
        let error = plan(None, 100, 9, 10, 120).unwrap_err().to_string();
        assert!(
            error.contains("t/0") && error.contains("10") && error.contains("120"),
            "{error}"
        );
    }
}
