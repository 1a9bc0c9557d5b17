//! The watchdog's decision, and what it looks at.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::memory::Memory;
use crate::partitions::TopicPartition;
use crate::progress::InKafka;

const LIMIT: Duration = Duration::from_secs(5);

fn seen(thing: Thing, moved: i64) -> Seen {
    Seen {
        thing,
        place: "run-events/3".to_owned(),
        moved,
        tried: 0,
        has_work: true,
        is_excused: false,
        limit: LIMIT,
    }
}

/// Looks once a second; the look, from 1, that found a stall, and the stall.
fn first_stall(looks: impl IntoIterator<Item = Vec<Seen>>) -> Option<(usize, Stall)> {
    let mut watch = Watch::default();
    let mut looks = looks.into_iter().enumerate();
    looks.find_map(|(n, seen)| Some((n + 1, watch.look(LOOK, &seen)?)))
}

const EVERY_THING: [Thing; 4] = [
    Thing::PollThread,
    Thing::Runtime,
    Thing::Worker(7),
    Thing::Fetch(7),
];

#[test]
fn what_stands_still_with_work_is_a_stall_when_its_limit_has_passed() {
    for thing in EVERY_THING {
        let (look, stall) = first_stall((0..20).map(|_| vec![seen(thing, 1)])).unwrap();
        // The first look only says where it stands.
        assert_eq!(look, 6, "{thing:?}");
        assert_eq!((stall.thing, stall.lasted), (thing, LIMIT));
    }
}

#[test]
fn what_moves_or_tries_or_is_excused_or_has_no_work_is_none() {
    for thing in EVERY_THING {
        let moves = |n: i64| seen(thing, n / 4);
        let tries = |n: i64| Seen {
            tried: n.unsigned_abs() / 4,
            ..seen(thing, 1)
        };
        let excused = |n: i64| Seen {
            is_excused: n % 5 != 0,
            ..seen(thing, 1)
        };
        let always_excused = |_| Seen {
            is_excused: true,
            ..seen(thing, 1)
        };
        let idle = |_| Seen {
            has_work: false,
            ..seen(thing, 1)
        };
        let now_and_then = |n: i64| Seen {
            has_work: n % 5 != 0,
            ..seen(thing, 1)
        };
        let goes: [&dyn Fn(i64) -> Seen; 6] = [
            &moves,
            &tries,
            &excused,
            &always_excused,
            &idle,
            &now_and_then,
        ];
        for (number, go) in goes.iter().enumerate() {
            let stall = first_stall((0..200).map(|n| vec![go(n)]));
            assert_eq!(stall, None, "{thing:?}, {number}");
        }
    }
}

#[test]
fn an_offset_that_goes_back_has_moved_too() {
    let looks = (0..40).map(|n| vec![seen(Thing::Worker(1), 100 - n / 4)]);
    assert_eq!(first_stall(looks), None);
}

#[test]
fn one_that_stands_still_is_found_among_many_that_move_and_named() {
    let looks = (0..20).map(|n| {
        let mut all: Vec<_> = (0..50).map(|id| seen(Thing::Worker(id), n)).collect();
        all[33].moved = 5;
        all[33].place = "run-events/33".to_owned();
        all
    });
    let (_, stall) = first_stall(looks).unwrap();
    assert_eq!(stall.thing, Thing::Worker(33));
    assert!(stall.to_string().contains("run-events/33"), "{stall}");
}

#[test]
fn the_one_that_stood_still_first_is_named() {
    let looks = (0..20).map(|n: i64| {
        let late = seen(Thing::Worker(2), n.min(3));
        vec![
            Seen {
                limit: LIMIT * 2,
                ..seen(Thing::Worker(1), 1)
            },
            Seen {
                limit: LIMIT * 2 - LOOK * 3,
                ..late
            },
        ]
    });
    let (_, stall) = first_stall(looks).unwrap();
    assert_eq!(stall.thing, Thing::Worker(1));
}

