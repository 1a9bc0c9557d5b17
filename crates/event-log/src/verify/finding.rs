//! What a verification finds, and how much of it is kept: the first findings of each kind, and a
//! count of all. Pure.

use std::collections::BTreeMap;
use std::fmt;

use chrono::NaiveDate;

/// Findings of each kind that are kept; the others are only counted.
pub const TOLD: usize = 20;

/// What kind of thing is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// An event's content and its content_digest do not fit.
    Content,
    /// An event's chain_digest does not follow from the event and the one before it.
    Chain,
    /// A run's runSeq is not 1..n.
    RunSeq,
    /// An event names another tenant than its run.
    Tenant,
    /// Events without their row in `event_log.run`, or such a row without events.
    Run,
    /// The tombstone of a retired run does not fit the log.
    Retired,
    /// A read model has applied more of a run than the log has.
    Tail,
    /// A stream has another number of events than its ledger says.
    Ledger,
    /// A Kafka offset that the event cannot have come from.
    Offset,
    /// persistedAt falls within a stream, or lies behind its last batch.
    PersistedAt,
    /// Events of a stream that the ledger does not have.
    Stream,
    /// A day is not what was sealed.
    SealDiffers,
    /// The seals do not follow on each other.
    SealChain,
}

impl Kind {
    /// Its name in results; stable.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Content => "content",
            Self::Chain => "chain",
            Self::RunSeq => "run_seq",
            Self::Tenant => "tenant",
            Self::Run => "run",
            Self::Retired => "retired",
            Self::Tail => "tail",
            Self::Ledger => "ledger",
            Self::Offset => "offset",
            Self::PersistedAt => "persisted_at",
            Self::Stream => "stream",
            Self::SealDiffers => "seal_differs",
            Self::SealChain => "seal_chain",
        }
    }
}

/// Where something is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A run by its name.
    Run {
        /// The tenant that owns it.
        tenant_id: String,
        /// Its id within the tenant.
        run_id: String,
    },
    /// A run that has no name, only a number.
    RunNo(i64),
    /// A stream by its name.
    Stream {
        /// The Kafka topic.
        topic: String,
        /// The Kafka partition.
        partition: i32,
        /// The generation.
        generation: i32,
    },
    /// A stream that has no name, only a number.
    StreamId(i64),
    /// The seal of a day.
    Day(NaiveDate),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // As Rust writes texts, so that a name cannot look like the rest of the line.
            Self::Run { tenant_id, run_id } => write!(f, "tenant {tenant_id:?} run {run_id:?}"),
            Self::RunNo(number) => write!(f, "run number {number}"),
            Self::Stream {
                topic,
                partition,
                generation,
            } => write!(f, "{topic}/{partition} generation {generation}"),
            Self::StreamId(number) => write!(f, "stream number {number}"),
            Self::Day(day) => write!(f, "seal of {day}"),
        }
    }
}

/// One thing that is wrong. Its text form is one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind it is.
    pub kind: Kind,
    /// The run or stream.
    pub place: Place,
    /// The event in the run, or the offset in the stream, where it is about one.
    pub at: Option<i64>,
    /// What is wrong, in words.
    pub what: String,
    /// Number of the run, stream or day: what findings are sorted by.
    pub(crate) number: i64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Findings, counted by kind; the first [`TOLD`] of each are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings(BTreeMap<Kind, (u64, Vec<Finding>)>);

impl Findings {
    /// Adds one that comes after all others of its kind.
    pub(crate) fn push(&mut self, finding: Finding) {
        let (count, told) = self.0.entry(finding.kind).or_default();
        *count += 1;
        if told.len() < TOLD {
            told.push(finding);
        }
    }

    /// Adds another verification's. Where both were made in the order of runs or streams, what is kept
    /// are the first of both together.
    pub fn extend(&mut self, other: Self) {
        for (kind, (more, findings)) in other.0 {
            let (count, told) = self.0.entry(kind).or_default();
            *count += more;
            told.extend(findings);
            told.sort_by_key(|finding| finding.number);
            told.truncate(TOLD);
        }
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.values().map(|(count, _)| count).sum()
    }

    /// By kind: how many there are, and the first of them.
    pub fn by_kind(&self) -> impl Iterator<Item = (Kind, u64, &[Finding])> {
        self.0
            .iter()
            .map(|(kind, (count, told))| (*kind, *count, told.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(kind: Kind, number: i64) -> Finding {
        Finding {
            kind,
            place: Place::RunNo(number),
            at: None,
            what: "is wrong".to_owned(),
            number,
        }
    }

    #[test]
    fn the_first_of_each_kind_are_kept_and_all_are_counted_whoever_found_them() {
        let (mut even, mut odd) = (Findings::default(), Findings::default());
        for number in 0..60 {
            let findings = if number % 2 == 0 { &mut even } else { &mut odd };
            findings.push(finding(Kind::Chain, number));
        }
        odd.push(finding(Kind::Content, 7));
        odd.extend(even);
        assert_eq!(odd.count(), 61);
        let by_kind: Vec<(Kind, u64, Vec<i64>)> = odd
            .by_kind()
            .map(|(kind, count, told)| (kind, count, told.iter().map(|f| f.number).collect()))
            .collect();
        let first: Vec<i64> = (0..20).collect();
        assert_eq!(
            by_kind,
            [(Kind::Content, 1, vec![7]), (Kind::Chain, 60, first)]
        );
    }

    #[test]
    fn a_name_cannot_look_like_the_rest_of_the_line() {
        let place = Place::Run {
            tenant_id: "acme".to_owned(),
            run_id: "a\" run \"b".to_owned(),
        };
        assert_eq!(place.to_string(), r#"tenant "acme" run "a\" run \"b""#);
    }
}
