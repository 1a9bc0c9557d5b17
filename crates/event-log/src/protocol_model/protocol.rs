//! The protocol as a state machine: workers, PostgreSQL, what may go wrong, and an operator.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use uuid::Uuid;

use super::checker::{Model, Seen, fingerprint};
use super::database::{Log, Session, Stamped, StreamRow};
use super::invariants;
use super::kafka::BatchId;
use super::scenario::{Budget, ReadsFrom, Scenario};
use super::worker::{Held, Step, Work, Worker};
use crate::fence::Standing;

/// Everything there is at one moment.
#[derive(Debug, Clone)]
pub(crate) struct State {
    pub(crate) log: Arc<Stamped<Log>>,
    /// What was committed before, the newest last, as far as a failover may go back.
    past: Vec<Arc<Stamped<Log>>>,
    pub(crate) workers: Vec<Worker>,
    /// Transactions whose client is gone, and whether their COMMIT had been sent.
    orphans: Vec<(Session, bool)>,
    /// The group's offsets in Kafka. The product writes them for lag tools alone.
    kafka_offsets: Vec<i64>,
    pub(crate) left: Budget,
    tokens: u128,
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

/// What may happen. Workers and orphans by their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// The group gives the partition to this worker, which claims it.
    Claim(usize),
    /// A worker cuts a batch up to an offset.
    Gather {
        worker: usize,
        end: i64,
        lacks_a_record: bool,
    },
    /// A worker with nothing to append looks at its stream row, which is not as it left it.
    Look(usize),
    /// A worker's next statement.
    Statement(usize),
    /// The server commits what a worker asked it to.
    Apply(usize),
    /// The commit's answer arrives.
    Answer(usize),
    /// The worker's connection breaks after it sent COMMIT.
    LoseAnswer(usize),
    Crash(usize),
    /// The server ends a worker's session and rolls back.
    EndSession(usize),
    /// The server cancels a worker's statement.
    Cancel(usize),
    /// Two wait for each other; this one is chosen.
    Deadlock(usize),
    /// The server commits what a client asked for that is gone.
    OrphanApplies(usize),
    /// The server notices that a client is gone, and rolls back.
    OrphanEnds(usize),
    Rewind {
        partition: usize,
        to: i64,
    },
    /// The database goes back by this many commits.
    Failover(usize),
}

