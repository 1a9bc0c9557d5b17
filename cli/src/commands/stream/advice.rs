//! What the codes of a halt mean for an operator: what to do, and which ways there are. Pure.
//! Called by `stream halted` and `stream resume`.

use event_log::Halt;

use super::Place;
use crate::format::count;
use crate::kafka::probe::Watermarks;

/// What a halt says about Kafka's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its beginning has passed the next offset.
    Expired,
    /// It is not the log that was read, at least at its end: offsets have another meaning there.
    OtherLog,
    /// It is as it was, and something keeps its next records from being appended.
    Stuck,
    /// A code that this version does not know, or none.
    Unknown,
}

impl Kind {
    pub(super) fn of(code: &str) -> Self {
        match code {
            "expired" => Self::Expired,
            "beyond_end" | "truncated" | "recreated" => Self::OtherLog,
            "unreadable" | "refused" | "panic" => Self::Stuck,
            _ => Self::Unknown,
        }
    }
}

/// What to do about a halted partition, in a sentence or two.
pub(super) fn way_out(place: &Place, halt: &Halt) -> String {
    let resume = format!("runlog stream resume {place}");
    match Kind::of(&halt.code) {
        Kind::Expired => format!(
            "`{resume} --reason ...` goes on at the oldest record that Kafka has; what is gone must be sent again by its producers"
        ),
        Kind::OtherLog => format!(
            "find out what happened to the topic, then `{resume} --at earliest --reason ...` reads all that it holds now \
             (what was read before becomes duplicates), or --at latest leaves it out"
        ),
        Kind::Stuck => format!(
            "mend the cause, then `{resume} --at next --reason ...` tries the same records again; \
             --at OFFSET leaves out what lies before that offset"
        ),
        Kind::Unknown => format!(
            "`{resume} --at next --reason ...` where the cause is mended; `{resume} --help` tells the other ways"
        ),
    }
}

/// The ways to resume, with what each one loses or repeats, where one has to be chosen.
pub(super) fn choices(place: &Place, halt: &Halt, next: i64, marks: Watermarks) -> String {
    let Watermarks { low, high } = marks;
    let whole = count(high - low);
    let again = format!(
        "--at next      offset {next}: tries the same records again, once the cause is mended"
    );
    let earliest = format!(
        "--at earliest  offset {low}: reads all {whole} offsets that Kafka has now; what was read before becomes duplicates"
    );
    let latest = format!(
        "--at latest    offset {high}: leaves out the {} offsets that Kafka has now and the log may lack",
        count(if Kind::of(&halt.code) == Kind::OtherLog {
            high - low
        } else {
            high - next.max(low)
        })
    );
    let offset = format!(
        "--at OFFSET    from {low} to {high}: leaves out what lies before that offset and was not read"
    );
    let has_next = (low..=high).contains(&next);
    let ways = match Kind::of(&halt.code) {
        Kind::OtherLog => vec![earliest, latest, offset],
        _ if has_next => vec![again, latest, offset],
        _ => vec![earliest, latest, offset],
    };
    format!(
        "{place} is halted ({}: {}); say with --at where it goes on:\n  {}",
        halt.code,
        halt.reason,
        ways.join("\n  ")
    )
}

#[cfg(test)]
mod tests {
    use event_log::Halt;

    use super::{Kind, choices, way_out};
    use crate::commands::stream::Place;
    use crate::kafka::probe::Watermarks;

    const MARKS: Watermarks = Watermarks {
        low: 10,
        high: 1_010,
    };

    fn halt(code: &str) -> (Place, Halt) {
        let place = Place {
            topic: "run-events".to_owned(),
            partition: 1,
        };
        let (code, reason) = (code.to_owned(), "for people".to_owned());
        (place, Halt { code, reason })
    }

    fn said(code: &str, next: i64) -> String {
        let (place, halt) = halt(code);
        choices(&place, &halt, next, MARKS)
    }

    #[test]
    fn every_way_out_names_the_command_and_the_partition() {
        for code in [
            "expired",
            "beyond_end",
            "truncated",
            "recreated",
            "unreadable",
            "refused",
            "panic",
            "stored",
            "x",
        ] {
            let (place, halt) = halt(code);
            let text = way_out(&place, &halt);
            assert!(
                text.contains("`runlog stream resume run-events/1"),
                "{code}: {text}"
            );
        }
    }

    #[test]
    fn another_log_offers_no_next_and_says_what_each_way_costs() {
        let text = said("recreated", 50);
        assert!(!text.contains("--at next"), "{text}");
        assert!(
            text.contains("--at earliest  offset 10: reads all 1,000 offsets"),
            "{text}"
        );
        assert!(
            text.contains("--at latest    offset 1010: leaves out the 1,000 offsets"),
            "{text}"
        );
    }

    #[test]
    fn the_same_records_are_offered_again_where_kafka_has_them() {
        let text = said("refused", 110);
        assert!(text.contains("--at next      offset 110"), "{text}");
        assert!(text.contains("leaves out the 900 offsets"), "{text}");
        assert!(!said("stored", 5).contains("--at next"));
        assert_eq!(Kind::of("of a later version"), Kind::Unknown);
    }
}
