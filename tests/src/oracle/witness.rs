//! What append has made of the records, where timing had a say: the log's own rows are the witness
//! of the order, and this module says whether that order is a legal one.
//!
//! Called by the chaos harness, whose runs move to other partitions while partitions are added.
//! Within a partition the offsets decide; between partitions either may have been first. So each
//! record's fate must be explained by the rows that are there: appended, a duplicate of a row, or
//! refused because of a row. What nothing explains is a violation.

use super::Produced;
use super::envelope::{self, Event, Refusal};
use super::log::{Appended, Content, DeadLetter, Log, Outcome};
use super::table::{Cell, Table};
use std::collections::{BTreeMap, HashMap};

type Place = (i32, i64);
/// Tenant, run and key.
type Identity = (String, String, String);

const CONFLICT: &[&str] = &["idempotency_conflict"];
const REUSED: &[&str] = &["event_id_reused"];

/// What the log holds, as far as it decides other records' fates.
struct Rows {
    by_key: HashMap<Identity, (Place, Content)>,
    by_event_id: HashMap<String, (Place, Identity)>,
}

/// The log that explains what is seen, and what cannot be explained. `rows` and `dead_letters` are
/// `event_log.run_events` and `event_log.dead_letters`, read when nothing is under way.
#[must_use]
pub fn explain(records: &[Produced], rows: &Table, dead_letters: &Table) -> (Log, Vec<String>) {
    let seen = places(rows, "run_seq");
    let refused = places(dead_letters, "reason");
    let read: Vec<Result<Event, Refusal>> = records.iter().map(envelope::read).collect();
    let mut violations = Vec::new();
    let held = hold(records, &read, &seen, &mut violations);
    let mut order: Vec<usize> = (0..records.len()).collect();
    order.sort_by_key(|&at| (records[at].partition, records[at].offset));
    let mut log = Log {
        outcomes: vec![Outcome::Dead; records.len()],
        ..Log::default()
    };
    for at in order {
        let place = (records[at].partition, records[at].offset);
        let totals = log.totals.entry(place.0).or_default();
        let fate = match &read[at] {
            Err(refusal) => Fate::Dead(refusal.clone(), false),
            Ok(event) => match seen.get(&place) {
                Some(Cell::Int(run_seq)) => Fate::Appended(*run_seq),
                _ => fate(event, place, &held, refused.get(&place)),
            },
        };
        match fate {
            Fate::Appended(run_seq) => {
                totals.appended += 1;
                log.outcomes[at] = Outcome::Appended;
                if let Ok(event) = &read[at] {
                    log.appended.push(Appended {
                        partition: place.0,
                        offset: place.1,
                        run_seq,
                        event: event.clone(),
                    });
                }
            }
            Fate::Duplicate => {
                totals.duplicates += 1;
                log.outcomes[at] = Outcome::Duplicate;
            }
            Fate::Dead(refusal, names_run) => {
                totals.dead_lettered += 1;
                log.dead_letters.push(DeadLetter {
                    record: at,
                    refusal,
                    names_run,
                });
            }
            Fate::Unexplained(why) => violations.push(format!("{}/{}: {why}", place.0, place.1)),
        }
    }
    violations.extend(sequence_violations(&log));
    (log, violations)
}

enum Fate {
    Appended(i64),
    Duplicate,
    /// Whether the dead letter must name tenant and run.
    Dead(Refusal, bool),
    Unexplained(String),
}

