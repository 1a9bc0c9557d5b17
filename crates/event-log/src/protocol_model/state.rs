//! Everything there is at one moment: what is committed, the workers, and who waits for whom.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::checker::fingerprint;
use super::database::{Log, Session, Stamped};
use super::invariants;
use super::scenario::{Budget, Scenario};
use super::worker::{Step, Work, Worker};

/// Everything there is at one moment.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) log: Arc<Stamped<Log>>,
    /// What was committed before, the newest last, as far as a failover may go back.
    pub(crate) past: Vec<Arc<Stamped<Log>>>,
    pub(crate) workers: Vec<Worker>,
    /// Transactions whose client is gone, and whether their COMMIT had been sent.
    pub(crate) orphans: Vec<(Session, bool)>,
    /// The group's offsets in Kafka. The product writes them for lag tools alone.
    pub(crate) kafka_offsets: Vec<i64>,
    pub(crate) left: Budget,
    /// How many claims were made.
    pub(crate) tokens: u128,
}

/// Workers of one partition have no names: two states that differ in who of them is who are one.
impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut workers: Vec<_> = self
            .workers
            .iter()
            .map(|worker| (worker.partition, fingerprint(worker)))
            .collect();
        workers.sort_unstable();
        let mut orphans: Vec<_> = self.orphans.iter().map(fingerprint).collect();
        orphans.sort_unstable();
        (&self.log, &self.past, workers, orphans).hash(state);
        (&self.kafka_offsets, self.left, self.tokens).hash(state);
    }
}

impl State {
    /// Replaces what is committed, after checking it.
    pub(crate) fn commit(&mut self, scenario: &Scenario, log: Log) -> Result<(), String> {
        invariants::check_log(&scenario.kafka, &log)?;
        if self.left.failovers > 0 {
            self.past.push(Arc::clone(&self.log));
            if self.past.len() > 2 {
                self.past.remove(0);
            }
        }
        let stamped = Stamped::new(log.clone(), &log);
        self.log = Arc::new(stamped);
        Ok(())
    }

    /// Whose transaction a worker's next statement has to wait for.
    pub(crate) fn blocker(&self, scenario: &Scenario, worker: usize) -> Option<Blocker> {
        let me = &self.workers[worker];
        let blocks: Box<dyn Fn(&Session) -> bool> = match &me.work {
            Work::Idle => {
                let stream = self.log.open_stream(me.partition);
                Box::new(move |session| session.stream == Some(stream))
            }
            Work::Append {
                step: Step::Lock, ..
            } => {
                let stream = me.held.as_ref()?.stream;
                Box::new(move |session| session.stream == Some(stream))
            }
            Work::Append {
                batch,
                is_checked,
                step: Step::Locate,
                ..
            } => {
                let runs = me.runs_to_locate(scenario.kafka.cut(batch), *is_checked);
                let (is_checked, log) = (*is_checked, Arc::clone(&self.log));
                Box::new(move |session| {
                    let mut inserts = runs.clone();
                    inserts.retain(|run| !log.runs.contains(run));
                    !session.writes.runs.is_disjoint(&inserts)
                        || is_checked && session.holds_run(&runs)
                })
            }
            Work::Append {
                step: Step::Insert(plan),
                ..
            } => {
                let plan = Arc::clone(plan);
                Box::new(move |session| session.holds_any_of(&plan.events))
            }
            _ => return None,
        };
        for (i, other) in self.workers.iter().enumerate() {
            if i != worker && other.session.as_ref().is_some_and(&blocks) {
                return Some(Blocker::Worker(i));
            }
        }
        let orphan = |(session, _): &(Session, bool)| blocks(session);
        self.orphans.iter().any(orphan).then_some(Blocker::Orphan)
    }

    /// Whether the transaction that a worker waits for waits for it.
    pub(crate) fn is_in_deadlock(&self, scenario: &Scenario, worker: usize) -> bool {
        let mut at = worker;
        for _ in 0..self.workers.len() {
            match self.blocker(scenario, at) {
                Some(Blocker::Worker(next)) if next == worker => return true,
                Some(Blocker::Worker(next)) => at = next,
                _ => return false,
            }
        }
        false
    }

    pub(crate) fn row_is_locked(&self, stream: usize) -> bool {
        let locks = |session: &Session| session.stream == Some(stream);
        self.workers
            .iter()
            .any(|w| w.session.as_ref().is_some_and(locks))
            || self.orphans.iter().any(|(session, _)| locks(session))
    }
}

/// What a statement waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocker {
    Worker(usize),
    /// A transaction whose client is gone.
    Orphan,
}
