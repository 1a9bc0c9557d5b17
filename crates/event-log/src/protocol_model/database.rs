//! PostgreSQL as a value: committed rows, the writes and locks of open transactions, and the
//! statements of the append path as far as the protocol depends on them. Each function names the
//! statement that it stands for.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use chrono::DateTime;
use run_events::{Digest, IdempotencyKey, Reason};
use uuid::Uuid;

use super::checker::fingerprint;
use crate::fence::OpenRow;
use crate::record::Original;
use crate::run_cache::KnownKey;

/// A value with its fingerprint, so that states that share it need not hash it again.
#[derive(Debug)]
pub(crate) struct Stamped<T> {
    value: T,
    stamp: u64,
}

impl<T> Stamped<T> {
    /// `identity` stands for the value.
    pub(crate) fn new(value: T, identity: &impl Hash) -> Self {
        let stamp = fingerprint(identity);
        Self { value, stamp }
    }
}

impl<T> Hash for Stamped<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.stamp.hash(state);
    }
}

impl<T> Deref for Stamped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// A row of `event_log.stream`.
#[derive(Debug, Clone, Hash)]
pub(crate) struct StreamRow {
    pub(crate) partition: usize,
    pub(crate) generation: i32,
    pub(crate) is_open: bool,
    pub(crate) start: i64,
    pub(crate) next: i64,
    pub(crate) claim: Option<Uuid>,
    pub(crate) appended: i64,
    pub(crate) duplicates: i64,
    pub(crate) dead_lettered: i64,
    pub(crate) skipped: i64,
}

impl StreamRow {
    pub(crate) fn new(partition: usize, generation: i32, start: i64) -> Self {
        Self {
            partition,
            generation,
            is_open: true,
            start,
            next: start,
            claim: None,
            appended: 0,
            duplicates: 0,
            dead_lettered: 0,
            skipped: 0,
        }
    }

    /// CHECK stream_ledger_balances.
    pub(crate) fn balances(&self) -> bool {
        self.next - self.start
            == self.appended + self.duplicates + self.dead_lettered + self.skipped
    }
}

/// (run_no, run_seq).
pub(crate) type Place = (i64, i64);

/// A row of `event_log.event`, beside its place.
#[derive(Debug, Clone, Hash)]
pub(crate) struct EventRow {
    pub(crate) stream: usize,
    pub(crate) offset: i64,
    pub(crate) key: IdempotencyKey,
    pub(crate) event_id: Uuid,
    pub(crate) content: Digest,
    pub(crate) chain: Digest,
}

/// What is committed. Streams are numbered by their place.
#[derive(Debug, Clone, Hash, Default)]
pub(crate) struct Log {
    pub(crate) streams: Vec<StreamRow>,
    pub(crate) runs: BTreeSet<i64>,
    pub(crate) events: BTreeMap<Place, EventRow>,
    pub(crate) letters: BTreeMap<(usize, i64), Reason>,
}

impl Log {
    /// The open generation of a partition.
    pub(crate) fn open_stream(&self, partition: usize) -> usize {
        let is_it = |row: &StreamRow| row.partition == partition && row.is_open;
        match self.streams.iter().position(is_it) {
            Some(stream) => stream,
            None => unreachable!("a partition always has an open generation"),
        }
    }

    /// What lock_stream.sql returns.
    pub(crate) fn open_row(&self, stream: usize) -> Option<OpenRow> {
        let row = &self.streams[stream];
        row.is_open.then_some(OpenRow {
            claim: row.claim,
            next_offset: row.next,
        })
    }

    /// COMMIT.
    pub(crate) fn with(&self, writes: &Writes) -> Self {
        let mut log = self.clone();
        log.runs.extend(&writes.runs);
        log.events.extend(writes.events.iter().cloned());
        log.letters.extend(writes.letters.iter().copied());
        if let Some((stream, row)) = &writes.stream {
            log.streams[*stream] = row.clone();
        }
        log
    }
}

/// What an open transaction has written.
#[derive(Debug, Clone, Hash, Default)]
pub(crate) struct Writes {
    pub(crate) runs: BTreeSet<i64>,
    pub(crate) events: Vec<(Place, EventRow)>,
    pub(crate) letters: Vec<((usize, i64), Reason)>,
    pub(crate) stream: Option<(usize, StreamRow)>,
}

