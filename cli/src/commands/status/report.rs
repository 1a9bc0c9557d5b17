//! The status report: its rows, what counts as settled, and its tables. Pure. Called by `status`.

use event_log::read::StreamHead;
use serde::Serialize;

use crate::format::{count, duration, or_dash};
use crate::kafka::probe::Watermarks;
use crate::output::{Output, text};

/// Everything that `runlog status` shows.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) partitions: Vec<Partition>,
    pub(super) projections: Vec<Projection>,
    pub(super) totals: Totals,
    /// Configured topics that Kafka does not have.
    pub(super) missing_topics: Vec<String>,
}

/// One generation of one partition.
#[derive(Debug, Serialize)]
pub(super) struct Partition {
    pub(super) topic: String,
    pub(super) partition: i32,
    /// Null = nobody has claimed the partition yet.
    pub(super) generation: Option<i32>,
    /// The next offset Kafka will give out to readers; null = unknown to Kafka, or not this
    /// generation's concern any more.
    pub(super) kafka_head: Option<i64>,
    /// The next offset to be stored; null = nobody has claimed the partition yet.
    pub(super) stored_offset: Option<i64>,
    /// kafka_head - stored_offset; null where Kafka does not have the partition.
    pub(super) ingest_lag: Option<i64>,
    pub(super) appended: i64,
    pub(super) duplicates: i64,
    pub(super) dead_lettered: i64,
    pub(super) skipped: i64,
    pub(super) owner: Option<String>,
    pub(super) halted_reason: Option<String>,
}

/// One projection on one generation of one partition.
#[derive(Debug, Serialize)]
pub(super) struct Projection {
    pub(super) projection: String,
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) generation: i32,
    /// The next offset to apply; null = it has not begun.
    pub(super) checkpoint: Option<i64>,
    pub(super) applied: i64,
    pub(super) lag_events: i64,
    /// Age of the oldest event that is not applied, by the database's clock; 0 at the head.
    pub(super) lag_seconds: f64,
}

/// Sums over the rows.
#[derive(Debug, Default, Serialize)]
pub(super) struct Totals {
    pub(super) ingest_lag: i64,
    pub(super) appended: i64,
    pub(super) duplicates: i64,
    pub(super) dead_lettered: i64,
    pub(super) skipped: i64,
    pub(super) projection_lag_events: i64,
}

impl Partition {
    /// A partition that nobody has read: everything that Kafka still has is to be read.
    pub(super) fn unread(topic: &str, partition: i32, marks: Watermarks) -> Self {
        Self {
            topic: topic.to_owned(),
            partition,
            generation: None,
            kafka_head: Some(marks.high),
            stored_offset: None,
            ingest_lag: Some((marks.high - marks.low).max(0)),
            appended: 0,
            duplicates: 0,
            dead_lettered: 0,
            skipped: 0,
            owner: None,
            halted_reason: None,
        }
    }

    /// A row of the ledger. A closed generation has nothing more to read.
    pub(super) fn read(head: StreamHead, marks: Option<Watermarks>) -> Self {
        let open = head.closed_at.is_none();
        let kafka_head = marks.map(|marks| marks.high).filter(|_| open);
        let lag = kafka_head.map(|high| (high - head.next_offset).max(0));
        Self {
            topic: head.topic,
            partition: head.partition,
            generation: Some(head.generation),
            kafka_head,
            stored_offset: Some(head.next_offset),
            ingest_lag: if open { lag } else { Some(0) },
            appended: head.appended,
            duplicates: head.duplicates,
            dead_lettered: head.dead_lettered,
            skipped: head.skipped,
            owner: head.owner,
            // What once halted a closed generation is history: somebody has decided.
            halted_reason: head.halted_reason.filter(|_| open),
        }
    }
}

impl Projection {
    /// `checkpoint` = next offset and events applied, where the projection has begun.
    pub(super) fn new(name: &str, head: &StreamHead, checkpoint: Option<(i64, i64)>) -> Self {
        let applied = checkpoint.map_or(0, |(_, applied)| applied);
        Self {
            projection: name.to_owned(),
            topic: head.topic.clone(),
            partition: head.partition,
            generation: head.generation,
            checkpoint: checkpoint.map(|(next, _)| next),
            applied,
            lag_events: (head.appended - applied).max(0),
            lag_seconds: 0.0,
        }
    }
}

impl Report {
    pub(super) fn new(
        partitions: Vec<Partition>,
        projections: Vec<Projection>,
        missing_topics: Vec<String>,
    ) -> Self {
        let mut totals = Totals::default();
        for row in &partitions {
            totals.ingest_lag += row.ingest_lag.unwrap_or(0);
            totals.appended += row.appended;
            totals.duplicates += row.duplicates;
            totals.dead_lettered += row.dead_lettered;
            totals.skipped += row.skipped;
        }
        totals.projection_lag_events = projections.iter().map(|row| row.lag_events).sum();
        Self {
            partitions,
            projections,
            totals,
            missing_topics,
        }
    }

    /// Whether everything that is in Kafka is in the log, and everything in the log is in the read
    /// models. What is unknown is not settled.
    pub(super) fn is_settled(&self) -> bool {
        self.missing_topics.is_empty()
            && self.partitions.iter().all(|row| row.ingest_lag == Some(0))
            && self.projections.iter().all(|row| row.lag_events == 0)
    }

