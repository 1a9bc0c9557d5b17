//! A projection that is called without a runner: batches of streams in an order of the test's choice.

use event_log::read::stream_events;
use runlog_projectors::projection::Projection;

use crate::support::{Database, page};

/// Applies all events of the streams in batches of this size, each in a transaction of its own; `turns`
/// batches of one stream, then of the next. A projection finds its first version's tables.
pub(crate) async fn apply(
    database: &Database,
    projection: &dyn Projection,
    streams: &[i64],
    size: i64,
    turns: usize,
) {
    let mut at: Vec<(i64, i64)> = streams.iter().map(|stream| (*stream, 0)).collect();
    while !at.is_empty() {
        let mut rest = Vec::new();
        for (stream, mut next) in at {
            let mut is_read = false;
            for _ in 0..turns {
                let mut transaction = database.pool.begin().await.unwrap();
                let events = stream_events(
                    &mut transaction,
                    stream,
                    next,
                    i64::MAX,
                    page(size),
                    projection.payloads(),
                );
                let events = events.await.unwrap();
                is_read = events.is_empty();
                if let Some(last) = events.last() {
                    next = last.source_offset + 1;
                    projection.apply(&mut transaction, &events).await.unwrap();
                    transaction.commit().await.unwrap();
                }
            }
            rest.extend((!is_read).then_some((stream, next)));
        }
        at = rest;
    }
}
