//! Everything that this process measures. Registered once by [`crate::run`]; set by the runner.
//! Names: docs/operations.md. The help texts are what /metrics shows.

use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts,
};
use service::metrics::MetricsRegistry;

/// The metrics of `runlog-projectors`. Clones share their values.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `runlog_projection_lag_events{projection}`: events of the log that are not in the read
    /// model yet: appended - applied, summed over all streams, whichever process reads them.
    /// Every process shows the same value: aggregate with `max`, not `sum`.
    pub lag_events: IntGaugeVec,
    /// `runlog_projection_lag_seconds{projection}`: age of the oldest such event since its
    /// persistedAt, by the database's clock; 0 at the head. Aggregate with `max`.
    pub lag_seconds: GaugeVec,
    /// `runlog_projection_inconsistencies_total`: alerts written to run_inconsistency.
    pub inconsistencies: IntCounter,
    /// `runlog_end_to_end_seconds{projection}`: per event, from its persistedAt (the database's
    /// clock as its append began) to the end of the transaction that brought it into the read
    /// model (the same clock, just before the commit).
    pub end_to_end: HistogramVec,
    /// `runlog_projection_events_total{projection}`: events passed by this process, redelivered
    /// ones included.
    pub events: IntCounterVec,
    /// `runlog_projection_batch_seconds{projection}`: a batch's transaction, begin to commit.
    pub batch_seconds: HistogramVec,
    /// `runlog_projection_batch_failures_total{projection}`: transactions that failed and were
    /// tried again.
    pub batch_failures: IntCounterVec,
    /// `runlog_projection_ledger_mismatch_total{projection}`: times that a stream's head was
    /// reached with another number of events than the ledger says were appended. Anything but 0
    /// means that events were missed or counted twice.
    pub ledger_mismatches: IntCounterVec,
    /// `runlog_projection_parked_runs{projection}`: runs whose events cannot be applied. Every process
    /// shows the same value: aggregate with `max`.
    pub parked_runs: IntGaugeVec,
    /// `runlog_projection_verified_runs_total{projection}`: runs whose rows were compared with a fresh
    /// fold of the log.
    pub verified_runs: IntCounterVec,
    /// `runlog_projection_mismatches_total{projection}`: rows that a fresh fold of the log does not give, or
    /// that are missing. Anything but 0 means that the read model is wrong.
    pub mismatches: IntCounterVec,
    /// `runlog_projection_leases{projection}`: streams that this process works on.
    pub leases: IntGaugeVec,
}

impl Metrics {
    /// Makes and registers them, and `runlog_build_info`.
    ///
    /// # Errors
    /// `AlreadyReg` where the registry has one of them already.
    pub fn register(registry: &MetricsRegistry) -> prometheus::Result<Self> {
        service::metrics::register_build_info(registry, "projectors")?;
        let metrics = Self::new()?;
        registry.register(Box::new(metrics.lag_events.clone()))?;
        registry.register(Box::new(metrics.lag_seconds.clone()))?;
        registry.register(Box::new(metrics.inconsistencies.clone()))?;
        registry.register(Box::new(metrics.end_to_end.clone()))?;
        registry.register(Box::new(metrics.events.clone()))?;
        registry.register(Box::new(metrics.batch_seconds.clone()))?;
        registry.register(Box::new(metrics.batch_failures.clone()))?;
        registry.register(Box::new(metrics.ledger_mismatches.clone()))?;
        registry.register(Box::new(metrics.parked_runs.clone()))?;
        registry.register(Box::new(metrics.verified_runs.clone()))?;
        registry.register(Box::new(metrics.mismatches.clone()))?;
        registry.register(Box::new(metrics.leases.clone()))?;
        Ok(metrics)
    }

    /// Takes back what is measured of a version that is no more, or is called otherwise now.
    pub fn forget(&self, label: &str) {
        let label = &[label];
        // Absent where nothing was ever measured.
        let _ = self.lag_events.remove_label_values(label);
        let _ = self.lag_seconds.remove_label_values(label);
        let _ = self.parked_runs.remove_label_values(label);
        let _ = self.leases.remove_label_values(label);
    }

    fn new() -> prometheus::Result<Self> {
        let opts = |name: &str, help: &str| Opts::new(format!("runlog_{name}"), help);
        let label = &["projection"];
        let seconds = |name: &str, help: &str, buckets: &[f64]| {
            let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
            HistogramVec::new(opts, label)
        };
        Ok(Self {
            lag_events: IntGaugeVec::new(
                opts(
                    "projection_lag_events",
                    "Events of the log that are not in the read model yet, over all streams and \
                     processes; aggregate with max.",
                ),
                label,
            )?,
            lag_seconds: GaugeVec::new(
                opts(
                    "projection_lag_seconds",
                    "Age of the oldest event that is not in the read model yet; 0 at the head; \
                     aggregate with max.",
                ),
                label,
            )?,
            inconsistencies: IntCounter::with_opts(opts(
                "projection_inconsistencies_total",
                "Alerts written for invalid transitions.",
            ))?,
            end_to_end: seconds(
                "end_to_end_seconds",
                "From an event's persistedAt to its commit in the read model, by the database's \
                 clock.",
                &[
                    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0,
                    1800.0,
                ],
            )?,
            events: IntCounterVec::new(
                opts(
                    "projection_events_total",
                    "Events passed, redelivered ones included.",
                ),
                label,
            )?,
            batch_seconds: seconds(
                "projection_batch_seconds",
                "Time of a batch's transaction, begin to commit.",
                &[
                    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
                ],
            )?,
            batch_failures: IntCounterVec::new(
                opts(
                    "projection_batch_failures_total",
                    "Transactions that failed and were tried again.",
                ),
                label,
            )?,
            ledger_mismatches: IntCounterVec::new(
                opts(
                    "projection_ledger_mismatch_total",
                    "Times that a stream's head was reached with another number of events than \
                     the ledger says were appended.",
                ),
                label,
            )?,
            parked_runs: IntGaugeVec::new(
                opts(
                    "projection_parked_runs",
                    "Runs whose events cannot be applied and that wait for an operator; aggregate with max.",
                ),
                label,
            )?,
            verified_runs: IntCounterVec::new(
                opts(
                    "projection_verified_runs_total",
                    "Runs whose rows were compared with a fresh fold of the log.",
                ),
                label,
            )?,
            mismatches: IntCounterVec::new(
                opts(
                    "projection_mismatches_total",
                    "Rows of the read model that a fresh fold of the log does not give, or that are missing.",
                ),
                label,
            )?,
            leases: IntGaugeVec::new(
                opts("projection_leases", "Streams that this process works on."),
                label,
            )?,
        })
    }
}
