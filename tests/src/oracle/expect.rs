//! The oracle's answer in the shape of the views: one table per view, keyed as the views are read
//! by [`crate::observe`].
//!
//! Called by [`crate::pipeline`] when everything that was sent has been taken in.

use super::Produced;
use super::log::{Log, Reading, Totals};
use super::table::{Cell, Row, Table};

/// Identity of what stands at one place of the topic.
#[must_use]
pub fn place(partition: i64, offset: i64) -> Vec<String> {
    // Padded, so that differences are listed in offset order.
    vec![
        format!("partition {partition}"),
        format!("offset {offset:>8}"),
    ]
}

/// Identity of a generation of a partition.
#[must_use]
pub fn stream(partition: i64, generation: i64) -> Vec<String> {
    vec![
        format!("partition {partition}"),
        format!("generation {generation}"),
    ]
}

/// Identity of a row after `before` others with the same one: a record that is read again can be
/// refused again.
#[must_use]
pub fn after(mut identity: Vec<String>, before: usize) -> Vec<String> {
    if before > 0 {
        identity.push(format!("row {}", before + 1));
    }
    identity
}

/// `event_log.run_events`, by partition and offset.
#[must_use]
pub fn run_events(log: &Log, topic: &str) -> Table {
    log.appended
        .iter()
        .map(|row| {
            let (event, content) = (&row.event, &row.event.content);
            let text = |value: &str| Cell::Text(value.to_owned());
            let cells = Row::from([
                ("tenant_id", text(&event.tenant_id)),
                ("run_id", text(&event.run_id)),
                ("run_seq", Cell::Int(row.run_seq)),
                ("event_id", text(&event.event_id)),
                ("event_type", text(&content.event_type)),
                ("idempotency_key", text(&event.idempotency_key)),
                ("project_id", text(&content.project_id)),
                ("environment_id", text(&content.environment_id)),
                ("plan_id", text(&content.plan_id)),
                ("plan_version", text(&content.plan_version)),
                ("engine_attempt_id", Cell::Int(event.engine_attempt_id)),
                ("logical_attempt_id", Cell::Int(content.logical_attempt_id)),
                ("step_id", Cell::text(content.step_id.clone())),
                ("emitted_at", Cell::Int(event.emitted_at)),
                ("persisted_at", Cell::Present),
                ("payload", Cell::json(content.payload.clone())),
                ("topic", text(topic)),
            ]);
            (place(row.partition.into(), row.offset), cells)
        })
        .collect()
}

/// `event_log.dead_letters`, by partition and offset, with the original bytes.
#[must_use]
pub fn dead_letters(log: &Log, records: &[Produced], topic: &str) -> Table {
    let mut refused = vec![0; records.len()];
    log.dead_letters
        .iter()
        .map(|dead| {
            let record = &records[dead.record];
            let before = refused[dead.record];
            refused[dead.record] += 1;
            let refusal = &dead.refusal;
            let name = |value: &Option<String>| match value {
                Some(value) if dead.names_run => Cell::Text(value.clone()),
                Some(value) => Cell::OrNull(value.clone()),
                None => Cell::Null,
            };
            let cells = Row::from([
                ("topic", Cell::Text(topic.to_owned())),
                ("reason", Cell::OneOf(refusal.reasons)),
                (
                    "detail",
                    refusal.field.map_or(Cell::Present, Cell::Containing),
                ),
                ("tenant_id", name(&refusal.tenant_id)),
                ("run_id", name(&refusal.run_id)),
                ("key", Cell::text(record.key.as_ref().map(hex::encode))),
                ("value", Cell::text(record.value.as_ref().map(hex::encode))),
            ]);
            let place = place(record.partition.into(), record.offset);
            (after(place, before), cells)
        })
        .collect()
}

/// `event_log.streams`, by partition and generation: everything accounted for, and where nothing
/// else is known of the readings, from offset 0 to the end.
#[must_use]
pub fn ledger(log: &Log, topic: &str) -> Table {
    let whole = |(&partition, totals): (&i32, &Totals)| {
        let end = totals.appended + totals.duplicates + totals.dead_lettered;
        let reading = Reading {
            partition,
            generation: 1,
            start: 0,
            end,
        };
        (reading, *totals)
    };
    let readings = match log.readings.as_slice() {
        [] => log.totals.iter().map(whole).collect(),
        known => known.to_vec(),
    };
    let row = |(reading, totals): &(Reading, Totals)| {
        let is_newest = !readings.iter().any(|(other, _)| {
            other.partition == reading.partition && other.generation > reading.generation
        });
        let cells = Row::from([
            ("topic", Cell::Text(topic.to_owned())),
            ("start_offset", Cell::Int(reading.start)),
            ("next_offset", Cell::Int(reading.end)),
            ("appended", Cell::Int(totals.appended)),
            ("duplicates", Cell::Int(totals.duplicates)),
            ("dead_lettered", Cell::Int(totals.dead_lettered)),
            ("skipped", Cell::Int(0)),
            // Why a closed one was halted is history, and stays.
            (
                "closed_at",
                if is_newest { Cell::Null } else { Cell::Present },
            ),
        ]);
        let halted = is_newest.then_some(("halted_reason", Cell::Null));
        let cells = cells.into_iter().chain(halted).collect();
        (stream(reading.partition.into(), reading.generation), cells)
    };
    readings.iter().map(row).collect()
}
