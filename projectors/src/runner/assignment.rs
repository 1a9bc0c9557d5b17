//! Who works on what: a pure function of what the log, the checkpoints and the list of processes
//! say. Called by the coordinator, at most once a second.

use std::collections::{BTreeMap, BTreeSet};

use event_log::read::StreamHead;
use uuid::Uuid;

use super::checkpoint::{CheckpointKey, Standing};
use super::versions::Version;

/// What one process sees of the whole.
#[derive(Debug)]
pub(super) struct View<'a> {
    /// Every stream of the log, in (topic, partition, generation) order.
    pub(super) heads: &'a [StreamHead],
    /// Every checkpoint of this process's projections.
    pub(super) standings: &'a [Standing],
    /// The processes that are alive, by id, and the projections of each.
    pub(super) workers: &'a [(Uuid, Vec<String>)],
    /// This process.
    pub(super) me: Uuid,
    /// The leases that it holds.
    pub(super) held: &'a BTreeMap<CheckpointKey, Uuid>,
}

/// What it should do about it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Leases to try to take.
    pub(super) take: Vec<CheckpointKey>,
    /// Leases to give up after the batch in flight: more than this process's share, or lost.
    pub(super) give_up: Vec<CheckpointKey>,
}

/// Gives each process its share of the streams that can be read now.
pub(super) fn plan(versions: &[Version], view: &View<'_>) -> Plan {
    let mut plan = Plan::default();
    let is_kept = |key: &CheckpointKey| {
        let mut versions = versions.iter();
        versions.any(|version| version.is(&key.projection, key.version))
    };
    let gone = view.held.keys().filter(|key| !is_kept(key));
    plan.give_up.extend(gone.cloned());
    for version in versions {
        plan_version(version, view, &mut plan);
    }
    plan
}

fn plan_version(version: &Version, view: &View<'_>, plan: &mut Plan) {
    let projection = version.projection.as_str();
    let standings: BTreeMap<i64, &Standing> = view
        .standings
        .iter()
        .filter(|s| version.is(&s.projection, s.version))
        .map(|s| (s.stream_id, s))
        .collect();
    let readable = readable(view.heads, &standings);
    let is_mine = |s: &Standing| s.claim.is_some() && view.held.get(&s.key()) == s.claim.as_ref();
    let (mine, others): (Vec<&Standing>, Vec<&Standing>) =
        readable.iter().copied().partition(|s| is_mine(s));

    let still_mine: BTreeSet<i64> = mine.iter().map(|s| s.stream_id).collect();
    let lost = |key: &&CheckpointKey| {
        version.is(&key.projection, key.version) && !still_mine.contains(&key.stream_id)
    };
    plan.give_up.extend(view.held.keys().filter(lost).cloned());

    let share = share(projection, view.workers, view.me, readable.len());
    let surplus = mine.iter().skip(share);
    plan.give_up.extend(surplus.map(|s| s.key()));
    let free = others.iter().filter(|s| s.free);
    let wanted = share.saturating_sub(mine.len());
    plan.take.extend(free.take(wanted).map(|s| s.key()));
}

/// The streams of each partition that can be read: its first generation that is not finished. A
/// later one waits, so that the events of a partition are read in the order of its generations.
fn readable<'a>(
    heads: &[StreamHead],
    standings: &BTreeMap<i64, &'a Standing>,
) -> Vec<&'a Standing> {
    let mut blocked = BTreeSet::new();
    let mut readable = Vec::new();
    for head in heads {
        let standing = standings.get(&head.stream_id);
        let finished = standing.is_some_and(|s| s.finished);
        let partition = (&head.topic, head.partition);
        if finished || !blocked.insert(partition) {
            continue;
        }
        readable.extend(standing.copied());
    }
    readable
}

