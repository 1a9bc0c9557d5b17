//! The facts of a status report: Kafka's watermarks first, then one snapshot of the database, so
//! that a lag of 0 means that everything up to the watermark is there. Called by `status`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use event_log::inspect::oldest_event_ages;
use event_log::read::{StreamHead, stream_heads};
use sqlx::PgConnection;

use super::Sources;
use super::report::{Partition, Projection, Report};
use crate::database::failed;
use crate::kafka::probe::{Probe, Watermarks};

/// The watermarks of the topics that exist, by topic and partition, and the topics that do not.
#[derive(Default)]
struct Kafka {
    watermarks: Vec<(String, i32, Watermarks)>,
    missing: Vec<String>,
}

/// A row of `read_model.projection_checkpoints`.
#[derive(Debug, sqlx::FromRow)]
struct Checkpoint {
    projection: String,
    topic: String,
    partition: i32,
    generation: i32,
    next_offset: i64,
    applied: i64,
}

/// A projection on one stream, and from which offset on it has applied nothing.
struct Reader {
    row: Projection,
    stream_id: i64,
    from: i64,
}

pub(super) async fn report(sources: &Sources) -> anyhow::Result<Report> {
    let topics: Vec<String> = sources
        .config
        .ingest
        .topics
        .iter()
        .map(|topic| topic.name.clone())
        .collect();
    let probe = Arc::clone(&sources.probe);
    let asked = topics.clone();
    let kafka = tokio::task::spawn_blocking(move || watermarks(&probe, &asked)).await??;

    let mut snapshot = sources
        .pool
        .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await
        .map_err(|error| failed(error, "read the ledger"))?;
    let mut heads = stream_heads(&mut snapshot)
        .await
        .map_err(|error| failed(error, "read the ledger"))?;
    heads.retain(|head| topics.contains(&head.topic));
    let projections = projections(
        &mut snapshot,
        &heads,
        &sources.config.projectors.projections,
    )
    .await
    .map_err(|error| failed(error, "read the projections' checkpoints"))?;
    let partitions = partitions(&kafka, heads);
    Ok(Report::new(partitions, projections, kafka.missing))
}

fn watermarks(probe: &Probe, topics: &[String]) -> anyhow::Result<Kafka> {
    let mut kafka = Kafka::default();
    for topic in topics {
        let Some(partitions) = probe.partitions(topic)? else {
            kafka.missing.push(topic.clone());
            continue;
        };
        let found = probe.watermarks(topic, partitions)?;
        let numbered = (0..).zip(found);
        kafka
            .watermarks
            .extend(numbered.map(|(partition, marks)| (topic.clone(), partition, marks)));
    }
    Ok(kafka)
}

/// One row per generation of a partition, and one for each partition that nobody has read yet.
fn partitions(kafka: &Kafka, heads: Vec<StreamHead>) -> Vec<Partition> {
    let marks: HashMap<(&str, i32), Watermarks> = kafka
        .watermarks
        .iter()
        .map(|(topic, partition, marks)| ((topic.as_str(), *partition), *marks))
        .collect();
    let read: BTreeSet<(String, i32)> = heads
        .iter()
        .map(|head| (head.topic.clone(), head.partition))
        .collect();
    let unread = kafka
        .watermarks
        .iter()
        .filter(|(topic, partition, _)| !read.contains(&(topic.clone(), *partition)));
    let mut rows: Vec<Partition> = unread
        .map(|(topic, partition, marks)| Partition::unread(topic, *partition, *marks))
        .collect();
    rows.extend(heads.into_iter().map(|head| {
        let marks = marks.get(&(head.topic.as_str(), head.partition)).copied();
        Partition::read(head, marks)
    }));
    rows.sort_by(|a, b| {
        (&a.topic, a.partition, a.generation).cmp(&(&b.topic, b.partition, b.generation))
    });
    rows
}

/// Every projection, configured or known to the database, on every stream.
async fn projections(
    connection: &mut PgConnection,
    heads: &[StreamHead],
    configured: &[String],
) -> Result<Vec<Projection>, sqlx::Error> {
    let checkpoints: Vec<Checkpoint> = sqlx::query_as(
        "SELECT CASE state WHEN 'live' THEN projection ELSE projection || '@' || version END AS projection,
                topic, partition, generation, next_offset, applied
         FROM read_model.projection_checkpoints WHERE state <> 'retired'",
    )
    .fetch_all(&mut *connection)
    .await?;
    let names: BTreeSet<&str> = configured
        .iter()
        .map(String::as_str)
        .chain(checkpoints.iter().map(|c| c.projection.as_str()))
        .collect();
    let mut readers = Vec::with_capacity(names.len() * heads.len());
    for name in names {
        for head in heads {
            let checkpoint = checkpoints.iter().find(|c| {
                c.projection == name
                    && c.topic == head.topic
                    && (c.partition, c.generation) == (head.partition, head.generation)
            });
            readers.push(Reader {
                row: Projection::new(name, head, checkpoint.map(|c| (c.next_offset, c.applied))),
                stream_id: head.stream_id,
                from: checkpoint.map_or(head.start_offset, |c| c.next_offset),
            });
        }
    }
    add_ages(connection, &mut readers).await?;
    Ok(readers.into_iter().map(|reader| reader.row).collect())
}

/// The lag in seconds of those that have one.
async fn add_ages(
    connection: &mut PgConnection,
    readers: &mut [Reader],
) -> Result<(), sqlx::Error> {
    let mut behind: Vec<&mut Reader> = readers
        .iter_mut()
        .filter(|reader| reader.row.lag_events > 0)
        .collect();
    let from: Vec<(i64, i64)> = behind.iter().map(|r| (r.stream_id, r.from)).collect();
    let ages = oldest_event_ages(connection, &from).await?;
    for (reader, age) in behind.iter_mut().zip(ages) {
        // To the millisecond: more digits say nothing.
        reader.row.lag_seconds = (age * 1_000.0).round() / 1_000.0;
    }
    Ok(())
}