/// A valid event that is no row.
fn fate(event: &Event, place: Place, rows: &Rows, reason: Option<&Cell>) -> Fate {
    let identity = identity(event);
    let refusal = |reasons| Refusal {
        reasons,
        field: None,
        tenant_id: Some(event.tenant_id.clone()),
        run_id: Some(event.run_id.clone()),
    };
    // The holder was there first, as far as the offsets say.
    let before = |holder: &Place| holder.0 != place.0 || holder.1 < place.1;
    let key_holder = rows.by_key.get(&identity);
    let id_holder = rows.by_event_id.get(&event.event_id);
    let reused = id_holder.is_some_and(|(holder, other)| before(holder) && *other != identity);
    let was_reused = reason.is_some_and(|reason| Cell::OneOf(REUSED).admits(reason));
    match key_holder {
        // The key is asked first; only a holder on another partition can have come later.
        Some((holder, _)) if was_reused && reused && holder.0 != place.0 => {
            Fate::Dead(refusal(REUSED), true)
        }
        // The id's holder came first, and the key's only afterwards.
        Some((holder, _)) if !before(holder) && was_reused && reused => {
            Fate::Dead(refusal(REUSED), true)
        }
        Some((holder, _)) if !before(holder) => Fate::Unexplained(format!(
            "not in the log, though only offset {} after it holds its key",
            holder.1
        )),
        Some((_, content)) if *content == event.content => Fate::Duplicate,
        Some(_) => Fate::Dead(refusal(CONFLICT), true),
        None if reused => Fate::Dead(refusal(REUSED), true),
        None => Fate::Unexplained(format!(
            "lost: run {:?} of {:?} has no event with its key",
            event.run_id, event.tenant_id
        )),
    }
}

fn identity(event: &Event) -> Identity {
    (
        event.tenant_id.clone(),
        event.run_id.clone(),
        event.idempotency_key.clone(),
    )
}

fn hold(
    records: &[Produced],
    read: &[Result<Event, Refusal>],
    seen: &BTreeMap<Place, Cell>,
    violations: &mut Vec<String>,
) -> Rows {
    let mut rows = Rows {
        by_key: HashMap::new(),
        by_event_id: HashMap::new(),
    };
    for (record, event) in records.iter().zip(read) {
        let place = (record.partition, record.offset);
        let (Ok(event), true) = (event, seen.contains_key(&place)) else {
            continue;
        };
        let identity = identity(event);
        let content = event.content.clone();
        if let Some((other, _)) = rows.by_key.insert(identity.clone(), (place, content)) {
            violations.push(format!(
                "{place:?} and {other:?} hold the same key of one run"
            ));
        }
        let id = event.event_id.clone();
        if let Some((other, _)) = rows.by_event_id.insert(id, (place, identity)) {
            violations.push(format!("{place:?} and {other:?} hold the same event id"));
        }
    }
    rows
}

/// runSeq is 1..n, and in offset order within a partition.
fn sequence_violations(log: &Log) -> Vec<String> {
    let mut runs: BTreeMap<(&str, &str), Vec<&Appended>> = BTreeMap::new();
    for row in &log.appended {
        let run = (row.event.tenant_id.as_str(), row.event.run_id.as_str());
        runs.entry(run).or_default().push(row);
    }
    let mut violations = Vec::new();
    for (run, mut rows) in runs {
        rows.sort_by_key(|row| row.run_seq);
        let sequence = rows.iter().map(|row| row.run_seq);
        if !sequence.eq(1..=rows.len() as i64) {
            let found: Vec<_> = rows.iter().map(|row| row.run_seq).collect();
            violations.push(format!("run {run:?}: runSeq is {found:?}"));
        }
        let mut last: HashMap<i32, i64> = HashMap::new();
        for row in rows {
            let before = last.insert(row.partition, row.offset);
            if before.is_some_and(|before| before > row.offset) {
                violations.push(format!(
                    "run {run:?}: runSeq {} is out of offset order",
                    row.run_seq
                ));
            }
        }
    }
    violations
}

