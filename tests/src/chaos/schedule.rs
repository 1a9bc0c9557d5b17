//! The seeded list of faults of one round. Pure: the same seed gives the same list.
//!
//! Called by [`super::round`], which plays it.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use std::fmt;
use std::time::Duration;

/// Which kind of process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `runlog-ingest`
    Ingest,
    /// `runlog-projectors`
    Projectors,
}

impl Kind {
    /// The program's name.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Ingest => "runlog-ingest",
            Self::Projectors => "runlog-projectors",
        }
    }
}

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    /// Kafka's only broker.
    Kafka,
    /// The primary PostgreSQL.
    Postgres,
}

/// One fault. Times are how long it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL of a process at any moment; it starts again.
    Kill(Kind, usize),
    /// SIGSTOP of a process at any moment, and SIGCONT: a zombie where its work went to another.
    Freeze(Kind, usize, Duration),
    /// Immediate stop of PostgreSQL (or SIGKILL of all its processes), and start.
    PostgresCrash {
        /// By SIGKILL; otherwise an immediate stop.
        kill: bool,
        /// How long it is away.
        down: Duration,
    },
    /// The primary is killed, and the standby promoted.
    Failover {
        /// For so long before, the standby got nothing: commits are lost.
        behind: Duration,
    },
    /// PostgreSQL takes no writes.
    ReadOnly(Duration),
    /// The broker is killed (or told to stop), and started.
    BrokerBounce {
        /// By SIGKILL; otherwise by SIGTERM.
        kill: bool,
        /// How long it is away.
        down: Duration,
    },
    /// Every connection to the server is cut.
    Cut(Server),
    /// The server is not to be reached.
    Unreachable(Server, Duration),
    /// Every piece of data to and from the server is late by so many milliseconds.
    Latency(Server, u64, Duration),
    /// The topic gets a partition more.
    AddPartition,
    /// One more ingest joins, and leaves again by SIGTERM.
    Visitor(Duration),
}

impl Fault {
    /// What it is counted as.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kill(Kind::Ingest, _) => "kill ingest",
            Self::Kill(Kind::Projectors, _) => "kill projectors",
            Self::Freeze(Kind::Ingest, ..) => "zombie ingest",
            Self::Freeze(Kind::Projectors, ..) => "zombie projectors",
            Self::PostgresCrash { .. } => "postgres crash",
            Self::Failover { .. } => "postgres failover",
            Self::ReadOnly(_) => "postgres read-only",
            Self::BrokerBounce { .. } => "broker bounce",
            Self::Cut(Server::Kafka) => "kafka cut",
            Self::Cut(Server::Postgres) => "postgres cut",
            Self::Unreachable(Server::Kafka, _) => "kafka unreachable",
            Self::Unreachable(Server::Postgres, _) => "postgres unreachable",
            Self::Latency(Server::Kafka, ..) => "kafka latency",
            Self::Latency(Server::Postgres, ..) => "postgres latency",
            Self::AddPartition => "partition added",
            Self::Visitor(_) => "rebalance",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(_, slot) => write!(f, "{} {slot}", self.name()),
            Self::Freeze(_, slot, lasts) => write!(f, "{} {slot} for {lasts:?}", self.name()),
            Self::PostgresCrash { kill, down } | Self::BrokerBounce { kill, down } => {
                let how = if *kill { "SIGKILL" } else { "stop" };
                write!(f, "{} by {how}, down for {down:?}", self.name())
            }
            Self::Failover { behind } => {
                write!(f, "{}, standby cut off {behind:?} before", self.name())
            }
            Self::ReadOnly(lasts) | Self::Unreachable(_, lasts) | Self::Visitor(lasts) => {
                write!(f, "{} for {lasts:?}", self.name())
            }
            Self::Latency(_, millis, lasts) => {
                write!(f, "{} of {millis} ms for {lasts:?}", self.name())
            }
            Self::Cut(_) | Self::AddPartition => f.write_str(self.name()),
        }
    }
}

/// The protocol by which ingest's group shares the partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Classic, the range assignor: everything is revoked at each rebalance.
    Eager,
    /// Classic, cooperative-sticky.
    Cooperative,
    /// Cooperative-sticky with static members.
    Static,
    /// The consumer group protocol of KIP-848.
    Consumer,
}

/// Which faults come in a round, and how close to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// All kinds, on top of each other, while processes die and stand still at named places.
    Storm,
    /// All kinds, each when the one before is overcome; no process is armed.
    Solo,
    /// Only processes die and stand still, as often as they can.
    Kills,
}

/// One round's plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed that it was made from.
    pub seed: u64,
    /// How the group shares its partitions.
    pub protocol: Protocol,
    /// Which faults come, and how close to each other.
    pub pace: Pace,
    /// Partitions at the start.
    pub partitions: i32,
    /// Faults, each with its time after the start, in order.
    pub faults: Vec<(Duration, Fault)>,
    /// When the faults end.
    pub lasts: Duration,
}

/// Processes of each kind.
pub const INGEST: usize = 3;
/// Processes of each kind.
pub const PROJECTORS: usize = 2;

/// The seed of a round of a run.
#[must_use]
pub fn round_seed(seed: u64, round: u64) -> u64 {
    // Steps far apart, so that the rounds of neighbouring runs differ.
    seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(round)
}

