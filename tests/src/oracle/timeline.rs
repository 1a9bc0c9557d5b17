//! From the log's rows to `read_model.run_state_interval`.
//!
//! Called as [`super::fold`] is. Reads off each run when its state changed, with the table of allowed
//! steps, and pairs each change with the next one.

use super::envelope::Event;
use super::fold::RUN_STEPS;
use super::log::Appended;
use super::table::{Cell, Row, Table};
use std::collections::BTreeMap;

/// An event that changed a run's state, or the one that its time as PENDING counts from.
struct Change<'a> {
    state: &'static str,
    event: &'a Event,
    persisted: i64,
    run_seq: i64,
}

/// The expected rows, by tenant, run and number of the interval. `persisted_at` is by (partition,
/// offset), in microseconds.
///
/// # Panics
/// Where a row's `persisted_at` is not there.
#[must_use]
pub fn run_state_interval(rows: &[Appended], persisted_at: &BTreeMap<(i32, i64), i64>) -> Table {
    let mut by_run: BTreeMap<(&str, &str), BTreeMap<i64, &Appended>> = BTreeMap::new();
    for row in rows {
        let run = (row.event.tenant_id.as_str(), row.event.run_id.as_str());
        by_run.entry(run).or_default().insert(row.run_seq, row);
    }
    let mut table = Table::new();
    for ((tenant, run), events) in by_run {
        let events: Vec<(&Appended, i64)> = events
            .into_values()
            .map(|row| (row, persisted_at[&(row.partition, row.offset)]))
            .collect();
        let changes = changes(&events);
        for (at, change) in changes.iter().enumerate() {
            let number = at + 1;
            let identity = vec![tenant.to_owned(), run.to_owned(), number.to_string()];
            let cells = interval(change, changes.get(number), &events[0].0.event);
            table.insert(identity, cells);
        }
    }
    table
}

fn changes<'a>(events: &[(&'a Appended, i64)]) -> Vec<Change<'a>> {
    let change = |state, (row, persisted): &(&'a Appended, i64)| Change {
        state,
        event: &row.event,
        persisted: *persisted,
        run_seq: row.run_seq,
    };
    let kind = |(row, _): &(&Appended, i64)| row.event.content.event_type.clone();
    let mut later = Vec::new();
    let mut state = "PENDING";
    let mut waiting = events.len();
    for (at, event) in events.iter().enumerate() {
        let step = RUN_STEPS.iter().find(|(name, ..)| *name == kind(event));
        if let Some((_, from, to)) = step
            && from.contains(&state)
            && state != *to
        {
            if state == "PENDING" {
                waiting = at;
            }
            state = to;
            later.push(change(to, event));
        }
    }
    // As long as the run waited, its first RunQueued says since when.
    let queued = events[..waiting]
        .iter()
        .find(|event| kind(event) == "RunQueued");
    let mut changes = vec![change("PENDING", queued.unwrap_or(&events[0]))];
    changes.append(&mut later);
    changes
}

fn interval(from: &Change<'_>, to: Option<&Change<'_>>, first: &Event) -> Row {
    let micros = to.map(|to| (to.persisted - from.persisted).max(0));
    let text = |value: &str| Cell::Text(value.to_owned());
    Row::from([
        ("state", text(from.state)),
        ("started_at", Cell::Int(from.persisted)),
        ("ended_at", Cell::int(to.map(|to| to.persisted))),
        (
            "duration_ms",
            Cell::int(micros.map(|micros| micros / 1_000)),
        ),
        ("emitted_started_at", Cell::Int(from.event.emitted_at)),
        (
            "emitted_ended_at",
            Cell::int(to.map(|to| to.event.emitted_at)),
        ),
        ("project_id", text(&first.content.project_id)),
        ("environment_id", text(&first.content.environment_id)),
        ("plan_id", text(&first.content.plan_id)),
        ("plan_version", text(&first.content.plan_version)),
        ("last_event_seq", Cell::Int(to.unwrap_or(from).run_seq)),
        ("projected_at", Cell::Present),
    ])
}

#[cfg(test)]
mod tests {
    use super::super::log::Content;
    use super::{Appended, Cell, Event, run_state_interval};
    use std::collections::BTreeMap;

    /// (state, started, ended, duration, runSeq) of the rows of one run, all of whose events have
    /// their own project and are emitted at minus their persisted time.
    fn rows(lines: &[(&str, i64)]) -> Vec<[String; 5]> {
        let mut times = BTreeMap::new();
        let appended = |(seq, (kind, persisted)): (i64, &(&str, i64))| {
            times.insert((0, seq), *persisted);
            let content = Content {
                event_type: (*kind).to_owned(),
                step_id: None,
                logical_attempt_id: 1,
                plan_id: format!("l{seq}"),
                plan_version: "v".into(),
                project_id: format!("p{seq}"),
                environment_id: "e".into(),
                payload: None,
            };
            let event = Event {
                event_id: format!("event {seq}"),
                tenant_id: "t".into(),
                run_id: "r".into(),
                engine_attempt_id: 1,
                idempotency_key: seq.to_string(),
                emitted_at: -persisted,
                content,
            };
            Appended {
                partition: 0,
                offset: seq,
                run_seq: seq,
                event,
            }
        };
        let appended: Vec<Appended> = (1..).zip(lines).map(appended).collect();
        let table = run_state_interval(&appended, &times);
        let shown = |(number, (identity, row)): (usize, (&Vec<String>, &super::Row))| {
            assert_eq!(*identity, ["t", "r", &number.to_string()]);
            assert_eq!(row["project_id"], Cell::Text("p1".into()));
            assert_eq!(row["plan_id"], Cell::Text("l1".into()));
            let negated = |cell: &Cell| match cell {
                Cell::Int(value) => Cell::Int(-value),
                other => other.clone(),
            };
            assert_eq!(row["emitted_started_at"], negated(&row["started_at"]));
            assert_eq!(row["emitted_ended_at"], negated(&row["ended_at"]));
            [
                "state",
                "started_at",
                "ended_at",
                "duration_ms",
                "last_event_seq",
            ]
            .map(|column| row[column].to_string().replace('"', ""))
        };
        (1..).zip(&table).map(shown).collect()
    }

    #[test]
    fn each_change_ends_an_interval_and_begins_the_next() {
        let found = rows(&[
            ("RunAnnotated", 1_000),
            ("RunQueued", 2_000),
            ("RunQueued", 3_000),
            ("RunStarted", 5_999),
            ("RunQueued", 6_000),
            ("RunPaused", 7_000),
            ("RunCompleted", 8_000),
            ("RunResumed", 6_500),
            ("RunCompleted", 9_000),
            ("RunFailed", 9_500),
        ]);
        let expected = [
            ["PENDING", "2000", "5999", "3", "4"],
            ["RUNNING", "5999", "7000", "1", "6"],
            ["PAUSED", "7000", "6500", "0", "8"],
            ["RUNNING", "6500", "9000", "2", "9"],
            ["COMPLETED", "9000", "NULL", "NULL", "9"],
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_run_without_a_run_queued_waits_from_its_first_event_on() {
        let found = rows(&[("RunStarted", 1_000), ("RunQueued", 2_000)]);
        let expected = [
            ["PENDING", "1000", "1000", "0", "1"],
            ["RUNNING", "1000", "NULL", "NULL", "1"],
        ];
        assert_eq!(found, expected);
        let found = rows(&[("StepStarted", 1_000), ("RunCancelled", 2_000)]);
        assert_eq!(found, [["PENDING", "1000", "NULL", "NULL", "1"]]);
    }
}
