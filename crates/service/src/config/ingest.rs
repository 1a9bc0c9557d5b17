//! Section `ingest`: which topics `runlog-ingest` reads and how it batches and writes them.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::Problem;
use super::quantity::{byte_size, duration};

/// What `runlog-ingest` reads and how it writes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IngestConfig {
    /// Kafka consumer group. One database belongs to one group. Default "runlog".
    pub group_id: String,
    /// The topics to read, at least one. Default: `run-events`, open to all tenants.
    pub topics: Vec<TopicConfig>,
    /// When a batch is full.
    pub batch: BatchConfig,
    /// Transactions at once. 1 to 64, default 4. Each holds a connection of
    /// `database.max_connections` while it runs.
    pub writers: usize,
    /// Memory of all records that wait in the process or are being written. The partitions that are
    /// read share it evenly; one that has its share is paused. 1 byte to 64 GiB, default 48 MiB. A
    /// single larger record still passes.
    #[serde(with = "byte_size")]
    pub buffer_bytes: usize,
    /// Time that the batches in flight get on SIGTERM before they are abandoned (which is safe:
    /// they are read again). 0 to 10 min, default 10s.
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
    /// How long something may stand still, with work at hand and without a known reason, before the
    /// process ends itself with exit code 1. 10 s to 24 h, default 5min; 0 = never.
    #[serde(with = "duration")]
    pub stall_timeout: Duration,
    /// Whether an idempotency key that is not the one its event derives makes the record a dead
    /// letter (`key_mismatch`). Default false: such a key is accepted and counted.
    pub strict_keys: bool,
    /// What is kept of records that cannot be appended.
    pub dead_letters: DeadLettersConfig,
}

/// One topic and who may speak through it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicConfig {
    /// The topic's name.
    pub name: String,
    /// The tenants that may appear in it; a record of any other becomes a dead letter
    /// (`tenant_not_allowed`). `None` = all tenants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<Vec<String>>,
}

/// When a batch is closed and committed: whichever bound is met first.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BatchConfig {
    /// Records in a batch at most. 1 to 50000, default 2000.
    pub max_events: usize,
    /// Bytes of keys and values in a batch at most; a single larger record makes a batch of its
    /// own. 1 byte to 256 MiB, default 4 MiB.
    #[serde(with = "byte_size")]
    pub max_bytes: usize,
    /// How far apart the batches of a partition begin, unless they are full: a record that comes alone is
    /// appended at once, and under load batches grow. 0 to 10 s, default 20 ms.
    #[serde(with = "duration")]
    pub linger: Duration,
}

/// What is kept of records that cannot be appended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeadLettersConfig {
    /// Bytes of a tenant's pending dead letters (key, value and headers) in the whole database up to
    /// which they are kept whole; of those beyond it only the first KiB is. Records that name no valid
    /// tenant which their topic may speak for count together for the topic. 0 to 64 TiB, default 1 GiB.
    #[serde(with = "byte_size")]
    pub max_bytes_per_tenant: usize,
}

impl Default for IngestConfig {
    fn default() -> Self {
        IngestConfig {
            group_id: "runlog".to_owned(),
            topics: vec![TopicConfig {
                name: "run-events".to_owned(),
                tenants: None,
            }],
            batch: BatchConfig::default(),
            writers: 4,
            buffer_bytes: 48 << 20,
            drain_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(300),
            strict_keys: false,
            dead_letters: DeadLettersConfig::default(),
        }
    }
}

impl Default for DeadLettersConfig {
    fn default() -> Self {
        DeadLettersConfig {
            max_bytes_per_tenant: 1 << 30,
        }
    }
}

impl Default for BatchConfig {
    fn default() -> Self {
        BatchConfig {
            max_events: 2000,
            max_bytes: 4 << 20,
            linger: Duration::from_millis(20),
        }
    }
}

impl IngestConfig {
    pub(super) fn check(&self) -> Result<(), Problem> {
        if self.group_id.trim().is_empty() {
            return Problem::err("ingest.group_id", "is empty; it must name a consumer group");
        }
        check_topics(&self.topics)?;
        self.batch.check()?;
        Problem::unless_within(
            "ingest.dead_letters.max_bytes_per_tenant",
            self.dead_letters.max_bytes_per_tenant,
            0..=64 << 40,
            byte_size::text,
        )?;
        Problem::unless_within("ingest.writers", self.writers, 1..=64, usize::to_string)?;
        Problem::unless_within(
            "ingest.buffer_bytes",
            self.buffer_bytes,
            1..=64 << 30,
            byte_size::text,
        )?;
        Problem::unless_lasting(
            "ingest.drain_timeout",
            self.drain_timeout,
            // A rebalance waits for it, and Kafka's max.poll.interval.ms is 5 minutes.
            Duration::ZERO..=Duration::from_secs(120),
        )?;
        if self.stall_timeout.is_zero() {
            return Ok(());
        }
        Problem::unless_lasting(
            "ingest.stall_timeout",
            self.stall_timeout,
            // What is busy for a few seconds is not stalled.
            Duration::from_secs(10)..=Duration::from_secs(24 * 3600),
        )
    }
}

impl BatchConfig {
    fn check(&self) -> Result<(), Problem> {
        Problem::unless_within(
            "ingest.batch.max_events",
            self.max_events,
            1..=50_000,
            usize::to_string,
        )?;
        Problem::unless_within(
            "ingest.batch.max_bytes",
            self.max_bytes,
            1..=256 << 20,
            byte_size::text,
        )?;
        Problem::unless_lasting(
            "ingest.batch.linger",
            self.linger,
            Duration::ZERO..=Duration::from_secs(10),
        )
    }
}

fn check_topics(topics: &[TopicConfig]) -> Result<(), Problem> {
    const KEY: &str = "ingest.topics";
    if topics.is_empty() {
        return Problem::err(
            KEY,
            "is empty; name at least one topic: [{ name = \"run-events\" }]",
        );
    }
    let mut names = BTreeSet::new();
    for TopicConfig { name, tenants } in topics {
        if !is_topic_name(name) {
            return Problem::err(
                KEY,
                format!(
                    "names the topic {name:?}; a topic's name is 1 to 249 characters of \
                     a-z A-Z 0-9 . _ -"
                ),
            );
        }
        if !names.insert(name) {
            return Problem::err(KEY, format!("names the topic {name:?} twice; keep one"));
        }
        if tenants.as_ref().is_some_and(Vec::is_empty) {
            return Problem::err(
                KEY,
                format!(
                    "lets no tenant use the topic {name:?}; name tenants, or leave `tenants` out \
                     to let in all"
                ),
            );
        }
        if tenants.iter().flatten().any(String::is_empty) {
            return Problem::err(KEY, format!("has an empty tenant for the topic {name:?}"));
        }
    }
    Ok(())
}

/// Kafka's own rule for the name of a topic.
fn is_topic_name(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}
