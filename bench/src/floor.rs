//! (a) The floor: the rows that ingest has appended, in the same batches, by binary COPY into a table
//! with the same columns, constraints and indexes, without row-level security and triggers. Called by
//! `compare`.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, ensure};
use futures_util::TryStreamExt as _;
use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::database::{Database, connect};
use crate::meter::{Consumed, Meter};
use crate::stack::Stack;

/// The signature, flags and extension length that every binary COPY begins with.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// The field count that ends it.
const TRAILER: &[u8] = &[0xff, 0xff];

/// The rows of a log, encoded for COPY, in ingest's batches and in the order these were written in.
#[derive(Debug)]
pub(crate) struct Rows {
    bytes: Vec<u8>,
    batches: Vec<Range<usize>>,
    /// How many.
    pub(crate) count: u64,
}

/// What inserting them took.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Copied {
    /// Rows.
    pub(crate) events: u64,
    /// Transactions: as many as ingest had batches.
    pub(crate) batches: usize,
    /// From the first COPY's begin to the last one's commit.
    pub(crate) seconds: f64,
    /// Rows per second.
    pub(crate) rate: f64,
    /// Of the servers.
    pub(crate) servers: Consumed,
}

impl Rows {
    /// Reads the events of a log.
    ///
    /// # Errors
    /// Of PostgreSQL, or where a row has a form that nobody expects.
    pub(crate) async fn of(database: &mut Database) -> anyhow::Result<Self> {
        let places: (i64, i64) = sqlx::query_as(include_str!("sql/places.sql"))
            .fetch_one(&mut database.connection)
            .await?;
        let mut bytes = Vec::new();
        let mut rows = database
            .connection
            .copy_out_raw(include_str!("sql/export.sql"))
            .await?;
        while let Some(chunk) = rows.try_next().await? {
            bytes.extend_from_slice(&chunk);
        }
        drop(rows);
        let places = [usize::try_from(places.0)?, usize::try_from(places.1)?];
        let (batches, count) =
            split(&bytes, places).context("PostgreSQL's binary COPY has another form")?;
        Ok(Self {
            bytes,
            batches,
            count,
        })
    }

    /// Bytes that are sent.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// The ranges of rows that follow each other and agree in the fields at these places, and the number of all rows.
fn split(bytes: &[u8], places: [usize; 2]) -> Option<(Vec<Range<usize>>, u64)> {
    let mut at = HEADER.len();
    (bytes.get(..at)? == HEADER).then_some(())?;
    let (mut batches, mut rows): (Vec<Range<usize>>, u64) = (Vec::new(), 0);
    let mut last: [&[u8]; 2] = [&[], &[]];
    loop {
        let begin = at;
        let fields = i16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?);
        at += 2;
        if fields == -1 {
            return Some((batches, rows));
        }
        let mut of_batch: [&[u8]; 2] = [&[], &[]];
        for field in 0..usize::try_from(fields).ok()? {
            let length = i32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?);
            at += 4;
            let length = usize::try_from(length).unwrap_or_default(); // -1 = NULL
            let value = bytes.get(at..at + length)?;
            at += length;
            for (place, seen) in places.iter().zip(&mut of_batch) {
                if *place == field {
                    *seen = value;
                }
            }
        }
        rows += 1;
        match batches.last_mut() {
            Some(batch) if of_batch == last => batch.end = at,
            _ => batches.push(begin..at),
        }
        last = of_batch;
    }
}

/// Copies the rows into a new table with so many connections; each batch is a transaction.
///
/// # Errors
/// Of PostgreSQL.
pub(crate) async fn copy(
    stack: &Stack,
    database: &mut Database,
    rows: &Arc<Rows>,
) -> anyhow::Result<Copied> {
    make_table(&mut database.connection).await?;
    let mut connections = Vec::new();
    for _ in 0..stack.writers {
        connections.push(connect(stack, &database.name).await?);
    }
    database.checkpoint().await?;
    let meter = Meter::read(stack, &mut database.connection).await?;
    let begun = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    let mut writers = tokio::task::JoinSet::new();
    for connection in connections {
        writers.spawn(write(connection, Arc::clone(rows), Arc::clone(&next)));
    }
    while let Some(written) = writers.join_next().await {
        written??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let servers = meter.since(stack, &mut database.connection).await?;
    let copied: i64 = sqlx::query_scalar("SELECT count(*) FROM floor.event")
        .fetch_one(&mut database.connection)
        .await?;
    let events = copied.cast_unsigned();
    ensure!(
        events == rows.count,
        "the floor has {events} rows of {}",
        rows.count
    );
    Ok(Copied {
        events,
        batches: rows.batches.len(),
        seconds,
        rate: events as f64 / seconds,
        servers,
    })
}

/// The log's table once more; its storage parameters are no part of LIKE.
async fn make_table(connection: &mut PgConnection) -> anyhow::Result<()> {
    let parameters: Option<String> = sqlx::query_scalar(
        "SELECT array_to_string(reloptions, ', ') FROM pg_class WHERE oid = 'event_log.event'::regclass",
    )
    .fetch_one(&mut *connection)
    .await?;
    let with = parameters.map_or_else(String::new, |text| format!("WITH ({text})"));
    let statements = format!(
        "CREATE SCHEMA floor; CREATE TABLE floor.event (LIKE event_log.event INCLUDING ALL) {with}"
    );
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(connection)
        .await?;
    Ok(())
}

async fn write(
    mut connection: PgConnection,
    rows: Arc<Rows>,
    next: Arc<AtomicUsize>,
) -> anyhow::Result<()> {
    loop {
        let place = next.fetch_add(1, Ordering::Relaxed);
        let Some(batch) = rows.batches.get(place) else {
            return Ok(());
        };
        let copy = "COPY floor.event FROM STDIN (FORMAT binary)";
        let mut copy = connection.copy_in_raw(copy).await?;
        copy.send(HEADER).await?;
        copy.send(&rows.bytes[batch.clone()]).await?;
        copy.send(TRAILER).await?;
        copy.finish().await?;
    }
}

#[cfg(test)]
mod tests {
    use super::{HEADER, TRAILER, split};

    fn row(fields: &[Option<&[u8]>]) -> Vec<u8> {
        let mut bytes = (fields.len() as i16).to_be_bytes().to_vec();
        for field in fields {
            let length = field.map_or(-1, |f| f.len() as i32);
            bytes.extend(length.to_be_bytes());
            bytes.extend(field.unwrap_or_default());
        }
        bytes
    }

    #[test]
    fn rows_that_follow_each_other_and_agree_are_one_batch() {
        let rows = [
            row(&[Some(b"1"), None, Some(b"monday")]),
            row(&[Some(b"1"), Some(b"x"), Some(b"monday")]),
            row(&[Some(b"2"), None, Some(b"monday")]),
            row(&[Some(b"2"), None, Some(b"tuesday")]),
        ];
        let bytes = [HEADER, &rows.concat(), TRAILER].concat();
        let begin = HEADER.len();
        let third = begin + rows[0].len() + rows[1].len();
        let fourth = third + rows[2].len();
        let batches = vec![begin..third, third..fourth, fourth..fourth + rows[3].len()];
        assert_eq!(split(&bytes, [0, 2]), Some((batches, 4)));
        assert_eq!(split(&bytes[..bytes.len() - 3], [0, 2]), None, "cut off");
    }
}
