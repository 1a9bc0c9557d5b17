//! What a turn has brought into the log: counted in the metrics, and said where dead letters had to be
//! cut. Called by [`crate::worker`].

use std::time::{Duration, Instant};

use event_log::{Appended, Batch, Claim, Outcome, Truncated};

use crate::judge::Noticed;
use crate::metrics::Metrics;

/// A partition whose dead letters are cut says so this often.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// Tenants that are named then.
const NAMED: usize = 3;

/// A batch, or the first part of one, that is in the log.
pub(crate) struct Committed {
    pub(crate) batch: Batch,
    pub(crate) appended: Appended,
    /// Of each record that was judged: of the batch's, and of those that are left.
    pub(crate) noticed: Vec<Noticed>,
}

impl Committed {
    pub(crate) fn count(&self, claim: &Claim, metrics: &Metrics, started: Instant) {
        let Self {
            batch,
            appended,
            noticed,
        } = self;
        let topic = &claim.topic;
        let noticed = Noticed::of_all(&noticed[..batch.records.len()]);
        metrics
            .batch_seconds
            .observe(started.elapsed().as_secs_f64());
        metrics.unknown_fields.inc_by(noticed.unknown_fields);
        metrics.key_mismatch.inc_by(noticed.key_mismatches);
        metrics
            .foreign_record_key
            .inc_by(noticed.foreign_record_keys);
        let fresh = count_outcomes(appended, topic, metrics);
        let truncated = appended.truncated.values().sum();
        metrics
            .truncated
            .with_label_values(&[topic])
            .inc_by(truncated);
        if batch.skipped > 0 {
            metrics
                .skipped
                .with_label_values(&[topic])
                .inc_by(batch.skipped.unsigned_abs());
        }
        tracing::debug!(
            topic,
            partition = claim.partition,
            start = batch.start,
            end = batch.end,
            appended = fresh,
            skipped = batch.skipped,
            "committed"
        );
    }
}

/// Counts the records by what became of them; returns how many are new events.
fn count_outcomes(appended: &Appended, topic: &str, metrics: &Metrics) -> u64 {
    let mut fresh = 0;
    for outcome in &appended.outcomes {
        let name = match outcome {
            Outcome::Appended { .. } => {
                fresh += 1;
                continue;
            }
            Outcome::Duplicate(_) => "duplicate",
            Outcome::Conflict(_) => run_events::Reason::IdempotencyConflict.as_str(),
            Outcome::DeadLetter(reason) => reason.as_str(),
        };
        metrics.records.with_label_values(&[topic, name]).inc();
    }
    metrics
        .records
        .with_label_values(&[topic, "appended"])
        .inc_by(fresh);
    fresh
}

/// Says whose dead letters are cut, now and then.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    said: Option<Instant>,
}

impl Cut {
    pub(crate) fn say(&mut self, claim: &Claim, truncated: &Truncated, quota: usize) {
        let said_lately = self.said.is_some_and(|at| at.elapsed() < SAY_AGAIN);
        if truncated.is_empty() || said_lately {
            return;
        }
        self.said = Some(Instant::now());
        for (tenant, letters) in truncated.iter().take(NAMED) {
            tracing::warn!(
                topic = claim.topic,
                partition = claim.partition,
                tenant = tenant.as_deref().unwrap_or("none that is known"),
                letters,
                "only the first KiB of dead letters is kept: the pending ones of the tenant (of the topic, where none \
                 is known) have reached ingest.dead_letters.max_bytes_per_tenant = {quota} bytes; look at them with \
                 runlog dlq list"
            );
        }
    }
}
