//! One worker of ingest as a value: its claim, its run cache, and the statement of an append that it
//! does next. The decisions are the product's ([`crate::fence`], [`crate::staging`],
//! [`crate::decide`]); what is restated here is the order of [`crate::append`]'s statements.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use chrono::DateTime;
use run_events::{Digest, IdempotencyKey, Reason};
use uuid::Uuid;

use super::database::{EventRow, Place, Session, Stamped, View, Writes};
use super::kafka::{BatchId, Cut, Kafka, Slot};
use crate::decide::{Decision, StagedRun, decide, unstorable};
use crate::record::Outcome;
use crate::run_cache::{KnownKey, KnownRun, RunCache};
use crate::staging::{self, Learned};

/// A worker of one partition.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Worker {
    pub(crate) partition: usize,
    pub(crate) held: Option<Held>,
    pub(crate) work: Work,
    /// Its open transaction, as the server has it.
    pub(crate) session: Option<Session>,
}

/// What a worker has by its claim.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Held {
    pub(crate) stream: usize,
    pub(crate) token: Uuid,
    /// Where its next batch starts.
    pub(crate) next: i64,
    pub(crate) cache: Arc<Stamped<RunCache>>,
}

/// What a worker is doing.
#[derive(Debug, Clone, Hash)]
pub(crate) enum Work {
    /// Nothing, or it is gone.
    Idle,
    Append {
        /// The part that is tried.
        batch: BatchId,
        /// The end of the batch that it is a part of.
        whole: i64,
        /// Whether it goes down the checked path.
        is_checked: bool,
        step: Step,
    },
    /// It has halted, or its process has ended, for this reason.
    Stopped(&'static str),
}

/// Which statement of an append is next.
#[derive(Debug, Clone, Hash)]
pub(crate) enum Step {
    /// lock_stream.sql
    Lock,
    /// insert_runs.sql, and load_runs.sql or lock_runs.sql
    Locate,
    /// known_keys.sql and the decision
    Decide(Arc<Stamped<HashMap<usize, KnownRun>>>),
    /// insert_events.sql, insert_dead_letters.sql, advance_stream.sql
    Insert(Arc<Stamped<Plan>>),
    /// COMMIT
    Commit(Arc<Stamped<Plan>>),
    /// The COMMIT is on its way.
    Sent(Arc<Stamped<Plan>>),
    /// The server has committed; its answer is on its way.
    Applied(Arc<Stamped<Plan>>),
}

/// What a batch is to become.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) events: Vec<(Place, EventRow)>,
    /// Of each event, the chain digest that it follows on.
    pub(crate) previous_chains: Vec<Digest>,
    pub(crate) letters: Vec<((usize, i64), Reason)>,
    /// Whether PostgreSQL will refuse one of the events.
    pub(crate) is_unstorable: bool,
    pub(crate) learned: Option<Learned>,
}

impl Worker {
    pub(crate) fn new(partition: usize) -> Self {
        Self {
            partition,
            held: None,
            work: Work::Idle,
            session: None,
        }
    }

    /// A claim with an empty cache.
    pub(crate) fn hold(&mut self, stream: usize, token: Uuid, next: i64) {
        let cache = stamped_cache(RunCache::new());
        self.held = Some(Held {
            stream,
            token,
            next,
            cache,
        });
    }

    /// Gives the claim up: fenced, or the stored offset is elsewhere.
    pub(crate) fn let_go(&mut self) {
        *self = Self::new(self.partition);
    }

    pub(crate) fn change_cache(&mut self, change: impl FnOnce(&mut RunCache)) {
        if let Some(held) = &mut self.held {
            let mut cache = RunCache::clone(&held.cache);
            change(&mut cache);
            held.cache = stamped_cache(cache);
        }
    }

    /// insert_runs.sql of the fast path: the runs that the cache lacks; of the checked path: all.
    pub(crate) fn runs_to_locate(&self, cut: &Cut, is_checked: bool) -> BTreeSet<i64> {
        let all = 0..cut.prepared.runs.len();
        let wanted: Vec<usize> = match &self.held {
            Some(held) if !is_checked => {
                let mut cache = RunCache::clone(&held.cache);
                staging::unknown(&mut cache, &cut.prepared)
            }
            _ => all.collect(),
        };
        wanted.into_iter().map(|i| run_no(cut, i)).collect()
    }
}