#[test]
fn what_the_others_rest_on_is_named_before_them() {
    let looks = (0..20).map(|n: i64| {
        let runtime = seen(Thing::Runtime, n.min(2));
        vec![seen(Thing::Worker(1), 1), runtime, seen(Thing::Fetch(1), 1)]
    });
    let (look, stall) = first_stall(looks).unwrap();
    assert_eq!((look, stall.thing), (6, Thing::Runtime));
    let looks = (0..20).map(|_| {
        let poll_thread = Seen {
            limit: LIMIT * 4,
            ..seen(Thing::PollThread, 1)
        };
        vec![seen(Thing::Fetch(1), 1), poll_thread]
    });
    assert_eq!(first_stall(looks).unwrap().1.thing, Thing::PollThread);
    // One that went on for most of the time is not to blame.
    let looks = (0..20).map(|n: i64| {
        let runtime = seen(Thing::Runtime, n.min(4));
        vec![seen(Thing::Worker(1), 1), runtime]
    });
    assert_eq!(first_stall(looks).unwrap().1.thing, Thing::Worker(1));
}

#[test]
fn a_worker_that_goes_takes_its_time_with_it() {
    let looks = (0..40).map(|n| vec![seen(Thing::Worker(n / 4), 1)]);
    assert_eq!(first_stall(looks), None);
}

#[test]
fn the_age_of_the_oldest_work_counts_whatever_the_reason() {
    let mut watch = Watch::default();
    for n in 0..=9 {
        let retried = Seen {
            tried: n,
            is_excused: true,
            ..seen(Thing::Worker(1), 1)
        };
        watch.look(LOOK, &[retried, seen(Thing::PollThread, 1)]);
    }
    assert_eq!(watch.oldest(), LOOK * 9);
    watch.look(LOOK, &[seen(Thing::Worker(1), 2)]);
    assert_eq!(watch.oldest(), Duration::ZERO);
}

#[test]
fn time_in_which_the_process_was_stopped_does_not_count() {
    let mut watch = Watch::default();
    for thing in EVERY_THING {
        for _ in 0..4 {
            watch.look(LOOK, &[seen(thing, 1)]);
        }
        let after = watch.look(Duration::from_secs(3600), &[seen(thing, 1)]);
        assert_eq!(after, None, "{thing:?}");
        // What was counted before is kept: it may hang in fact.
        let and_then: Vec<_> = (0..2)
            .map(|_| watch.look(LOOK, &[seen(thing, 1)]))
            .collect();
        assert!(
            and_then[0].is_none() && and_then[1].is_some(),
            "{and_then:?}"
        );
    }
}

#[test]
fn a_message_says_what_stood_still_where_for_how_long_and_what_to_look_at() {
    for (thing, parts) in [
        (Thing::PollThread, ["reads from Kafka", "standard error"]),
        (Thing::Runtime, ["the runtime", "standard error"]),
        (Thing::Worker(1), ["run-events/3", "pg_stat_activity"]),
        (Thing::Fetch(1), ["run-events/3", "leader"]),
    ] {
        let stall = Stall {
            thing,
            place: "run-events/3".to_owned(),
            lasted: Duration::from_secs(301),
        };
        let text = stall.to_string();
        for part in parts.into_iter().chain(["301 s", "ingest.stall_timeout"]) {
            assert!(text.contains(part), "{part:?} is not in: {text}");
        }
    }
}

fn progress(memory: &Arc<Memory>) -> Arc<Progress> {
    let partition = TopicPartition {
        topic: "run-events".to_owned(),
        partition: 3,
    };
    Arc::new(Progress::new(partition, memory.share(), 10))
}

#[test]
fn a_worker_is_watched_until_it_is_gone() {
    let (memory, pulse) = (Memory::new(100), Pulse::default());
    let (one, two) = (progress(&memory), progress(&memory));
    pulse.watch(1, &one);
    pulse.watch(2, &two);
    drop(one);
    let watched: Vec<u64> = pulse.workers().into_iter().map(|(id, _)| id).collect();
    assert_eq!(watched, [2]);
    assert_eq!(pulse.workers.lock().unwrap().len(), 1);
}

#[test]
fn kafka_has_more_only_while_the_client_library_has_not_read_to_the_end() {
    let progress = progress(&Memory::new(100));
    let note = |fetched, end| {
        progress.note_kafka(InKafka {
            end,
            fetched,
            is_fetchable: true,
        });
        progress.fetching()
    };
    assert_eq!(note(10, 20), (10, true));
    assert_eq!(note(20, 20), (20, false));
    // Not known yet, and behind a log that was cut off.
    assert_eq!(note(-1001, 20), (-1001, false));
    assert_eq!(note(30, 20), (30, false));
}
