//! What ingest measures. The names are part of the public surface; the help texts are the docs.

use std::sync::Arc;
use std::time::Duration;

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};
use service::metrics::{MetricsRegistry, register_build_info};
use tokio_util::sync::CancellationToken;

use crate::Shared;

/// The metrics of the process.
pub(crate) struct Metrics {
    /// Records by what became of them: appended, duplicate, or a dead-letter reason.
    pub(crate) records: IntCounterVec,
    /// From the first record of a batch in the worker's hands to its commit.
    pub(crate) batch_seconds: Histogram,
    /// One append: from BEGIN to the answer of COMMIT.
    pub(crate) commit_seconds: Histogram,
    /// Kafka's last stable offset less the stored offset, for the partitions held here.
    pub(crate) lag: IntGaugeVec,
    /// 1 for each partition that waits for an operator.
    pub(crate) halted: IntGaugeVec,
    /// Dead letters that nobody has replayed or discarded, in the whole database.
    pub(crate) dead_letters: IntGaugeVec,
    /// Their bytes, by topic.
    pub(crate) dead_letter_bytes: IntGaugeVec,
    /// Dead letters that were cut because their tenant had reached its quota.
    pub(crate) truncated: IntCounterVec,
    /// Offsets that held no record for a reader.
    pub(crate) skipped: IntCounterVec,
    /// Times that a partition was found to be claimed by another process, or its generation closed.
    pub(crate) fenced: IntCounter,
    /// Retries of a batch after a fault of the environment.
    pub(crate) retries: IntCounter,
    /// New Kafka clients in the place of ones that could do nothing more.
    pub(crate) renewed_clients: IntCounter,
    /// How long the partition that waits longest has had records without storing one.
    pub(crate) unmoved_seconds: IntGauge,
    /// Fields of accepted events that the contract does not know.
    pub(crate) unknown_fields: IntCounter,
    /// Accepted events whose idempotency key is not the derived one.
    pub(crate) key_mismatch: IntCounter,
    /// Accepted events whose Kafka key is not the runId.
    pub(crate) foreign_record_key: IntCounter,
}

/// 1 ms to 33 s, doubling.
const SECONDS_START: f64 = 0.001;
const SECONDS_BUCKETS: usize = 16;

impl Metrics {
    /// Creates and registers them all.
    pub(crate) fn new(registry: &MetricsRegistry) -> prometheus::Result<Self> {
        register_build_info(registry, "ingest")?;
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let counter = |name: &str, help: &str| {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        let seconds = |name: &str, help: &str| {
            let buckets = prometheus::exponential_buckets(SECONDS_START, 2.0, SECONDS_BUCKETS)?;
            let metric = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(metric.clone()))?;
            Ok::<_, prometheus::Error>(metric)
        };
        Ok(Self {
            records: counters(
                "runlog_ingest_records_total",
                "Records by what became of them: appended, duplicate, or a dead-letter reason.",
                &["topic", "outcome"],
            )?,
            batch_seconds: seconds(
                "runlog_ingest_batch_seconds",
                "From the first record of a batch in the worker's hands to its commit.",
            )?,
            commit_seconds: seconds(
                "runlog_ingest_commit_latency_seconds",
                "One append, from BEGIN to the answer of COMMIT.",
            )?,
            lag: gauges(
                "runlog_ingest_lag_records",
                "Kafka's last stable offset less the stored offset, for the partitions held by this process.",
                &["topic", "partition"],
            )?,
            halted: gauges(
                "runlog_stream_halted",
                "1 for each partition held by this process that waits for an operator.",
                &["topic", "partition", "reason"],
            )?,
            dead_letters: gauges(
                "runlog_dead_letters_pending",
                "Dead letters that nobody has replayed or discarded, in the whole database.",
                &["reason"],
            )?,
            dead_letter_bytes: gauges(
                "runlog_dead_letter_bytes",
                "Bytes of the pending dead letters of a topic, in the whole database, as the quotas count them.",
                &["topic"],
            )?,
            truncated: counters(
                "runlog_dead_letters_truncated_total",
                "Dead letters of which only the first KiB was kept, because their tenant had reached its quota.",
                &["topic"],
            )?,
            skipped: counters(
                "runlog_ingest_skipped_offsets_total",
                "Offsets that held no record: control records, aborted transactions, compaction. Worth a look on a topic without those.",
                &["topic"],
            )?,
            fenced: counter(
                "runlog_ingest_fenced_total",
                "Times that a partition was found to be claimed by another process, or its generation closed.",
            )?,
            retries: counter(
                "runlog_ingest_retries_total",
                "Retries of a batch after a fault of the environment.",
            )?,
            unmoved_seconds: {
                let metric = IntGauge::new(
                    "runlog_ingest_unmoved_seconds",
                    "How long the partition that waits longest has had records without storing one, whatever the reason; 0 = all move.",
                )?;
                registry.register(Box::new(metric.clone()))?;
                metric
            },
            renewed_clients: counter(
                "runlog_ingest_renewed_clients_total",
                "New Kafka clients in the place of ones that had lost their brokers for good, or were fenced.",
            )?,
            unknown_fields: counter(
                "runlog_ingest_unknown_fields_total",
                "JSON fields of accepted events that the contract does not know.",
            )?,
            key_mismatch: counter(
                "runlog_ingest_key_mismatch_total",
                "Accepted events whose idempotency key is not the derived one.",
            )?,
            foreign_record_key: counter(
                "runlog_ingest_foreign_record_key_total",
                "Accepted events whose Kafka key is not the runId: their order is not guaranteed.",
            )?,
        })
    }
}

/// Counts the pending dead letters and their bytes now and then, until shutdown.
pub(crate) async fn watch_dead_letters(shared: Arc<Shared>, shutdown: CancellationToken) {
    const EVERY: Duration = Duration::from_secs(15);
    let (pool, metrics) = (&shared.pool, &shared.metrics);
    loop {
        show(
            &metrics.dead_letters,
            event_log::read::pending_dead_letters(pool).await,
        );
        show(
            &metrics.dead_letter_bytes,
            event_log::read::dead_letter_bytes(pool).await,
        );
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

fn show(gauges: &IntGaugeVec, counts: Result<Vec<(String, i64)>, sqlx::Error>) {
    match counts {
        Ok(counts) => {
            gauges.reset();
            for (label, count) in counts {
                gauges.with_label_values(&[label.as_str()]).set(count);
            }
        }
        // The appends meet the same fault, and say so where it matters.
        Err(error) => tracing::debug!(%error, "cannot count the dead letters"),
    }
}
