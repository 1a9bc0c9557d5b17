//! What a model is made of: the topic, who reads it, how often what may go wrong, and the rules, which
//! are the product's unless a test replaces one to see it missed.

use std::ops::Range;
use std::rc::Rc;

use uuid::Uuid;

use super::kafka::{Kafka, Slot};
use crate::fence::{OpenRow, Standing, stand};
use crate::record::Batch;

/// A model's size and rules.
pub(crate) struct Scenario {
    pub(crate) kafka: Rc<Kafka>,
    /// Which partition each worker reads. Several of one partition: owner, zombie, successor.
    pub(crate) workers: Vec<usize>,
    /// Records in a batch, at most.
    pub(crate) most_records: usize,
    pub(crate) budget: Budget,
    pub(crate) rules: Rules,
}

impl Scenario {
    pub(crate) fn new(partitions: Vec<Vec<Slot>>, workers: Vec<usize>, budget: Budget) -> Self {
        Self {
            kafka: Rc::new(Kafka::new(partitions)),
            workers,
            most_records: 2,
            budget,
            rules: Rules::of_the_product(),
        }
    }

    /// The same with other rules.
    pub(crate) fn ruled_by(&self, rules: Rules) -> Self {
        Self {
            kafka: Rc::clone(&self.kafka),
            workers: self.workers.clone(),
            rules,
            ..*self
        }
    }
}

/// How often each thing may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Budget {
    /// The consumer group gives a partition to a worker.
    pub(crate) claims: u8,
    /// Of the next five together, at most this many.
    pub(crate) faults: u8,
    /// A process is killed.
    pub(crate) crashes: u8,
    /// The answer to a COMMIT is lost, or the COMMIT itself.
    pub(crate) lost_answers: u8,
    /// The server ends a session: idle in a transaction for too long, or terminated.
    pub(crate) ended_sessions: u8,
    /// The server cancels a statement that takes too long (57014).
    pub(crate) cancels: u8,
    /// A client loses a record between Kafka and the batch.
    pub(crate) lost_records: u8,
    /// An operator has a partition read again.
    pub(crate) rewinds: u8,
    /// The database goes back by one or two commits.
    pub(crate) failovers: u8,
}

/// The decisions of the protocol, each replaceable.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) stand: fn(Option<OpenRow>, Uuid, &Range<i64>) -> Standing,
    pub(crate) is_accounted: fn(&Batch) -> bool,
    /// CHECK stream_ledger_balances.
    pub(crate) ledger_is_checked: bool,
    /// insert_events.sql compares the chain.
    pub(crate) chain_is_checked: bool,
    pub(crate) cache_moves: CacheMoves,
    pub(crate) reads_from: ReadsFrom,
    /// The cache is dropped where the next batch lies before what it learned.
    pub(crate) cache_goes_back: bool,
    /// That a zombie commits is broken in itself, whatever comes of it.
    pub(crate) zombies_may_not_commit: bool,
    /// A worker with nothing to append looks at its stream row now and then.
    pub(crate) idle_workers_look: bool,
}

/// When the run cache moves to what a batch added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CacheMoves {
    /// When the commit's answer is there; any error drops the batch's runs.
    WhenCommitted,
    /// When the COMMIT is sent, and it stays so.
    WhenSent,
}

/// Which offset a new owner goes on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadsFrom {
    /// The stream row's.
    StreamRow,
    /// The one that was committed to Kafka when the batch was cut, before its transaction.
    Kafka,
}

impl Rules {
    pub(crate) fn of_the_product() -> Self {
        Self {
            stand,
            is_accounted: Batch::is_accounted,
            ledger_is_checked: true,
            chain_is_checked: true,
            cache_moves: CacheMoves::WhenCommitted,
            reads_from: ReadsFrom::StreamRow,
            cache_goes_back: true,
            zombies_may_not_commit: true,
            idle_workers_look: true,
        }
    }

    /// The fence compares offsets and never the claim.
    pub(crate) fn without_the_claim_check() -> Self {
        fn stand_of_anyone(row: Option<OpenRow>, token: Uuid, batch: &Range<i64>) -> Standing {
            let claim = Some(token);
            stand(row.map(|row| OpenRow { claim, ..row }), token, batch)
        }
        Self {
            stand: stand_of_anyone,
            ..Self::of_the_product()
        }
    }

    /// Neither the writer nor the database adds the offsets up.
    pub(crate) fn without_the_ledger_check() -> Self {
        Self {
            is_accounted: |_| true,
            ledger_is_checked: false,
            ..Self::of_the_product()
        }
    }

    /// At most once: offsets go to Kafka before the transaction, and reading goes on from them.
    pub(crate) fn with_offsets_committed_to_kafka_first() -> Self {
        fn stand_of_the_claim(row: Option<OpenRow>, token: Uuid, batch: &Range<i64>) -> Standing {
            match stand(row, token, batch) {
                Standing::Elsewhere { .. } | Standing::Partly { .. } => Standing::Next,
                other => other,
            }
        }
        Self {
            stand: stand_of_the_claim,
            reads_from: ReadsFrom::Kafka,
            ..Self::of_the_product()
        }
    }

    /// The cache moves with the COMMIT, and is kept where the answer is lost. (Dropping a cache that is
    /// ahead of the next batch would make that good.)
    pub(crate) fn with_the_cache_kept_after_an_unknown_commit() -> Self {
        Self {
            cache_moves: CacheMoves::WhenSent,
            cache_goes_back: false,
            ..Self::of_the_product()
        }
    }

    /// The cache is kept where a batch is tried again as a whole, of which a part was committed.
    pub(crate) fn with_a_cache_that_stays_ahead() -> Self {
        Self {
            cache_goes_back: false,
            ..Self::of_the_product()
        }
    }

    /// Only a batch finds out that the database went back.
    pub(crate) fn without_a_look_while_idle() -> Self {
        Self {
            idle_workers_look: false,
            ..Self::of_the_product()
        }
    }
}