/// How many of `streams` this process should work on: all of them divided among the processes that
/// run the projection, the remainder to the first ones by id. All processes compute from the same
/// list, so the shares add up.
fn share(projection: &str, workers: &[(Uuid, Vec<String>)], me: Uuid, streams: usize) -> usize {
    let runs_it =
        |(_, projections): &&(Uuid, Vec<String>)| projections.iter().any(|name| name == projection);
    let mut ids: BTreeSet<Uuid> = workers.iter().filter(runs_it).map(|(id, _)| *id).collect();
    ids.insert(me);
    let rank = ids.iter().take_while(|id| **id != me).count();
    streams / ids.len() + usize::from(rank < streams % ids.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::checkpoint::Position;
    use chrono::DateTime;

    const PROJECTION: &str = "run_status";

    fn head(stream_id: i64, partition: i32, generation: i32) -> StreamHead {
        StreamHead {
            stream_id,
            topic: "t".into(),
            partition,
            generation,
            start_offset: 0,
            next_offset: 0,
            appended: 0,
            duplicates: 0,
            dead_lettered: 0,
            skipped: 0,
            owner: None,
            halted_reason: None,
            last_persisted_at: None,
            closed_at: None,
        }
    }

    fn standing(head: &StreamHead, claim: Option<Uuid>, free: bool) -> Standing {
        Standing {
            projection: PROJECTION.into(),
            version: 1,
            stream_id: head.stream_id,
            topic: head.topic.clone(),
            partition: head.partition,
            generation: head.generation,
            position: Position {
                next_offset: 0,
                applied: 0,
            },
            claim,
            finished: false,
            free,
            read_at: DateTime::UNIX_EPOCH,
        }
    }

    fn key(stream_id: i64) -> CheckpointKey {
        CheckpointKey {
            projection: PROJECTION.into(),
            version: 1,
            stream_id,
        }
    }

    fn version(version: i32) -> Version {
        Version {
            projection: PROJECTION.into(),
            version,
            is_live: version == 1,
        }
    }

    fn id(n: u128) -> Uuid {
        Uuid::from_u128(n)
    }

    fn plan_of(
        heads: &[StreamHead],
        standings: &[Standing],
        workers: &[u128],
        me: u128,
        held: &[(i64, u128)],
    ) -> Plan {
        let workers: Vec<_> = workers
            .iter()
            .map(|n| (id(*n), vec![PROJECTION.to_owned()]))
            .collect();
        let held = held
            .iter()
            .map(|(s, claim)| (key(*s), id(*claim)))
            .collect();
        plan(
            &[version(1)],
            &View {
                heads,
                standings,
                workers: &workers,
                me: id(me),
                held: &held,
            },
        )
    }

    #[test]
    fn shares_differ_by_one_at_most_and_add_up() {
        for streams in 0..20 {
            for processes in 1..6_u128 {
                let workers: Vec<_> = (1..=processes)
                    .map(|n| (id(n), vec![PROJECTION.to_owned()]))
                    .collect();
                let shares: Vec<_> = (1..=processes)
                    .map(|n| share(PROJECTION, &workers, id(n), streams))
                    .collect();
                assert_eq!(shares.iter().sum::<usize>(), streams);
                let (least, most) = (shares.iter().min(), shares.iter().max());
                assert!(
                    most.zip(least)
                        .is_some_and(|(most, least)| most - least <= 1)
                );
            }
        }
    }

    #[test]
    fn a_process_that_runs_other_projections_takes_no_share() {
        let workers = [
            (id(1), vec!["other".to_owned()]),
            (id(2), vec![PROJECTION.to_owned()]),
        ];
        assert_eq!(share(PROJECTION, &workers, id(2), 5), 5);
    }

    #[test]
    fn free_leases_are_taken_up_to_the_share_and_others_are_left_alone() {
        let heads: Vec<_> = (1..=4).map(|n| head(n, n as i32, 1)).collect();
        let mut standings: Vec<_> = heads.iter().map(|h| standing(h, None, true)).collect();
        standings[0] = standing(&heads[0], Some(id(77)), false);
        let plan = plan_of(&heads, &standings, &[1, 2], 1, &[]);
        assert_eq!(plan.take, [key(2), key(3)]);
        assert!(plan.give_up.is_empty());
    }

    #[test]
    fn a_newcomer_gets_its_share_from_what_the_others_have_too_much() {
        let heads: Vec<_> = (1..=4).map(|n| head(n, n as i32, 1)).collect();
        let standings: Vec<_> = heads
            .iter()
            .map(|h| standing(h, Some(id(h.stream_id as u128)), false))
            .collect();
        let held = [(1, 1), (2, 2), (3, 3), (4, 4)];
        let plan = plan_of(&heads, &standings, &[1, 2], 1, &held);
        assert_eq!(plan.give_up, [key(3), key(4)]);
        assert!(plan.take.is_empty());
    }

    #[test]
    fn a_generation_waits_until_the_one_before_it_is_finished() {
        let heads = [head(1, 0, 1), head(2, 0, 2)];
        let mut standings: Vec<_> = heads.iter().map(|h| standing(h, None, true)).collect();
        assert_eq!(plan_of(&heads, &standings, &[1], 1, &[]).take, [key(1)]);
        standings[0].finished = true;
        standings[0].free = false;
        assert_eq!(plan_of(&heads, &standings, &[1], 1, &[]).take, [key(2)]);
    }

    #[test]
    fn a_generation_without_a_checkpoint_blocks_the_next_one_too() {
        let heads = [head(1, 0, 1), head(2, 0, 2)];
        let standings = [standing(&heads[1], None, true)];
        assert_eq!(plan_of(&heads, &standings, &[1], 1, &[]), Plan::default());
    }

    #[test]
    fn versions_are_worked_on_side_by_side_and_one_that_is_gone_is_given_up() {
        let heads = [head(1, 0, 1)];
        let live = standing(&heads[0], Some(id(7)), false);
        let building = Standing {
            version: 2,
            ..standing(&heads[0], None, true)
        };
        let of_2 = CheckpointKey {
            version: 2,
            ..key(1)
        };
        let gone = CheckpointKey {
            version: 3,
            ..key(1)
        };
        let held = [(key(1), id(7)), (gone.clone(), id(9))].into();
        let view = View {
            heads: &heads,
            standings: &[live, building],
            workers: &[],
            me: id(1),
            held: &held,
        };
        let plan = plan(&[version(1), version(2)], &view);
        assert_eq!((plan.take, plan.give_up), (vec![of_2], vec![gone]));
    }

    #[test]
    fn a_lease_that_another_process_took_is_given_up() {
        let heads = [head(1, 0, 1)];
        let standings = [standing(&heads[0], Some(id(8)), false)];
        let plan = plan_of(&heads, &standings, &[1], 1, &[(1, 7)]);
        assert_eq!(plan.give_up, [key(1)]);
        assert!(plan.take.is_empty());
    }

    #[test]
    fn an_own_lease_that_ran_out_stays_while_nobody_took_it() {
        let heads = [head(1, 0, 1)];
        let standings = [standing(&heads[0], Some(id(7)), true)];
        assert_eq!(
            plan_of(&heads, &standings, &[1], 1, &[(1, 7)]),
            Plan::default()
        );
    }
}