/// The number of a batch's run.
pub(crate) fn run_no(cut: &Cut, run: usize) -> i64 {
    let events = cut.prepared.records.iter().filter_map(|r| r.event);
    let number = events
        .filter(|e| e.run == run)
        .find_map(|e| e.event.run_id.parse::<i64>().ok());
    number.map_or(0, |name| name + 1)
}

/// What load_runs.sql finds of these runs. Runs that insert_runs.sql has just numbered are empty.
pub(crate) fn load(
    view: View<'_>,
    cut: &Cut,
    wanted: &BTreeSet<i64>,
) -> Arc<Stamped<HashMap<usize, KnownRun>>> {
    let loaded: HashMap<usize, KnownRun> = (0..cut.prepared.runs.len())
        .map(|i| (i, run_no(cut, i)))
        .filter(|(_, run_no)| wanted.contains(run_no))
        .map(|(i, run_no)| (i, KnownRun::with_head(run_no, view.head(run_no))))
        .collect();
    let mut identity: Vec<_> = loaded.iter().map(|(i, run)| (*i, identity(run))).collect();
    identity.sort();
    Arc::new(Stamped::new(loaded, &identity))
}

/// The fast path's decision.
pub(crate) fn decide_fast(
    view: View<'_>,
    cut: &Cut,
    kafka: &Kafka,
    batch: &BatchId,
    held: &Held,
    loaded: &HashMap<usize, KnownRun>,
) -> Plan {
    let mut runs = staging::stage(&held.cache, loaded, &cut.prepared);
    let all = 0..cut.prepared.records.len();
    complete_keys(view, cut, all.clone(), &mut runs);
    let now = DateTime::UNIX_EPOCH;
    let decision = decide(&cut.prepared, all, &mut runs, &HashSet::new(), now);
    let mut plan = Plan::default();
    plan.take(decision, held.stream);
    plan.is_unstorable = is_refused(kafka, batch, &plan.events);
    plan.learned = Some(Learned {
        loaded: loaded.clone(),
        staged: staging::staged(runs),
    });
    plan
}

/// The checked path's decision, with each record alone where the database refuses one. (The product
/// finds that one by halving; which ranges it tries on the way is seen by nobody.)
pub(crate) fn decide_checked(
    view: View<'_>,
    cut: &Cut,
    kafka: &Kafka,
    batch: &BatchId,
    stream: usize,
) -> Plan {
    let whole = 0..cut.prepared.records.len();
    let mut plan = Plan::default();
    plan.take(decide_range(view, cut, whole.clone()), stream);
    if !is_refused(kafka, batch, &plan.events) {
        return plan;
    }
    let mut plan = Plan::default();
    let mut writes = Writes::clone(view.writes);
    for i in whole {
        let view = View {
            log: view.log,
            writes: &writes,
        };
        let mut one = Plan::default();
        one.take(decide_range(view, cut, i..i + 1), stream);
        if is_refused(kafka, batch, &one.events) {
            one = Plan::default();
            let record = &cut.prepared.records[i];
            if let Some(event) = record.event {
                let rejection = unstorable(event.event, "");
                let outcome = Outcome::DeadLetter(rejection.reason);
                let mut decision = Decision::default();
                decision.reject(record.record, rejection, outcome);
                one.take(decision, stream);
            }
        }
        writes.events.extend(one.events.iter().cloned());
        plan.append(one);
    }
    plan
}