fn places(table: &Table, column: &str) -> BTreeMap<Place, Cell> {
    let place = |row: &super::table::Row| match (row.get("partition"), row.get("source_offset")) {
        (Some(Cell::Int(partition)), Some(Cell::Int(offset))) => {
            Some((i32::try_from(*partition).ok()?, *offset))
        }
        _ => None,
    };
    table
        .values()
        .filter_map(|row| Some((place(row)?, row.get(column)?.clone())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::explain;
    use crate::oracle::Produced;
    use crate::oracle::expect::place;
    use crate::oracle::table::{Cell, Row, Table};

    fn record(partition: i32, offset: i64, event_id: u8, key: char, payload: &str) -> Produced {
        let value = format!(
            r#"{{"eventId":"00000000-0000-0000-0000-0000000000{event_id:02}","eventType":"RunQueued","tenantId":"t",
            "projectId":"p","environmentId":"e","runId":"r","planId":"l","planVersion":"v","engineAttemptId":1,
            "logicalAttemptId":1,"idempotencyKey":"{}","emittedAt":"2026-01-01T00:00:00Z","payload":{{"n":{payload}}}}}"#,
            String::from(key).repeat(64)
        );
        Produced {
            partition,
            offset,
            key: None,
            value: Some(value.into_bytes()),
            content_type: None,
        }
    }

    fn table(cells: &[(i64, i64, Cell)], column: &'static str) -> Table {
        let row = |(partition, offset, cell): &(i64, i64, Cell)| {
            let row = Row::from([
                ("partition", Cell::Int(*partition)),
                ("source_offset", Cell::Int(*offset)),
                (column, cell.clone()),
            ]);
            (place(*partition, *offset), row)
        };
        cells.iter().map(row).collect()
    }

    fn violations(
        records: &[Produced],
        rows: &[(i64, i64, i64)],
        dead: &[(i64, i64, &str)],
    ) -> usize {
        let rows: Vec<_> = rows
            .iter()
            .map(|(p, o, seq)| (*p, *o, Cell::Int(*seq)))
            .collect();
        let dead: Vec<_> = dead
            .iter()
            .map(|(p, o, reason)| (*p, *o, Cell::Text((*reason).to_owned())))
            .collect();
        let (_, violations) = explain(records, &table(&rows, "run_seq"), &table(&dead, "reason"));
        violations.len()
    }

    #[test]
    fn either_partition_may_be_first_and_within_one_the_offsets_decide() {
        let records = [
            record(0, 0, 1, 'a', "1"),
            record(1, 0, 2, 'a', "1"),
            record(0, 1, 3, 'b', "1"),
        ];
        assert_eq!(violations(&records, &[(0, 0, 1), (0, 1, 2)], &[]), 0);
        assert_eq!(violations(&records, &[(1, 0, 1), (0, 1, 2)], &[]), 0);
        assert_eq!(violations(&records, &[(1, 0, 2), (0, 1, 1)], &[]), 0);
        let one = [record(0, 0, 1, 'a', "1"), record(0, 1, 2, 'a', "1")];
        assert_eq!(violations(&one, &[(0, 0, 1)], &[]), 0);
        assert_eq!(violations(&one, &[(0, 1, 1)], &[]), 1);
    }

    #[test]
    fn what_is_lost_doubled_or_out_of_sequence_is_found() {
        let records = [
            record(0, 0, 1, 'a', "1"),
            record(0, 1, 2, 'b', "1"),
            record(1, 0, 3, 'a', "1"),
        ];
        assert_eq!(violations(&records, &[(0, 0, 1)], &[]), 1);
        assert_eq!(
            violations(&records, &[(0, 0, 1), (0, 1, 2), (1, 0, 3)], &[]),
            1
        );
        assert_eq!(violations(&records, &[(0, 0, 1), (0, 1, 3)], &[]), 1);
        assert_eq!(violations(&records, &[(0, 0, 2), (0, 1, 1)], &[]), 1);
    }

    #[test]
    fn conflicts_and_reused_ids_are_dead_letters_whoever_came_first() {
        let records = [
            record(0, 0, 1, 'a', "1"),
            record(1, 0, 2, 'a', "2"),
            record(1, 1, 1, 'c', "1"),
        ];
        let (log, found) = explain(
            &records,
            &table(&[(0, 0, Cell::Int(1))], "run_seq"),
            &Table::new(),
        );
        let reasons: Vec<_> = log
            .dead_letters
            .iter()
            .map(|dead| dead.refusal.reasons[0])
            .collect();
        assert_eq!(
            (reasons, found.len()),
            (vec!["idempotency_conflict", "event_id_reused"], 0)
        );
        // The id's second holder was first: then the first holder is refused, under its own key too.
        let rows = [(1, 1, 1), (1, 0, 2)];
        assert_eq!(
            violations(&records, &rows, &[(0, 0, "event_id_reused")]),
            1,
            "out of order"
        );
        let rows = [(1, 0, 1), (1, 1, 2)];
        assert_eq!(violations(&records, &rows, &[(0, 0, "event_id_reused")]), 0);
    }
}
