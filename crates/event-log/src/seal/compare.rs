//! Whether the log still is what was sealed. The stored leaves tell which run differs; they are trusted no
//! more than anything else in the database, since the seal's root tells whether they are those that were
//! sealed.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::NaiveDate;
use run_events::Digest;
use run_events::seal::{Head, Seal, VERSION, merkle};
use sqlx::PgConnection;

use super::Stored;
use super::heads::{DayHeads, Progress, RunHead, collect};

/// Rows that are read at once.
const PAGE: i64 = 20_000;
/// Runs whose names are looked up at once.
const NAMES: usize = 10_000;

/// A way in which a day is not what was sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayFinding {
    /// The run's number; `None` = it is about the whole day.
    pub run_no: Option<i64>,
    /// Tenant and run, where the log still names it.
    pub name: Option<(String, String)>,
    /// What is wrong.
    pub what: String,
}

/// What is wrong with the seals among themselves, each with its day: `seals` are all, oldest first. Pure.
pub fn chain(seals: &[Stored]) -> Vec<(NaiveDate, String)> {
    let mut wrong = Vec::new();
    let mut before: Option<&Seal> = None;
    for stored in seals {
        let seal = &stored.written.seal;
        if stored.version != VERSION {
            let what = format!(
                "its version is {}, and this program knows {VERSION}",
                stored.version
            );
            wrong.push((seal.day, what));
        } else if !stored.written.fits() {
            let what = "the seal is not what its digest was computed from";
            wrong.push((seal.day, what.to_owned()));
        }
        match before {
            None if seal.previous != Seal::FIRST => {
                wrong.push((seal.day, "the seals before it are missing".to_owned()))
            }
            Some(before) if !seal.follows(before) => wrong.push((
                seal.day,
                format!(
                    "it does not follow on the seal of {}: seals were changed or are missing",
                    before.day
                ),
            )),
            _ => {}
        }
        before = Some(seal);
    }
    wrong
}

/// Compares a day with its seal.
///
/// # Errors
/// The database's.
pub async fn day(
    connection: &mut PgConnection,
    seal: &Seal,
    progress: &Progress,
) -> Result<Vec<DayFinding>, sqlx::Error> {
    let mut now = collect(connection, seal.day, progress).await?;
    let sealed = stored_heads(connection, seal.day).await?;
    add_retired(connection, &sealed, &mut now).await?;
    let mut findings = differences(seal, &sealed, &now);
    name(connection, &mut findings).await?;
    Ok(findings)
}

/// Runs that were sealed and then retired: their tombstones stand for their events. Where the tombstone is of the
/// sealed event the leaf is computed from it; where it is of a later day's, the stored leaf is taken, which the seal's
/// root vouches for.
async fn add_retired(
    connection: &mut PgConnection,
    sealed: &[RunHead],
    now: &mut DayHeads,
) -> Result<(), sqlx::Error> {
    let there: HashSet<i64> = now.heads.iter().map(|head| head.run_no).collect();
    let mut gone: HashMap<i64, &RunHead> = sealed
        .iter()
        .filter(|head| !there.contains(&head.run_no))
        .map(|head| (head.run_no, head))
        .collect();
    let numbers: Vec<i64> = gone.keys().copied().collect();
    for numbers in numbers.chunks(NAMES) {
        let tombstones: Vec<(i64, String, String, i64, Vec<u8>)> =
            sqlx::query_as(include_str!("../sql/tombstones.sql"))
                .bind(numbers)
                .fetch_all(&mut *connection)
                .await?;
        for (run_no, tenant_id, run_id, head_seq, chain) in tombstones {
            let Some(was) = gone.remove(&run_no) else {
                continue;
            };
            let of_tombstone = Head {
                tenant_id: &tenant_id,
                run_id: &run_id,
                run_seq: head_seq,
                events: was.events,
                chain: super::any_digest(&chain),
            };
            match was.run_seq.cmp(&head_seq) {
                Ordering::Less => now.heads.push(*was),
                Ordering::Equal => now.heads.push(RunHead {
                    leaf: of_tombstone.leaf(),
                    ..*was
                }),
                // The tombstone ends before what was sealed: the run is missing.
                Ordering::Greater => {}
            }
        }
    }
    now.heads.sort_unstable_by_key(|head| head.leaf.0);
    Ok(())
}

