//! The scenarios that are explored, and the wrong rules that must be found.

use super::checker::{Counterexample, Explored, Seen, explore, wander};
use super::kafka::{Slot, Spec, event};
use super::scenario::{Budget, Rules, Scenario};

/// One partition with a record of each kind, read by an owner and a successor.
fn takeover() -> Scenario {
    let partition = vec![
        Slot::Event(event(1, 1)),
        Slot::Gap,
        Slot::Event(event(1, 2)),
        Slot::Poison,
        Slot::Event(event(2, 3)),
    ];
    let budget = Budget {
        claims: 3,
        faults: 2,
        crashes: 1,
        lost_answers: 2,
        ended_sessions: 1,
        cancels: 1,
        ..Budget::default()
    };
    Scenario::new(vec![partition], vec![0, 0], budget)
}

fn explored(name: &str, scenario: &Scenario) -> Explored {
    match explore(scenario) {
        Ok(explored) => {
            println!("{name}: {explored}");
            for (what, times) in &explored.seen {
                println!("    {times:8} times {what}");
            }
            explored
        }
        Err(found) => panic!("{name}\n{found}"),
    }
}

#[test]
fn whoever_takes_over_whenever_nothing_is_lost_or_doubled() {
    explored("takeover", &takeover());
}