fn decide_range<'b>(view: View<'_>, cut: &'b Cut, range: std::ops::Range<usize>) -> Decision<'b> {
    let runs = 0..cut.prepared.runs.len();
    let known: Vec<KnownRun> = runs
        .map(|i| run_no(cut, i))
        .map(|run_no| KnownRun::with_head(run_no, view.head(run_no)))
        .collect();
    let mut runs: Vec<StagedRun<'_>> = known.iter().map(StagedRun::new).collect();
    complete_keys(view, cut, range.clone(), &mut runs);
    let records = &cut.prepared.records[range.clone()];
    let used: HashSet<Uuid> = records
        .iter()
        .filter_map(|r| r.event)
        .map(|e| e.event.event_id)
        .filter(|id| view.has_event_id(*id))
        .collect();
    decide(&cut.prepared, range, &mut runs, &used, DateTime::UNIX_EPOCH)
}

/// `known::complete_keys`.
fn complete_keys(
    view: View<'_>,
    cut: &Cut,
    range: std::ops::Range<usize>,
    runs: &mut [StagedRun<'_>],
) {
    for event in cut.prepared.records[range].iter().filter_map(|r| r.event) {
        let key = event.event.idempotency_key;
        if let Some(run_no) = runs[event.run].lacks(&key)
            && let Some(known) = view.key(run_no, &key)
        {
            runs[event.run].new_keys.insert(key, known);
        }
    }
}

fn is_refused(kafka: &Kafka, batch: &BatchId, events: &[(Place, EventRow)]) -> bool {
    events
        .iter()
        .any(|(_, row)| matches!(kafka.slot(batch.partition, row.offset), Slot::Unstorable(_)))
}

impl Plan {
    fn take(&mut self, decision: Decision<'_>, stream: usize) {
        let Decision {
            outcomes,
            mut events,
            dead_letters,
        } = decision;
        events.sort_by_key(|e| (e.run_no, e.run_seq));
        self.outcomes.extend(outcomes);
        for new in events {
            let row = EventRow {
                stream,
                offset: new.source_offset,
                key: new.event.idempotency_key,
                event_id: new.event.event_id,
                content: new.content,
                chain: new.chain,
            };
            self.events.push(((new.run_no, new.run_seq), row));
            self.previous_chains.push(new.previous_chain);
        }
        let letter =
            |l: &crate::decide::NewDeadLetter<'_>| ((stream, l.record.offset), l.rejection.reason);
        self.letters.extend(dead_letters.iter().map(letter));
    }

    fn append(&mut self, mut next: Self) {
        self.outcomes.append(&mut next.outcomes);
        self.events.append(&mut next.events);
        self.previous_chains.append(&mut next.previous_chains);
        self.letters.append(&mut next.letters);
    }

    pub(crate) fn stamped(self) -> Arc<Stamped<Self>> {
        let learned = self.learned.as_ref().map(|learned| {
            let mut loaded: Vec<_> = learned
                .loaded
                .iter()
                .map(|(i, run)| (*i, identity(run)))
                .collect();
            loaded.sort();
            let staged = learned.staged.iter();
            let staged: Vec<_> = staged
                .map(|(head, chain, keys)| (*head, chain.0, sorted(keys)))
                .collect();
            (loaded, staged)
        });
        let identity = (
            self.outcomes.clone(),
            self.events.clone(),
            self.previous_chains.clone(),
            self.letters.clone(),
            learned,
        );
        Arc::new(Stamped::new(self, &identity))
    }
}

type KeyIdentity = (IdempotencyKey, [u8; 32], i64, Uuid);

fn sorted(keys: &HashMap<IdempotencyKey, KnownKey>) -> Vec<KeyIdentity> {
    let mut sorted: Vec<_> = keys
        .iter()
        .map(|(key, k)| (*key, k.content.0, k.original.run_seq, k.original.event_id))
        .collect();
    sorted.sort();
    sorted
}

type RunIdentity = (i64, i64, [u8; 32], bool, Vec<KeyIdentity>);

fn identity(run: &KnownRun) -> RunIdentity {
    let keys = sorted(&run.keys);
    (run.run_no, run.head_seq, run.chain.0, run.is_whole, keys)
}

fn stamped_cache(cache: RunCache) -> Arc<Stamped<RunCache>> {
    let mut known: Vec<_> = cache.runs().map(|(_, run)| identity(run)).collect();
    known.sort();
    let identity = (known, cache.learned_to());
    Arc::new(Stamped::new(cache, &identity))
}
