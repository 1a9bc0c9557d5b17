//! Actions in words, so that a counterexample can be read.

use super::kafka::BatchId;
use super::protocol::Action;
use super::scenario::Scenario;
use super::state::State;
use super::worker::{Step, Work};
use crate::fence::Standing;

pub(crate) fn describe(scenario: &Scenario, state: &State, action: Action) -> String {
    let name = |worker: usize| {
        let letter = char::from(b'A' + worker as u8);
        format!("{letter} (partition {})", state.workers[worker].partition)
    };
    match action {
        Action::Claim(w) => format!("{} claims", name(w)),
        Action::Gather {
            worker,
            end,
            lacks_a_record,
        } => {
            let from = state.workers[worker]
                .held
                .as_ref()
                .map_or(0, |held| held.next);
            let lost = if lacks_a_record {
                ", and loses a record of it"
            } else {
                ""
            };
            format!("{} cuts the batch {from}..{end}{lost}", name(worker))
        }
        Action::Look(w) => format!(
            "{} looks, finds its stream row changed, and gives up",
            name(w)
        ),
        Action::Statement(w) => format!("{} {}", name(w), statement(scenario, state, w)),
        Action::Apply(w) => format!("the server commits {}", of_batch(state, w)),
        Action::Answer(w) => format!(
            "{} is told that {} is committed",
            name(w),
            of_batch(state, w)
        ),
        Action::LoseAnswer(w) => format!(
            "{} loses its connection, the COMMIT's answer unknown",
            name(w)
        ),
        Action::Crash(w) => format!("{} is killed", name(w)),
        Action::EndSession(w) => {
            format!("the server ends the session of {} and rolls back", name(w))
        }
        Action::Cancel(w) => format!("the server cancels a statement of {}", name(w)),
        Action::Deadlock(w) => format!("the server breaks a deadlock by an error for {}", name(w)),
        Action::OrphanApplies(_) => "the server commits for a client that is gone".to_owned(),
        Action::OrphanEnds(_) => "the server rolls back for a client that is gone".to_owned(),
        Action::Rewind { partition, to } => {
            format!("an operator rewinds partition {partition} to {to}")
        }
        Action::Failover(back) => format!("the database goes back by {back} commits"),
    }
}

fn statement(scenario: &Scenario, state: &State, worker: usize) -> String {
    let me = &state.workers[worker];
    let (
        Work::Append {
            batch,
            is_checked,
            step,
            ..
        },
        Some(held),
    ) = (&me.work, &me.held)
    else {
        return "does nothing".to_owned();
    };
    let BatchId { start, end, .. } = batch;
    let path = if *is_checked { "checked" } else { "fast" };
    let what = match step {
        Step::Lock => {
            let row = state.log.open_row(held.stream);
            match (scenario.rules.stand)(row, held.token, &(*start..*end)) {
                Standing::Next => "locks its stream: the batch is next",
                Standing::Committed => "locks its stream: the batch was committed before",
                Standing::Partly { .. } => "locks its stream: a part was committed before",
                Standing::Elsewhere { .. } => "locks its stream: the stored offset is elsewhere",
                Standing::Fenced => "locks its stream: fenced",
            }
        }
        _ if me.session.is_none() => "finds its session gone, and will try again",
        Step::Locate => "numbers and loads the runs",
        Step::Decide(_) => "looks up keys and decides",
        Step::Insert(_) => "inserts events and dead letters and moves the offset",
        Step::Commit(_) => "sends COMMIT",
        Step::Sent(_) | Step::Applied(_) => "waits for the answer",
    };
    format!("{what} ({start}..{end}, {path} path)")
}

fn of_batch(state: &State, worker: usize) -> String {
    match &state.workers[worker].work {
        Work::Append { batch, .. } => format!("{}..{}", batch.start, batch.end),
        _ => "a batch".to_owned(),
    }
}
