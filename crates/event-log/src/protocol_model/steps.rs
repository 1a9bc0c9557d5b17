//! What the statements of an append do to the state, and what a fault does to it. The order of the
//! statements is that of [`crate::append`] and [`crate::checked`].

use std::sync::Arc;

use super::checker::Seen;
use super::database::{Refused, Session, Stamped, View, Writes};
use super::invariants;
use super::kafka::BatchId;
use super::protocol::{Action, append, count};
use super::scenario::{CacheMoves, ReadsFrom, Scenario};
use super::state::State;
use super::worker::{Held, Plan, Step, Work, decide_checked, decide_fast, load};
use crate::fence::Standing;
use crate::record::Outcome;
use crate::staging;

impl Scenario {
    /// The worker's next statement. Its session may be gone: then it fails.
    pub(crate) fn statement(
        &self,
        state: &mut State,
        worker: usize,
        seen: &mut Seen,
    ) -> Result<(), String> {
        let me = &state.workers[worker];
        let (
            Work::Append {
                batch,
                whole,
                is_checked,
                step,
            },
            Some(held),
        ) = (me.work.clone(), &me.held)
        else {
            return Ok(());
        };
        let held = held.clone();
        if matches!(step, Step::Lock) {
            return self.lock(state, worker, (batch, whole), is_checked, &held, seen);
        }
        let Some(session) = state.workers[worker].session.clone() else {
            self.retry(state, worker, (batch, whole));
            return Ok(());
        };
        let cut = self.kafka.cut(&batch);
        let log = Arc::clone(&state.log);
        let view = View {
            log: &log,
            writes: &session.writes,
        };
        let next = match step {
            Step::Locate => {
                let runs = state.workers[worker].runs_to_locate(cut, is_checked);
                let loaded = load(view, cut, &runs);
                if let Some(session) = &mut state.workers[worker].session {
                    let new = runs.iter().filter(|run| !log.runs.contains(run));
                    session.writes.runs.extend(new);
                    if is_checked {
                        session.runs = runs;
                    }
                }
                Step::Decide(loaded)
            }
            Step::Decide(_) if is_checked => {
                let plan = decide_checked(view, cut, &self.kafka, &batch, held.stream);
                Step::Insert(plan.stamped())
            }
            Step::Decide(loaded) => {
                let plan = decide_fast(view, cut, &self.kafka, &batch, &held, &loaded);
                Step::Insert(plan.stamped())
            }
            Step::Insert(plan) => {
                return self.insert(state, worker, (batch, whole), is_checked, &plan, seen);
            }
            Step::Commit(plan) => {
                if self.rules.cache_moves == CacheMoves::WhenSent {
                    self.learn(state, worker, &batch, &plan);
                }
                Step::Sent(plan)
            }
            // The session is gone, or these are not the worker's to do.
            Step::Lock | Step::Sent(_) | Step::Applied(_) => return Ok(()),
        };
        state.workers[worker].work = append(batch, whole, is_checked, next);
        Ok(())
    }

    fn lock(
        &self,
        state: &mut State,
        worker: usize,
        (batch, whole): (BatchId, i64),
        is_checked: bool,
        held: &Held,
        seen: &mut Seen,
    ) -> Result<(), String> {
        let row = state.log.open_row(held.stream);
        let me = &mut state.workers[worker];
        match (self.rules.stand)(row, held.token, &(batch.start..batch.end)) {
            Standing::Next => {
                me.session = Some(Session {
                    stream: Some(held.stream),
                    ..Session::default()
                });
                if self.rules.cache_goes_back && !is_checked {
                    me.change_cache(|cache| staging::go_back(cache, batch.start));
                }
                me.work = append(batch, whole, is_checked, Step::Locate);
            }
            Standing::Committed => {
                count(seen, "a batch was committed before");
                invariants::check_recovered(&self.kafka, &state.log, held.stream, &batch)?;
                // It has nothing to write: the transaction's end makes no difference.
                me.session = None;
                let plan = Plan::default().stamped();
                me.work = append(batch, whole, is_checked, Step::Applied(plan));
            }
            Standing::Partly { stored } => {
                count(seen, "a batch was committed in part");
                let rest = BatchId {
                    start: stored,
                    ..batch
                };
                me.work = append(rest, whole, false, Step::Lock);
            }
            Standing::Elsewhere { stored } => {
                if stored < batch.start {
                    count(seen, "a database that went back is noticed");
                }
                me.let_go();
            }
            Standing::Fenced => {
                count(seen, "a zombie is fenced");
                me.let_go();
            }
        }
        Ok(())
    }

