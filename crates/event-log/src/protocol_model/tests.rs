//! The scenarios that are explored, and the wrong rules that must be found.

use std::io::Write as _;

use super::checker::{Explored, explore, wander};
use super::kafka::{Slot, Spec, event};
use super::scenario::{Budget, Rules, Scenario};

/// One partition, read by an owner and a successor that takes over at any moment.
fn takeover() -> Scenario {
    let partition = vec![
        Slot::Event(event(1, 1)),
        Slot::Gap,
        Slot::Event(event(1, 2)),
        Slot::Poison,
        Slot::Event(event(2, 3)),
    ];
    let budget = Budget {
        claims: 4,
        faults: 2,
        crashes: 1,
        lost_answers: 2,
        ended_sessions: 2,
        cancels: 1,
        ..Budget::default()
    };
    Scenario::new(vec![partition], vec![0, 0], budget)
}

/// Two partitions with the same run: the same event through both, another content for its key, an
/// event id that is used twice, and a new event behind them.
fn two_streams_of_one_run() -> Scenario {
    let one = vec![
        Slot::Event(event(1, 1)),
        Slot::Event(event(2, 2)),
        Slot::Event(event(4, 7)),
    ];
    let conflict = Spec {
        content: 1,
        ..event(2, 5)
    };
    let other = vec![
        Slot::Event(event(1, 3)),
        Slot::Event(conflict),
        Slot::Event(event(3, 2)),
    ];
    let budget = Budget {
        claims: 3,
        faults: 1,
        crashes: 1,
        lost_answers: 1,
        ended_sessions: 1,
        ..Budget::default()
    };
    Scenario::new(vec![one, other], vec![0, 1], budget)
}

/// An operator has a partition read again from anywhere, while it is being read.
fn rewind() -> Scenario {
    let partition = vec![
        Slot::Event(event(1, 1)),
        Slot::RefusedAtFirst(event(2, 2)),
        Slot::Unstorable(event(3, 3)),
        Slot::Event(event(1, 4)),
    ];
    let budget = Budget {
        claims: 3,
        faults: 1,
        crashes: 1,
        lost_answers: 1,
        rewinds: 1,
        ..Budget::default()
    };
    Scenario::new(vec![partition], vec![0, 0], budget)
}

/// The database goes back by one or two commits, a claim among them maybe, while two partitions with
/// the same run are read.
fn failover(claims: u8) -> Scenario {
    let one = vec![Slot::Event(event(1, 1)), Slot::Event(event(2, 2))];
    let other = vec![Slot::Event(event(1, 3))];
    let budget = Budget {
        claims,
        failovers: 1,
        ..Budget::default()
    };
    let scenario = Scenario::new(vec![one, other], vec![0, 0, 1], budget);
    Scenario {
        most_records: 1,
        ..scenario
    }
}

/// The database goes back while a batch is appended in parts, because it takes too long.
fn failover_between_parts() -> Scenario {
    // Of two runs, so that a part's error says nothing of the other part's run.
    let of_run_1 = Spec {
        run: 1,
        ..event(2, 2)
    };
    let partition = vec![
        Slot::Event(event(1, 1)),
        Slot::Event(of_run_1),
        Slot::Event(event(1, 3)),
    ];
    let budget = Budget {
        claims: 2,
        faults: 2,
        lost_answers: 1,
        cancels: 2,
        failovers: 1,
        ..Budget::default()
    };
    let scenario = Scenario::new(vec![partition], vec![0], budget);
    Scenario {
        most_records: 3,
        ..scenario
    }
}

/// A client that loses a record on the way to a batch.
fn lost_record() -> Scenario {
    let partition = vec![
        Slot::Event(event(1, 1)),
        Slot::Event(event(2, 2)),
        Slot::Event(event(3, 3)),
    ];
    let budget = Budget {
        claims: 2,
        faults: 1,
        crashes: 1,
        lost_records: 1,
        ..Budget::default()
    };
    Scenario::new(vec![partition], vec![0, 0], budget)
}