impl State {
    /// Replaces what is committed, after checking it.
    fn commit(&mut self, scenario: &Scenario, log: Log) -> Result<(), String> {
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

    fn is_in_deadlock(&self, scenario: &Scenario, worker: usize) -> bool {
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

    fn row_is_locked(&self, stream: usize) -> bool {
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

impl Model for Scenario {
    type State = State;
    type Action = Action;

    fn start(&self) -> State {
        let partitions = self.kafka.partitions();
        let log = Log {
            streams: (0..partitions).map(|p| StreamRow::new(p, 1, 0)).collect(),
            ..Log::default()
        };
        State {
            log: Arc::new(Stamped::new(log.clone(), &log)),
            past: Vec::new(),
            workers: self.workers.iter().map(|p| Worker::new(*p)).collect(),
            orphans: Vec::new(),
            kafka_offsets: vec![0; partitions],
            left: self.budget,
            tokens: 0,
        }
    }

    fn actions(&self, state: &State) -> Vec<Action> {
        let mut actions = Vec::new();
        for worker in 0..state.workers.len() {
            self.worker_actions(state, worker, &mut actions);
        }
        for (i, (_, is_sent)) in state.orphans.iter().enumerate() {
            actions.push(Action::OrphanEnds(i));
            if *is_sent {
                actions.push(Action::OrphanApplies(i));
            }
        }
        if state.left.rewinds > 0 {
            for partition in 0..self.kafka.partitions() {
                let stream = state.log.open_stream(partition);
                let row = &state.log.streams[stream];
                if !state.row_is_locked(stream) && row.claim.is_some() {
                    let to = row.start..row.next;
                    actions.extend(to.map(|to| Action::Rewind { partition, to }));
                }
            }
        }
        if state.left.failovers > 0 {
            actions.extend((1..=state.past.len()).map(Action::Failover));
        }
        actions
    }

    fn step(&self, state: &State, action: Action, seen: &mut Seen) -> Result<State, String> {
        let mut next = state.clone();
        self.act(&mut next, action, seen)?;
        if !matches!(action, Action::Failover(_)) {
            invariants::check_transition(&state.log, &next.log)?;
        }
        Ok(next)
    }

    fn check_end(&self, state: &State, seen: &mut Seen) -> Result<(), String> {
        invariants::check_end(self, state, seen)
    }

    fn describe(&self, state: &State, action: Action) -> String {
        super::words::describe(self, state, action)
    }
}

impl Scenario {
    fn worker_actions(&self, state: &State, worker: usize, actions: &mut Vec<Action>) {
        let me = &state.workers[worker];
        let left = &state.left;
        let is_free = state.blocker(self, worker).is_none();
        match (&me.work, &me.held) {
            (Work::Stopped(_), _) => return,
            (Work::Idle, None) => {
                if left.claims > 0 && is_free {
                    actions.push(Action::Claim(worker));
                }
                return;
            }
            (Work::Idle, Some(held)) => {
                if self.rules.idle_workers_look && self.stands(state, held) != Standing::Next {
                    actions.push(Action::Look(worker));
                }
                for end in self.kafka.ends(me.partition, held.next, self.most_records) {
                    let gather = |lacks_a_record| Action::Gather {
                        worker,
                        end,
                        lacks_a_record,
                    };
                    actions.push(gather(false));
                    if left.lost_records > 0 {
                        actions.push(gather(true));
                    }
                }
            }
            (
                Work::Append {
                    step: Step::Sent(_),
                    ..
                },
                _,
            ) if me.session.is_some() => {
                actions.push(Action::Apply(worker));
            }
            (
                Work::Append {
                    step: Step::Applied(_),
                    ..
                },
                _,
            ) => {
                actions.push(Action::Answer(worker));
            }
            (Work::Append { .. }, _) => {
                if is_free {
                    actions.push(Action::Statement(worker));
                } else if state.is_in_deadlock(self, worker) {
                    actions.push(Action::Deadlock(worker));
                }
            }
        }
        if left.faults > 0 {
            fault_actions(state, worker, actions);
        }
    }

    fn act(&self, state: &mut State, action: Action, seen: &mut Seen) -> Result<(), String> {
        let left = &mut state.left;
        match action {
            Action::Claim(worker) => {
                left.claims -= 1;
                self.claim(state, worker, seen)
            }
            Action::Gather {
                worker,
                end,
                lacks_a_record,
            } => {
                left.lost_records -= u8::from(lacks_a_record);
                self.gather(state, worker, end, lacks_a_record, seen);
                Ok(())
            }
            Action::Look(worker) => {
                let me = &mut state.workers[worker];
                me.let_go();
                count(seen, "an idle worker finds its stream row changed");
                Ok(())
            }
            Action::Statement(worker) => self.statement(state, worker, seen),
            Action::Apply(worker) => self.apply(state, worker, seen),
            Action::Answer(worker) => {
                self.answer(state, worker, seen);
                Ok(())
            }
            Action::Rewind { partition, to } => {
                left.rewinds -= 1;
                self.rewind(state, partition, to)
            }
            Action::OrphanApplies(i) => {
                let (session, _) = state.orphans.remove(i);
                count(seen, "a COMMIT takes effect after its client is gone");
                let log = state.log.with(&session.writes);
                state.commit(self, log)
            }
            Action::OrphanEnds(i) => {
                state.orphans.remove(i);
                Ok(())
            }
            Action::Failover(back) => {
                left.failovers -= 1;
                let to = state.past.len() - back;
                state.log = Arc::clone(&state.past[to]);
                state.past.clear();
                state.orphans.clear();
                state.workers.iter_mut().for_each(|w| w.session = None);
                Ok(())
            }
            Action::LoseAnswer(_)
            | Action::Crash(_)
            | Action::EndSession(_)
            | Action::Cancel(_)
            | Action::Deadlock(_) => {
                self.fault(state, action, seen);
                Ok(())
            }
        }
    }

    /// [`crate::fence::look`].
    fn stands(&self, state: &State, held: &Held) -> Standing {
        let row = state.log.open_row(held.stream);
        (self.rules.stand)(row, held.token, &(held.next..held.next))
    }

    fn claim(&self, state: &mut State, worker: usize, seen: &mut Seen) -> Result<(), String> {
        state.tokens += 1;
        let token = Uuid::from_u128(state.tokens);
        let partition = self.workers[worker];
        let stream = state.log.open_stream(partition);
        let mut log = Log::clone(&state.log);
        let row = &mut log.streams[stream];
        if row.claim.is_some() {
            count(seen, "a partition is claimed from another owner");
        }
        row.claim = Some(token);
        let next = match self.rules.reads_from {
            ReadsFrom::StreamRow => row.next,
            ReadsFrom::Kafka => state.kafka_offsets[partition],
        };
        state.workers[worker].hold(stream, token, next);
        state.commit(self, log)
    }

    fn gather(
        &self,
        state: &mut State,
        worker: usize,
        end: i64,
        lacks_a_record: bool,
        seen: &mut Seen,
    ) {
        let me = &mut state.workers[worker];
        let Some(held) = &me.held else { return };
        let batch = BatchId {
            partition: me.partition,
            start: held.next,
            end,
            is_read_again: state.log.streams[held.stream].generation > 1,
            lacks_a_record,
        };
        if self.rules.reads_from == ReadsFrom::Kafka {
            state.kafka_offsets[me.partition] = end;
        }
        if (self.rules.is_accounted)(self.kafka.cut(&batch).batch) {
            me.work = append(batch, false, Step::Lock);
        } else {
            count(seen, "a batch that lost a record is not sent");
            me.work = Work::Stopped("the batch does not account for every offset");
        }
    }

    fn rewind(&self, state: &mut State, partition: usize, to: i64) -> Result<(), String> {
        let mut log = Log::clone(&state.log);
        let old = log.open_stream(partition);
        log.streams[old].is_open = false;
        let generation = log.streams[old].generation + 1;
        log.streams.push(StreamRow::new(partition, generation, to));
        state.commit(self, log)
    }
}

/// What may go wrong with a worker that has a claim.
fn fault_actions(state: &State, worker: usize, actions: &mut Vec<Action>) {
    let me = &state.workers[worker];
    let left = &state.left;
    if left.crashes > 0 {
        actions.push(Action::Crash(worker));
    }
    let Work::Append { batch, step, .. } = &me.work else {
        return;
    };
    let is_sent = matches!(step, Step::Sent(_));
    if left.lost_answers > 0 && (is_sent || matches!(step, Step::Applied(_))) {
        actions.push(Action::LoseAnswer(worker));
    }
    if me.session.is_some() && !is_sent {
        if left.ended_sessions > 0 {
            actions.push(Action::EndSession(worker));
        }
        let is_long = matches!(step, Step::Insert(_)) && batch.end - batch.start > 1;
        if left.cancels > 0 && is_long {
            actions.push(Action::Cancel(worker));
        }
    }
}

pub(crate) fn append(batch: BatchId, is_checked: bool, step: Step) -> Work {
    Work::Append {
        batch,
        is_checked,
        step,
    }
}

pub(crate) fn count(seen: &mut Seen, what: &'static str) {
    *seen.entry(what).or_default() += 1;
}

impl State {
    pub(crate) fn committed(&mut self, scenario: &Scenario, log: Log) -> Result<(), String> {
        self.commit(scenario, log)
    }

    pub(crate) fn orphan(&mut self, session: Session, is_sent: bool) {
        self.orphans.push((session, is_sent));
    }
}