    fn insert(
        &self,
        state: &mut State,
        worker: usize,
        (batch, whole): (BatchId, i64),
        is_checked: bool,
        plan: &Arc<Stamped<Plan>>,
        seen: &mut Seen,
    ) -> Result<(), String> {
        let log = Arc::clone(&state.log);
        let me = &mut state.workers[worker];
        let (Some(session), Some(held)) = (&mut me.session, &me.held) else {
            return Ok(());
        };
        let view = View {
            log: &log,
            writes: &session.writes,
        };
        let chain_is_checked = self.rules.chain_is_checked;
        let checked = view.check_insert(&plan.events, &plan.previous_chains, chain_is_checked);
        let refused = match checked {
            Ok(()) if plan.is_unstorable => Some(Refused::Unstorable),
            Ok(()) => None,
            Err(refused) => Some(refused),
        };
        if let Some(refused) = refused {
            count(seen, what_is_refused(refused, is_checked));
            if is_checked && refused == Refused::Hole {
                return Err("the checked path would leave a hole in a locked run".to_owned());
            }
            // ROLLBACK AND CHAIN: all locks are gone.
            me.session = None;
            me.work = append(batch, whole, true, Step::Lock);
            me.change_cache(crate::run_cache::RunCache::clear);
            return Ok(());
        }
        let row = self.advanced(&log.streams[held.stream], &batch, plan);
        if self.rules.ledger_is_checked && !row.balances() {
            count(seen, "the database refuses a batch that lost a record");
            me.session = None;
            me.work = Work::Stopped("the ledger does not balance");
            return Ok(());
        }
        session.writes = Writes {
            runs: std::mem::take(&mut session.writes.runs),
            events: plan.events.clone(),
            letters: plan.letters.clone(),
            stream: Some((held.stream, row)),
        };
        me.work = append(batch, whole, is_checked, Step::Commit(Arc::clone(plan)));
        Ok(())
    }

    /// advance_stream.sql.
    fn advanced(
        &self,
        row: &super::database::StreamRow,
        batch: &BatchId,
        plan: &Plan,
    ) -> super::database::StreamRow {
        let count =
            |is: fn(&Outcome) -> bool| plan.outcomes.iter().filter(|o| is(o)).count() as i64;
        let mut row = row.clone();
        row.appended += count(|o| matches!(o, Outcome::Appended { .. }));
        row.duplicates += count(|o| matches!(o, Outcome::Duplicate(_)));
        row.dead_lettered += count(|o| matches!(o, Outcome::Conflict(_) | Outcome::DeadLetter(_)));
        row.skipped += self.kafka.cut(batch).batch.skipped;
        if self.rules.reads_from == ReadsFrom::Kafka {
            // Such a reader takes what lies between for control records.
            row.skipped += batch.start - row.next;
        }
        row.next = batch.end;
        row
    }

    /// The server commits.
    pub(crate) fn apply(
        &self,
        state: &mut State,
        worker: usize,
        seen: &mut Seen,
    ) -> Result<(), String> {
        let me = &mut state.workers[worker];
        let (
            Work::Append {
                batch,
                whole,
                is_checked,
                step: Step::Sent(plan),
            },
            Some(held),
            Some(session),
        ) = (me.work.clone(), me.held.clone(), me.session.take())
        else {
            return Ok(());
        };
        me.work = append(batch, whole, is_checked, Step::Applied(Arc::clone(&plan)));
        if self.rules.zombies_may_not_commit {
            invariants::check_committer(&state.log, &held)?;
        }
        let log = state.log.with(&session.writes);
        state.commit(self, log)?;
        invariants::check_outcomes(&self.kafka, &state.log, &held, &batch, &plan, seen)
    }

