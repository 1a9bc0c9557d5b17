//! How far the read models are behind the log. Called by the coordinator with what it has read.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use event_log::read::{StreamHead, next_persisted_at};
use run_events::Micros;
use sqlx::PgConnection;

use super::checkpoint::Standing;
use super::versions::Version;
use crate::metrics::Metrics;

/// Sets the lag metrics of these versions. Costs one read of one event per stream that is
/// behind, to know its age.
pub(super) async fn measure(
    connection: &mut PgConnection,
    metrics: &Metrics,
    versions: &[Version],
    heads: &[StreamHead],
    standings: &[Standing],
) -> Result<(), sqlx::Error> {
    for version in versions {
        let is_its = |s: &&Standing| version.is(&s.projection, s.version);
        let mine = standings.iter().filter(is_its);
        let standings: HashMap<i64, &Standing> = mine.map(|s| (s.stream_id, s)).collect();
        let (mut events, mut seconds) = (0, 0.0_f64);
        for head in heads {
            let Some(standing) = standings.get(&head.stream_id) else {
                continue;
            };
            let behind = head.appended - standing.position.applied;
            if behind > 0 {
                events += behind;
                seconds = seconds.max(age_of_next(connection, head, standing).await?);
            }
        }
        let label = &[version.label()];
        metrics.lag_events.with_label_values(label).set(events);
        metrics.lag_seconds.with_label_values(label).set(seconds);
    }
    Ok(())
}

/// Seconds since the next event of the stream was persisted; 0 where there is none.
async fn age_of_next(
    connection: &mut PgConnection,
    head: &StreamHead,
    standing: &Standing,
) -> Result<f64, sqlx::Error> {
    let (from, horizon) = (standing.position.next_offset, head.next_offset);
    let next = next_persisted_at(connection, head.stream_id, from, horizon).await?;
    Ok(next.map_or(0.0, |next| {
        seconds_between(Micros::from(next), standing.read_at)
    }))
}

fn seconds_between(from: Micros, to: DateTime<Utc>) -> f64 {
    Micros::from(to).micros_since(from) as f64 / 1e6
}
