//! Whether reading may go on where the log left off: what is found out about a partition's log in
//! Kafka, and what it means. Pure; [`crate::poll`] finds out and does.
//!
//! A partition is read from the last record on that was read before, where there is one: Kafka's
//! copy of it is compared and dropped. A record that is gone is no fault by itself: retention or
//! compaction may have taken it while the next offset is still there.

use event_log::LastRecord;

use crate::topics::Identity;

/// Why a partition has to wait for an operator.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Halt {
    /// In one word, for the metrics and the stream row.
    pub(crate) label: &'static str,
    /// For people.
    pub(crate) reason: String,
}

/// What does not fit between the log's place in a partition and Kafka's log of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The topic's id seems to be another.
    OtherTopic,
    /// Kafka's log begins behind the next offset.
    Expired {
        /// Its first offset.
        low: i64,
    },
    /// Kafka's log ends before the next offset.
    BeyondEnd {
        /// One past its last offset.
        high: i64,
    },
    /// Another record stands at the last record's offset.
    OtherRecord,
    /// A record stands at an offset that held none.
    RecordBetween {
        /// That offset.
        offset: i64,
    },
}

/// Where the log stands in a partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// The offset to read next.
    pub(crate) next: i64,
    /// The offset of the last record that was read.
    pub(crate) last: Option<i64>,
    /// Whether that record was looked for since the partition was claimed.
    pub(crate) looked: bool,
}

/// What is to be done about a finding.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Wait for an operator.
    Halt(Halt),
    /// Claim again, and so look for the last record, before anything can be said.
    Look,
    /// Go on: it was nothing.
    GoOn,
}

/// What the first record means that is delivered from the last record's offset on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Compared {
    /// It is the last record, to be dropped.
    Matches,
    /// The last record is gone; this one is new.
    Gone,
    /// It does not fit.
    Found(Finding),
}

/// Compares the first record that is delivered; `digest` is asked for at the same offset only.
pub(crate) fn compare(
    last: &LastRecord,
    next: i64,
    offset: i64,
    digest: impl FnOnce() -> [u8; 32],
) -> Compared {
    if offset == last.offset {
        if digest() == last.digest {
            return Compared::Matches;
        }
        return Compared::Found(Finding::OtherRecord);
    }
    if offset < next {
        return Compared::Found(Finding::RecordBetween { offset });
    }
    Compared::Gone
}

/// What a finding means, now that Kafka has told (or could not tell) whose topic it is.
pub(crate) fn verdict(finding: Finding, identity: Identity, place: Place) -> Verdict {
    let next = place.next;
    let (label, reason) = match (finding, identity) {
        (_, Identity::Unsure) => return Verdict::Look,
        (_, Identity::Another(id)) => ("recreated", recreated(next, &id.to_string())),
        (Finding::OtherTopic, _) => return Verdict::GoOn,
        (Finding::Expired { low }, _) => (
            "expired",
            format!(
                "the next offset is {next}, and Kafka's log begins at {low}: records may be lost"
            ),
        ),
        (Finding::BeyondEnd { high }, _) => match place.last {
            Some(last) if last >= high => (
                "truncated",
                format!(
                    "the next offset is {next}, and Kafka's log ends at {high}, so the record at {last} that was read \
                     is gone: {}",
                    cause(identity)
                ),
            ),
            Some(_) if !place.looked => return Verdict::Look,
            Some(last) => (
                "beyond_end",
                format!(
                    "the next offset is {next}, and Kafka's log ends at {high}, behind the last record that was read, \
                     at {last}: no record is missing, but the offsets in between are"
                ),
            ),
            None => (
                "beyond_end",
                format!(
                    "the next offset is {next}, and Kafka's log ends at {high}; no record was read yet"
                ),
            ),
        },
        (Finding::OtherRecord, _) => (
            "truncated",
            format!(
                "Kafka has another record at offset {} than the one that was read there: {}",
                place.last.unwrap_or(next),
                cause(identity)
            ),
        ),
        (Finding::RecordBetween { offset }, _) => (
            "truncated",
            format!(
                "Kafka has a record at offset {offset}, where there was none before the next offset {next}: {}",
                cause(identity)
            ),
        ),
    };
    Verdict::Halt(Halt { label, reason })
}

