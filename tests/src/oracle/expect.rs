//! The oracle's answer in the shape of the views: one table per view, keyed as the views are read
//! by [`crate::observe`].
//!
//! Called by [`crate::pipeline`] when everything that was sent has been taken in.

use super::Produced;
use super::log::Log;
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
    log.dead_letters
        .iter()
        .map(|dead| {
            let record = &records[dead.record];
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
            (place(record.partition.into(), record.offset), cells)
        })
        .collect()
}

/// `event_log.streams`, by partition: everything accounted for, from offset 0 to the end.
#[must_use]
pub fn ledger(log: &Log, topic: &str) -> Table {
    log.totals
        .iter()
        .map(|(partition, totals)| {
            let sum = totals.appended + totals.duplicates + totals.dead_lettered;
            let cells = Row::from([
                ("topic", Cell::Text(topic.to_owned())),
                ("start_offset", Cell::Int(0)),
                ("next_offset", Cell::Int(sum)),
                ("appended", Cell::Int(totals.appended)),
                ("duplicates", Cell::Int(totals.duplicates)),
                ("dead_lettered", Cell::Int(totals.dead_lettered)),
                ("skipped", Cell::Int(0)),
                ("halted_reason", Cell::Null),
                ("closed_at", Cell::Null),
            ]);
            (vec![format!("partition {partition}")], cells)
        })
        .collect()
}