/// Makes the plan of a round.
#[must_use]
pub fn plan(seed: u64, round: u64, lasts: Duration) -> Plan {
    let seed = round_seed(seed, round);
    let mut rng = StdRng::seed_from_u64(seed);
    let (protocol, pace) = kind_of(round);
    let partitions = rng.random_range(4..=8);
    let mut faults = Vec::new();
    let mut deck = Vec::new();
    let mut at = Duration::from_secs(3);
    while at + Duration::from_secs(4) < lasts {
        let fault = loop {
            if deck.is_empty() {
                deck = shuffled_deck(pace, &mut rng);
            }
            if let Some(fault) = deck.pop() {
                break fault;
            }
        };
        faults.push((at, fault));
        let pause = match pace {
            Pace::Kills => 100..700,
            Pace::Storm | Pace::Solo => 500..2_000,
        };
        at += Duration::from_millis(rng.random_range(pause));
    }
    Plan {
        seed,
        protocol,
        pace,
        partitions,
        faults,
        lasts,
    }
}

/// In turn, so that a short run meets more than one. Most kills meet static members, whose group need
/// not wait for a session to run out each time.
fn kind_of(round: u64) -> (Protocol, Pace) {
    let dynamic = [Protocol::Cooperative, Protocol::Consumer, Protocol::Eager];
    let next = |at: u64| dynamic[usize::try_from(at % 3).unwrap_or_default()];
    match round % 4 {
        0 => (Protocol::Static, Pace::Storm),
        1 => (next(round / 4), Pace::Solo),
        2 => (Protocol::Static, Pace::Kills),
        _ => (next(round / 4 + 1), Pace::Storm),
    }
}

/// Every fault once or more, in random order: a round that is long enough meets each.
fn shuffled_deck(pace: Pace, rng: &mut StdRng) -> Vec<Fault> {
    use Kind::{Ingest, Projectors};
    use Server::{Kafka, Postgres};
    let mut lasts = |from: u64, to: u64| Duration::from_millis(rng.random_range(from..to));
    let mut deck = vec![
        Fault::Freeze(Ingest, 0, lasts(5_000, 9_000)),
        Fault::Freeze(Ingest, 1, lasts(500, 7_000)),
        Fault::Freeze(Projectors, 0, lasts(6_500, 9_000)),
        Fault::PostgresCrash {
            kill: false,
            down: lasts(0, 2_000),
        },
        Fault::PostgresCrash {
            kill: true,
            down: lasts(0, 1_000),
        },
        Fault::PostgresCrash {
            kill: false,
            down: lasts(0, 500),
        },
        Fault::Failover {
            behind: lasts(0, 1_500),
        },
        Fault::ReadOnly(lasts(500, 2_500)),
        Fault::BrokerBounce {
            kill: true,
            down: lasts(0, 2_000),
        },
        Fault::BrokerBounce {
            kill: false,
            down: lasts(0, 500),
        },
        Fault::Cut(Kafka),
        Fault::Cut(Postgres),
        Fault::Cut(Postgres),
        Fault::Unreachable(Kafka, lasts(500, 4_000)),
        Fault::Unreachable(Postgres, lasts(500, 4_000)),
        Fault::Latency(
            Kafka,
            lasts(20, 200).as_millis() as u64,
            lasts(1_000, 4_000),
        ),
        Fault::Latency(
            Postgres,
            lasts(5, 60).as_millis() as u64,
            lasts(1_000, 4_000),
        ),
        Fault::AddPartition,
        Fault::Visitor(lasts(2_000, 6_000)),
    ];
    for slot in 0..INGEST {
        deck.extend([Fault::Kill(Ingest, slot); 2]);
    }
    for slot in 0..PROJECTORS {
        deck.extend([Fault::Kill(Projectors, slot); 2]);
    }
    if pace == Pace::Kills {
        let of_processes = |fault: &Fault| {
            matches!(
                fault,
                Fault::Kill(..) | Fault::Freeze(..) | Fault::AddPartition | Fault::Visitor(_)
            )
        };
        deck.retain(of_processes);
    }
    deck.shuffle(rng);
    deck
}

#[cfg(test)]
mod tests {
    use super::{Fault, plan};
    use std::collections::BTreeSet;
    use std::time::Duration;

    #[test]
    fn the_same_seed_and_round_give_the_same_plan() {
        let lasts = Duration::from_secs(60);
        assert_eq!(plan(7, 3, lasts).faults, plan(7, 3, lasts).faults);
        assert_ne!(plan(7, 3, lasts).faults, plan(7, 4, lasts).faults);
        assert_ne!(plan(7, 3, lasts).faults, plan(8, 3, lasts).faults);
    }

    #[test]
    fn a_round_of_a_minute_meets_every_kind_of_fault() {
        let plan = plan(7, 3, Duration::from_secs(60));
        let kinds: BTreeSet<_> = plan.faults.iter().map(|(_, fault)| fault.name()).collect();
        assert_eq!(kinds.len(), 16, "{kinds:?}");
        let ordered = plan.faults.is_sorted_by_key(|(at, _)| *at);
        assert!(ordered && plan.faults.iter().all(|(at, _)| *at < plan.lasts));
        assert!(plan.faults.iter().any(|(_, f)| *f == Fault::AddPartition));
    }
}