fn recreated(next: i64, id: &str) -> String {
    format!(
        "the topic was deleted and made again (Kafka's id of it is now {id}): the next offset {next} belongs to the \
         topic that is gone"
    )
}

/// What may have made a record go that was read.
fn cause(identity: Identity) -> &'static str {
    match identity {
        Identity::Same => "its log was cut, as by an unclean election of a leader",
        _ => {
            "its log was cut, as by an unclean election of a leader, or the topic was deleted and made again (its id \
             is not known)"
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic)]
    use uuid::Uuid;

    use super::*;

    const DIGEST: [u8; 32] = [1; 32];

    fn place(last: Option<i64>, looked: bool) -> Place {
        Place {
            next: 100,
            last,
            looked,
        }
    }

    fn label(finding: Finding, identity: Identity, place: Place) -> &'static str {
        match verdict(finding, identity, place) {
            Verdict::Halt(halt) => halt.label,
            Verdict::Look => "look",
            Verdict::GoOn => "go on",
        }
    }

    #[test]
    fn each_kind_of_halt_has_its_own_signs() {
        use Finding::{BeyondEnd, Expired, OtherRecord, OtherTopic, RecordBetween};
        let high = |high| BeyondEnd { high };
        let (read, unread) = (place(Some(97), true), place(None, false));
        for identity in [Identity::Same, Identity::Unknown] {
            let label = |finding, place| label(finding, identity, place);
            assert_eq!(label(Expired { low: 101 }, read), "expired");
            assert_eq!(
                label(high(97), read),
                "truncated",
                "the record at 97 is gone"
            );
            assert_eq!(label(high(98), read), "beyond_end", "it is there");
            assert_eq!(label(high(98), place(Some(97), false)), "look");
            assert_eq!(label(high(97), place(Some(97), false)), "truncated");
            assert_eq!(label(high(0), unread), "beyond_end");
            assert_eq!(label(OtherRecord, read), "truncated");
            assert_eq!(label(RecordBetween { offset: 98 }, read), "truncated");
            assert_eq!(label(OtherTopic, read), "go on");
        }
        let all = [
            OtherTopic,
            Expired { low: 101 },
            high(0),
            OtherRecord,
            RecordBetween { offset: 98 },
        ];
        for finding in all {
            let another = Identity::Another(Uuid::from_u128(7));
            assert_eq!(label(finding, another, read), "recreated");
            assert_eq!(label(finding, Identity::Unsure, read), "look");
        }
    }

    #[test]
    fn an_unknown_id_is_said() {
        let reason = |identity| match verdict(Finding::OtherRecord, identity, place(Some(97), true))
        {
            Verdict::Halt(halt) => halt.reason,
            other => panic!("{other:?}"),
        };
        assert!(reason(Identity::Unknown).contains("id is not known"));
        assert!(!reason(Identity::Same).contains("made again"));
    }

    #[test]
    fn the_first_record_is_compared_at_its_offset_and_placed_elsewhere() {
        let last = LastRecord {
            offset: 97,
            digest: DIGEST,
        };
        let compare = |offset, digest| compare(&last, 100, offset, || digest);
        assert_eq!(compare(97, DIGEST), Compared::Matches);
        assert_eq!(compare(97, [2; 32]), Compared::Found(Finding::OtherRecord));
        let between = Finding::RecordBetween { offset: 99 };
        assert_eq!(compare(99, DIGEST), Compared::Found(between));
        assert_eq!(compare(100, [2; 32]), Compared::Gone);
        assert_eq!(compare(205, [2; 32]), Compared::Gone);
    }
}