/// Too large to explore: for schedules drawn at random.
fn large() -> Scenario {
    let conflict = |key, id| Spec {
        content: 1,
        ..event(key, id)
    };
    let of_run_1 = |key, id| Spec {
        run: 1,
        ..event(key, id)
    };
    let partitions = vec![
        vec![
            Slot::Event(event(1, 1)),
            Slot::Event(of_run_1(1, 2)),
            Slot::Gap,
            Slot::Event(conflict(1, 3)),
            Slot::RefusedAtFirst(event(2, 4)),
            Slot::Event(event(3, 5)),
        ],
        vec![
            Slot::Event(event(3, 6)),
            Slot::Poison,
            Slot::Event(event(4, 1)),
            Slot::Unstorable(of_run_1(2, 7)),
            Slot::Event(of_run_1(1, 8)),
            Slot::Gap,
        ],
        vec![
            Slot::Event(of_run_1(3, 9)),
            Slot::Event(event(1, 10)),
            Slot::Event(of_run_1(4, 11)),
        ],
    ];
    let budget = Budget {
        claims: 12,
        faults: 6,
        crashes: 3,
        lost_answers: 3,
        ended_sessions: 2,
        cancels: 2,
        lost_records: 0,
        rewinds: 2,
        failovers: 1,
    };
    let scenario = Scenario::new(partitions, vec![0, 0, 1, 1, 2, 2], budget);
    Scenario {
        most_records: 3,
        ..scenario
    }
}

/// Shown although the test passes.
fn show(text: &str) {
    let _ = writeln!(std::io::stderr(), "protocol: {text}");
}

/// Explores all of it, and requires that these things happened in it.
fn holds(name: &str, scenario: &Scenario, must_happen: &[&str]) -> Explored {
    match explore(scenario) {
        Ok(explored) => {
            show(&format!("{name}: {explored}"));
            for (what, times) in &explored.seen {
                println!("    {times:8} times {what}");
            }
            for what in must_happen {
                let happened = explored.seen.contains_key(what);
                assert!(happened, "{name}: it never happens that {what}");
            }
            explored
        }
        Err(found) => panic!("{name}\n{found}"),
    }
}

/// Explores until the wrong rules break something, which is printed.
fn is_found(name: &str, scenario: &Scenario, rules: Rules, broken: &str) {
    match explore(&scenario.ruled_by(rules)) {
        Ok(explored) => panic!("{name}: nothing is broken in {explored}"),
        Err(found) => {
            println!("{name}\n{found}");
            assert!(found.broken.contains(broken), "{name}: {}", found.broken);
        }
    }
}

#[test]
fn whoever_takes_over_at_whatever_moment_nothing_is_lost_or_doubled() {
    let explored = holds(
        "takeover",
        &takeover(),
        &[
            "a zombie is fenced",
            "a process is killed inside a transaction",
            "a COMMIT is on its way when its connection breaks",
            "a COMMIT takes effect after its client is gone",
            "a batch was committed before",
            "a batch that takes too long is halved",
            "a batch was committed in part",
            "an idle worker finds its stream row changed",
            "a duplicate",
            "everything was read in spite of a fault",
        ],
    );
    assert!(explored.states >= 100_000 && explored.interleavings >= 100_000);
}

#[test]
fn two_streams_that_write_the_same_run_agree_in_every_order() {
    let explored = holds(
        "two streams",
        &two_streams_of_one_run(),
        &[
            "a unique violation sends a batch down the checked path",
            "a unique violation in the checked path",
            "a duplicate of an event from another partition",
            "a conflict",
            "a reused event id",
            "everything was read in spite of a fault",
        ],
    );
    assert!(explored.states >= 100_000 && explored.interleavings >= 100_000);
}

#[test]
fn a_rewind_at_any_moment_doubles_nothing_and_appends_what_was_refused() {
    holds(
        "rewind",
        &rewind(),
        &[
            "a record is read again after a rewind",
            "a record that was refused is appended on the second reading",
            "the database refuses a record",
            "a duplicate",
            "a zombie is fenced",
            "everything was read in spite of a fault",
        ],
    );
}