/// An open transaction of one client, with its locks.
#[derive(Debug, Clone, Hash, Default)]
pub(crate) struct Session {
    /// The stream row that it holds FOR UPDATE.
    pub(crate) stream: Option<usize>,
    /// The run rows that it holds FOR UPDATE.
    pub(crate) runs: BTreeSet<i64>,
    pub(crate) writes: Writes,
}

impl Session {
    /// Whether inserting these runs, or locking them, has to wait for this one.
    pub(crate) fn holds_run(&self, runs: &BTreeSet<i64>) -> bool {
        !self.writes.runs.is_disjoint(runs) || !self.runs.is_disjoint(runs)
    }

    /// Whether an insert of these events has to wait for this one, to know whether they are unique.
    pub(crate) fn holds_any_of(&self, events: &[(Place, EventRow)]) -> bool {
        events
            .iter()
            .any(|new| self.writes.events.iter().any(|held| collide(held, new)))
    }
}

/// Whether one of event's four unique constraints forbids both.
fn collide(a: &(Place, EventRow), b: &(Place, EventRow)) -> bool {
    let ((place_a, a), (place_b, b)) = (a, b);
    place_a == place_b
        || (place_a.0, a.key) == (place_b.0, b.key)
        || a.event_id == b.event_id
        || (a.stream, a.offset) == (b.stream, b.offset)
}

/// Why insert_events.sql failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// 23505.
    Unique,
    /// The events do not continue a run.
    Hole,
    /// A value that PostgreSQL cannot hold.
    Unstorable,
}

/// What a statement of a transaction sees: what is committed, and its own writes.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) log: &'a Log,
    pub(crate) writes: &'a Writes,
}

impl<'a> View<'a> {
    fn events(self) -> impl Iterator<Item = (Place, &'a EventRow)> {
        let committed = self.log.events.iter().map(|(place, row)| (*place, row));
        let own = self.writes.events.iter().map(|(place, row)| (*place, row));
        committed.chain(own)
    }

    /// run_heads.sql, load_runs.sql.
    pub(crate) fn head(self, run_no: i64) -> Option<(i64, Digest)> {
        self.events()
            .filter(|((run, _), _)| *run == run_no)
            .map(|((_, seq), row)| (seq, row.chain))
            .max_by_key(|(seq, _)| *seq)
    }

    /// known_keys.sql.
    pub(crate) fn key(self, run_no: i64, key: &IdempotencyKey) -> Option<KnownKey> {
        let ((_, run_seq), row) = self
            .events()
            .find(|((run, _), row)| *run == run_no && row.key == *key)?;
        let original = Original {
            event_id: row.event_id,
            run_seq,
            persisted_at: DateTime::UNIX_EPOCH,
        };
        Some(KnownKey {
            content: row.content,
            original,
        })
    }

    pub(crate) fn has_event_id(self, event_id: Uuid) -> bool {
        self.events().any(|(_, row)| row.event_id == event_id)
    }

    /// insert_events.sql: whether it would insert these events, each with the chain digest that it
    /// follows on, in order of their places.
    pub(crate) fn check_insert(
        self,
        events: &[(Place, EventRow)],
        previous_chains: &[Digest],
        chain_is_checked: bool,
    ) -> Result<(), Refused> {
        for (((run_no, run_seq), _), previous_chain) in events.iter().zip(previous_chains) {
            let before = (*run_no, run_seq - 1);
            if *run_seq == 1 || events.iter().any(|(place, _)| *place == before) {
                continue;
            }
            match self.events().find(|(place, _)| *place == before) {
                None => return Err(Refused::Hole),
                Some((_, row)) if chain_is_checked && row.chain != *previous_chain => {
                    return Err(Refused::Hole);
                }
                Some(_) => {}
            }
        }
        let held = |new: &(Place, EventRow)| {
            self.events()
                .any(|(place, row)| collide(&(place, row.clone()), new))
        };
        if events.iter().any(held) {
            return Err(Refused::Unique);
        }
        Ok(())
    }
}