    /// The commit's answer, or that it took place before, reaches the worker.
    pub(crate) fn answer(&self, state: &mut State, worker: usize, seen: &mut Seen) {
        let Work::Append {
            batch,
            whole,
            step: Step::Applied(plan),
            ..
        } = state.workers[worker].work.clone()
        else {
            return;
        };
        count(seen, "a batch is acknowledged");
        if self.rules.cache_moves == CacheMoves::WhenCommitted {
            self.learn(state, worker, &batch, &plan);
        }
        let me = &mut state.workers[worker];
        if batch.end < whole {
            let rest = BatchId {
                start: batch.end,
                end: whole,
                ..batch
            };
            me.work = append(rest, whole, false, Step::Lock);
            return;
        }
        me.work = Work::Idle;
        if let Some(held) = &mut me.held {
            held.next = whole;
        }
    }

    fn learn(&self, state: &mut State, worker: usize, batch: &BatchId, plan: &Plan) {
        if let Some(learned) = plan.learned.clone() {
            let prepared = &self.kafka.cut(batch).prepared;
            let learn = |cache: &mut _| staging::learn(cache, prepared, learned, batch.end);
            state.workers[worker].change_cache(learn);
        }
    }

    /// An error of the environment while this part was tried: the whole batch again.
    fn retry(&self, state: &mut State, worker: usize, (part, whole): (BatchId, i64)) {
        let me = &mut state.workers[worker];
        me.session = None;
        let start = me.held.as_ref().map_or(part.start, |held| held.next);
        let batch = BatchId {
            start,
            end: whole,
            ..part
        };
        me.work = append(batch, whole, false, Step::Lock);
        if self.rules.cache_moves == CacheMoves::WhenCommitted {
            let prepared = &self.kafka.cut(&part).prepared;
            me.change_cache(|cache| staging::doubt(cache, prepared));
        }
    }

    pub(crate) fn fault(&self, state: &mut State, action: Action, seen: &mut Seen) {
        if !matches!(action, Action::Deadlock(_)) {
            state.left.faults -= 1;
        }
        let left = &mut state.left;
        match action {
            Action::Crash(worker) => {
                left.crashes -= 1;
                let me = &mut state.workers[worker];
                let is_sent = matches!(
                    &me.work,
                    Work::Append {
                        step: Step::Sent(_),
                        ..
                    }
                );
                let session = me.session.take();
                me.let_go();
                if let Some(session) = session {
                    count(seen, "a process is killed inside a transaction");
                    state.orphans.push((session, is_sent));
                }
            }
            Action::LoseAnswer(worker) => {
                left.lost_answers -= 1;
                let me = &mut state.workers[worker];
                let session = me.session.take();
                let Work::Append { batch, whole, .. } = me.work else {
                    return;
                };
                if let Some(session) = session {
                    count(seen, "a COMMIT is on its way when its connection breaks");
                    state.orphans.push((session, true));
                }
                self.retry(state, worker, (batch, whole));
            }
            Action::EndSession(worker) => {
                left.ended_sessions -= 1;
                // The worker finds out at its next statement.
                state.workers[worker].session = None;
            }
            Action::Cancel(worker) => {
                left.cancels -= 1;
                self.cancel(state, worker, seen);
            }
            Action::Deadlock(worker) => {
                count(seen, "a deadlock is broken");
                if let Work::Append { batch, whole, .. } = state.workers[worker].work {
                    self.retry(state, worker, (batch, whole));
                }
            }
            _ => {}
        }
    }

    /// 57014: in halves. A record alone is tried again.
    fn cancel(&self, state: &mut State, worker: usize, seen: &mut Seen) {
        let Work::Append { batch, whole, .. } = state.workers[worker].work else {
            return;
        };
        self.retry(state, worker, (batch, whole));
        let part = self.kafka.cut(&batch).batch.whole();
        if let Some((first, _)) = part.after(part.records.len() / 2) {
            count(seen, "a batch that takes too long is halved");
            let half = BatchId {
                end: first.end,
                ..batch
            };
            state.workers[worker].work = append(half, whole, false, Step::Lock);
        }
    }
}

fn what_is_refused(refused: Refused, is_checked: bool) -> &'static str {
    match (refused, is_checked) {
        (Refused::Unique, false) => "a unique violation sends a batch down the checked path",
        (Refused::Unique, true) => "a unique violation in the checked path",
        (Refused::Hole, _) => "a stale cache is found out by the insert",
        (Refused::Unstorable, _) => "the database refuses a record",
    }
}
