//! The protocol as a state machine: workers, PostgreSQL, what may go wrong, and an operator.

use std::sync::Arc;

use uuid::Uuid;

use super::checker::{Model, Seen};
use super::database::{Log, Stamped, StreamRow};
use super::invariants;
use super::kafka::BatchId;
use super::scenario::{ReadsFrom, Scenario};
use super::state::State;
use super::worker::{Held, Step, Work, Worker};
use crate::fence::Standing;

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
            me.work = append(batch, end, false, Step::Lock);
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

pub(crate) fn append(batch: BatchId, whole: i64, is_checked: bool, step: Step) -> Work {
    Work::Append {
        batch,
        whole,
        is_checked,
        step,
    }
}

pub(crate) fn count(seen: &mut Seen, what: &'static str) {
    *seen.entry(what).or_default() += 1;
}