/// The leaves of a seal as they are stored, in the order of run numbers.
pub(super) async fn stored_heads(
    connection: &mut PgConnection,
    day: NaiveDate,
) -> Result<Vec<RunHead>, sqlx::Error> {
    let mut heads: Vec<RunHead> = Vec::new();
    loop {
        let after = heads.last().map(|head| head.run_no);
        let page: Vec<(i64, i64, i64, Vec<u8>)> = sqlx::query_as(
            "SELECT run_no, run_seq, events, leaf FROM event_log.sealed_head
             WHERE day = $1 AND ($2::bigint IS NULL OR run_no > $2) ORDER BY run_no LIMIT $3",
        )
        .bind(day)
        .bind(after)
        .bind(PAGE)
        .fetch_all(&mut *connection)
        .await?;
        let is_full = page.len() as i64 == PAGE;
        heads.extend(
            page.into_iter()
                .map(|(run_no, run_seq, events, leaf)| RunHead {
                    run_no,
                    run_seq,
                    events: events.unsigned_abs(),
                    leaf: super::any_digest(&leaf),
                }),
        );
        if !is_full {
            return Ok(heads);
        }
    }
}

/// The leaves in the order of the tree.
pub(super) fn sorted_leaves(heads: &[RunHead]) -> Vec<Digest> {
    let mut leaves: Vec<Digest> = heads.iter().map(|head| head.leaf).collect();
    leaves.sort_unstable_by_key(|leaf| leaf.0);
    leaves
}

fn differences(seal: &Seal, sealed: &[RunHead], now: &DayHeads) -> Vec<DayFinding> {
    let mut findings = Vec::new();
    let of_day = |what: String| DayFinding {
        run_no: None,
        name: None,
        what,
    };
    if merkle::root(&sorted_leaves(sealed)) != seal.root {
        let what =
            "the leaves that are stored are not those that were sealed (event_log.sealed_head)";
        findings.push(of_day(what.to_owned()));
    }
    let mut left: BTreeMap<i64, &RunHead> =
        now.heads.iter().map(|head| (head.run_no, head)).collect();
    let damaged: HashMap<i64, &str> = now
        .damaged
        .iter()
        .map(|damage| (damage.run_no, damage.what))
        .collect();
    let mut of_run = |run_no: i64, what: String| {
        findings.push(DayFinding {
            run_no: Some(run_no),
            name: None,
            what,
        });
    };
    for was in sealed {
        let (run_no, seq) = (was.run_no, was.run_seq);
        match (left.remove(&run_no), damaged.get(&run_no)) {
            (Some(is), _) if is == was => {}
            (Some(is), _) => of_run(run_no, difference(was, is)),
            (None, Some(what)) => of_run(run_no, format!("sealed up to runSeq {seq}; {what}")),
            (None, None) => of_run(
                run_no,
                format!("sealed up to runSeq {seq}, and the log has no event of it from that day"),
            ),
        }
    }
    for run_no in left.into_keys() {
        of_run(
            run_no,
            "the log has events of it from that day, and none were sealed".to_owned(),
        );
    }
    // Where both were changed alike, the root still is what was sealed.
    let is = now.seal(seal.previous);
    if findings.is_empty() && is != *seal {
        findings.push(of_day(format!(
            "{} events of {} runs were sealed; the log has {} of {}, with another root",
            seal.events, seal.runs, is.events, is.runs
        )));
    }
    findings
}

fn difference(was: &RunHead, is: &RunHead) -> String {
    if was.run_seq != is.run_seq {
        format!(
            "sealed up to runSeq {}, and that day's events end at {} now",
            was.run_seq, is.run_seq
        )
    } else if was.events != is.events {
        format!(
            "sealed with {} events of that day, and the log has {} now",
            was.events, is.events
        )
    } else {
        format!(
            "sealed up to runSeq {}, and its events up to there, or its name, are others now",
            was.run_seq
        )
    }
}

async fn name(
    connection: &mut PgConnection,
    findings: &mut [DayFinding],
) -> Result<(), sqlx::Error> {
    for some in findings.chunks_mut(NAMES) {
        let numbers: Vec<i64> = some.iter().filter_map(|finding| finding.run_no).collect();
        let names: Vec<(i64, String, String)> = sqlx::query_as(
            "SELECT run_no, tenant_id, run_id FROM event_log.run WHERE run_no = ANY($1)",
        )
        .bind(numbers)
        .fetch_all(&mut *connection)
        .await?;
        let mut names: HashMap<i64, (String, String)> = names
            .into_iter()
            .map(|(run_no, tenant_id, run_id)| (run_no, (tenant_id, run_id)))
            .collect();
        for finding in some {
            finding.name = finding.run_no.and_then(|run_no| names.remove(&run_no));
        }
    }
    Ok(())
}