#[test]
fn what_a_failover_takes_away_is_read_again() {
    holds(
        "failover",
        &failover(4),
        &[
            "a database that went back is noticed",
            "an idle worker finds its stream row changed",
            "a duplicate of an event from another partition",
            "everything was read",
        ],
    );
}

#[test]
fn what_a_failover_takes_away_between_the_parts_of_a_batch_is_appended_again() {
    holds(
        "failover between parts",
        &failover_between_parts(),
        &[
            "a batch that takes too long is halved",
            "a batch was committed in part",
            "a database that went back is noticed",
            "everything was read in spite of a fault",
        ],
    );
}

#[test]
fn a_batch_that_lost_a_record_is_never_committed() {
    let scenario = lost_record();
    let refused_by_the_writer = "a batch that lost a record is not sent";
    holds("lost record", &scenario, &[refused_by_the_writer]);
    // The database's own check holds where the writer's is missing, and the other way round.
    let without_the_writers = Rules {
        ledger_is_checked: true,
        ..Rules::without_the_ledger_check()
    };
    let refused_by_the_database = "the database refuses a batch that lost a record";
    let by_the_database = scenario.ruled_by(without_the_writers);
    holds(
        "lost record, by the database",
        &by_the_database,
        &[refused_by_the_database],
    );
    let without_the_databases = Rules {
        ledger_is_checked: false,
        ..Rules::of_the_product()
    };
    let by_the_writer = scenario.ruled_by(without_the_databases);
    holds(
        "lost record, by the writer",
        &by_the_writer,
        &[refused_by_the_writer],
    );
}

#[test]
fn a_fence_without_the_claim_check_is_found() {
    let rules = Rules::without_the_claim_check();
    is_found("no claim check", &takeover(), rules, "a zombie commits");
}

#[test]
fn a_missing_ledger_check_is_found() {
    let rules = Rules::without_the_ledger_check();
    is_found("no ledger check", &lost_record(), rules, "I1");
}

#[test]
fn offsets_committed_to_kafka_before_the_transaction_are_found() {
    let rules = Rules::with_offsets_committed_to_kafka_first();
    is_found("offsets to Kafka first", &lost_record(), rules, "I1");
}

#[test]
fn a_cache_that_is_kept_after_an_unknown_commit_is_found() {
    let rules = Rules::with_the_cache_kept_after_an_unknown_commit();
    is_found("cache kept", &takeover(), rules, "I1");
}

#[test]
fn a_cache_that_stays_ahead_of_the_database_is_found() {
    let rules = Rules::with_a_cache_that_stays_ahead();
    is_found("cache ahead", &failover_between_parts(), rules, "I1");
}

#[test]
fn an_idle_worker_that_never_looks_is_found() {
    let rules = Rules::without_a_look_while_idle();
    is_found("no look while idle", &failover(4), rules, "I1");
}

/// With the fence as it is, no schedule makes a stale cache meet a log that it does not continue. The
/// chain check is the second line: were a zombie let in after a failover, it would be what holds.
#[test]
fn the_chain_check_holds_where_the_fence_does_not() {
    let zombies = Rules {
        zombies_may_not_commit: false,
        ..Rules::without_the_claim_check()
    };
    let with_the_check = failover(3).ruled_by(zombies);
    let found_out = "a stale cache is found out by the insert";
    holds("zombies let in", &with_the_check, &[found_out]);
    let neither = Rules {
        chain_is_checked: false,
        ..zombies
    };
    is_found(
        "zombies let in, no chain check",
        &failover(3),
        neither,
        "the chain",
    );
}

#[test]
fn schedules_of_a_larger_model_drawn_at_random_hold() {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().unwrap());
    let schedules = number("RUNLOG_PROTOCOL_SCHEDULES").unwrap_or(2_000);
    let seed = number("RUNLOG_PROTOCOL_SEED").unwrap_or_else(rand::random);
    show(&format!(
        "RUNLOG_PROTOCOL_SCHEDULES={schedules} RUNLOG_PROTOCOL_SEED={seed}"
    ));
    match wander(&large(), schedules, seed) {
        Ok(seen) => println!("{seen:#?}"),
        Err(found) => panic!("RUNLOG_PROTOCOL_SEED={seed}\n{found}"),
    }
}