    /// One line: both lags, and what stands in the way.
    pub(super) fn lags(&self) -> String {
        let mut line = format!(
            "ingest is {} records behind, projections {} events",
            count(self.totals.ingest_lag),
            count(self.totals.projection_lag_events)
        );
        for row in &self.partitions {
            if let Some(reason) = &row.halted_reason {
                line += &format!("; {}/{} is halted: {reason}", row.topic, row.partition);
            }
        }
        if self
            .partitions
            .iter()
            .any(|row| row.halted_reason.is_some())
        {
            line += " (`runlog stream halted` says what to do)";
        }
        for topic in &self.missing_topics {
            line += &format!("; there is no topic {topic}");
        }
        line
    }

    pub(super) fn tables(&self, output: &Output) -> String {
        let mut parts = vec![self.partitions_table(output)];
        if !self.projections.is_empty() {
            parts.push(self.projections_table(output));
        }
        parts.push(self.lags());
        parts.join("\n\n")
    }

    fn partitions_table(&self, output: &Output) -> String {
        let mut table = output.table(&[
            "PARTITION",
            "KAFKA HEAD",
            "STORED",
            "LAG",
            "APPENDED",
            "DUPLICATES",
            "DEAD LETTERS",
            "SKIPPED",
            "OWNER",
            "HALTED",
        ]);
        for row in &self.partitions {
            let generation = row.generation.filter(|generation| *generation > 1);
            let generation = generation
                .map(|g| format!(" generation {g}"))
                .unwrap_or_default();
            table.add_row([
                format!("{}/{}{generation}", row.topic, row.partition),
                or_dash(row.kafka_head.map(count)),
                or_dash(row.stored_offset.map(count)),
                or_dash(row.ingest_lag.map(count)),
                count(row.appended),
                count(row.duplicates),
                count(row.dead_lettered),
                count(row.skipped),
                or_dash(row.owner.as_ref()),
                or_dash(row.halted_reason.as_ref()),
            ]);
        }
        let totals = &self.totals;
        table.add_row([
            "total".to_owned(),
            String::new(),
            String::new(),
            count(totals.ingest_lag),
            count(totals.appended),
            count(totals.duplicates),
            count(totals.dead_lettered),
            count(totals.skipped),
        ]);
        text(&table)
    }

    fn projections_table(&self, output: &Output) -> String {
        let mut table = output.table(&[
            "PROJECTION",
            "PARTITION",
            "CHECKPOINT",
            "APPLIED",
            "LAG",
            "LAG TIME",
        ]);
        for row in &self.projections {
            let generation =
                (row.generation > 1).then(|| format!(" generation {}", row.generation));
            table.add_row([
                row.projection.clone(),
                format!(
                    "{}/{}{}",
                    row.topic,
                    row.partition,
                    generation.unwrap_or_default()
                ),
                or_dash(row.checkpoint.map(count)),
                count(row.applied),
                count(row.lag_events),
                duration((row.lag_seconds * 1_000.0) as i64),
            ]);
        }
        text(&table)
    }
}

#[cfg(test)]
mod tests {
    use event_log::read::StreamHead;

    use super::{Partition, Projection, Report};
    use crate::kafka::probe::Watermarks;

    const MARKS: Watermarks = Watermarks { low: 10, high: 110 };

    fn head(next_offset: i64, appended: i64) -> StreamHead {
        StreamHead {
            stream_id: 1,
            topic: "run-events".to_owned(),
            partition: 0,
            generation: 1,
            start_offset: 10,
            next_offset,
            appended,
            duplicates: 0,
            dead_lettered: 0,
            skipped: 0,
            owner: None,
            halted_reason: None,
            last_persisted_at: None,
            closed_at: None,
        }
    }

    fn report(next_offset: i64, appended: i64, checkpoint: Option<(i64, i64)>) -> Report {
        let head = head(next_offset, appended);
        let projection = Projection::new("run_status", &head, checkpoint);
        Report::new(
            vec![Partition::read(head, Some(MARKS))],
            vec![projection],
            vec![],
        )
    }

    #[test]
    fn settled_means_both_lags_are_zero_everywhere() {
        assert!(report(110, 100, Some((110, 100))).is_settled());
        assert!(!report(109, 99, Some((109, 99))).is_settled());
        assert!(!report(110, 100, Some((100, 90))).is_settled());
        let unread = Partition::unread("run-events", 0, MARKS);
        assert_eq!(unread.ingest_lag, Some(100));
        assert!(!Report::new(vec![unread], vec![], vec![]).is_settled());
    }

    #[test]
    fn a_projection_that_has_not_begun_is_behind_by_everything() {
        let report = report(110, 100, None);
        assert_eq!(report.totals.projection_lag_events, 100);
        assert!(!report.is_settled());
    }

    #[test]
    fn what_is_unknown_is_not_settled() {
        let missing = Report::new(vec![], vec![], vec!["run-events".to_owned()]);
        assert!(!missing.is_settled());
        let gone = Partition::read(head(110, 100), None);
        assert_eq!(gone.ingest_lag, None);
        assert!(!Report::new(vec![gone], vec![], vec![]).is_settled());
    }

    #[test]
    fn a_record_that_arrives_meanwhile_makes_no_negative_lag() {
        assert_eq!(report(120, 110, Some((120, 110))).totals.ingest_lag, 0);
    }

    #[test]
    fn a_halted_partition_is_named() {
        let mut row = Partition::read(head(50, 40), Some(MARKS));
        row.halted_reason = Some("recreated".to_owned());
        let line = Report::new(vec![row], vec![], vec![]).lags();
        assert!(line.contains("run-events/0 is halted: recreated"), "{line}");
        assert!(line.contains("`runlog stream halted`"), "{line}");
    }
}
