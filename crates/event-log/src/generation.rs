//! Generations, for operators: what there is, and opening the next one of a partition. A generation is
//! one reading of a partition, from its start offset on. Called by the CLI.
//!
//! Opening the next one fences whoever reads now: an append asks for the row that it claimed, and
//! that one is closed. Ingest then claims the partition again and finds the new generation.

use std::fmt;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, PgPool, Row};

use crate::fault::sqlstate;
use crate::stream::Halt;
use crate::transaction::Transaction;

/// `lock_not_available`: the lock_timeout passed.
const LOCK_TIMED_OUT: &str = "55P03";

/// A row of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// The stream's number.
    pub stream_id: i64,
    /// The Kafka topic.
    pub topic: String,
    /// The Kafka partition.
    pub partition: i32,
    /// 1, and one more for each resume or rewind.
    pub generation: i32,
    /// The Kafka consumer group that may claim it.
    pub group_id: String,
    /// The first offset it accounts for.
    pub start_offset: i64,
    /// The next offset to read.
    pub next_offset: i64,
    /// Events among those offsets.
    pub appended: i64,
    /// Records known to be duplicates.
    pub duplicates: i64,
    /// Records kept as dead letters.
    pub dead_lettered: i64,
    /// Offsets without a record.
    pub skipped: i64,
    /// Who holds the claim, for people.
    pub owner: Option<String>,
    /// Why it waits for an operator. On a closed generation: why it did.
    pub halted: Option<Halt>,
    /// Since when; `None` = it does not, or an older version halted it.
    pub halted_at: Option<DateTime<Utc>>,
    /// When the row last changed.
    pub updated_at: DateTime<Utc>,
    /// When the next generation took over; `None` = this is the open one.
    pub closed_at: Option<DateTime<Utc>>,
    /// `start_offset` less the `next_offset` of the generation before: above 0 = offsets that were
    /// never read, below 0 = offsets that are read again. `None` = there is none before.
    pub gap: Option<i64>,
}

/// Which generations are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct GenerationFilter<'a> {
    /// Only of this topic.
    pub topic: Option<&'a str>,
    /// Only of the partitions of this number.
    pub partition: Option<i32>,
    /// The closed ones too.
    pub closed: bool,
}

/// Who acts, and why: kept in `event_log.audit`.
#[derive(Debug, Clone, Copy)]
pub struct Operator<'a> {
    /// User and host, 1..256 bytes.
    pub name: &'a str,
    /// In the operator's words, at most 1024 bytes.
    pub reason: &'a str,
}

/// The generation that was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Its number.
    pub generation: i32,
    /// The row of `event_log.audit`.
    pub audit_id: i64,
}

/// Why no generation was opened. Nothing was changed, unless the commit's own answer was lost.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// The partition is not what the operator was shown.
    #[error("{topic}/{partition} has changed meanwhile: it was at {shown}, and now it is {now}")]
    Changed {
        /// The Kafka topic.
        topic: String,
        /// The Kafka partition.
        partition: i32,
        /// What the operator was shown.
        shown: Standing,
        /// What is there.
        now: Standing,
    },
    /// Only a halted partition is resumed.
    #[error("{topic}/{partition} is not halted")]
    NotHalted {
        /// The Kafka topic.
        topic: String,
        /// The Kafka partition.
        partition: i32,
    },
    /// A rewind goes back.
    #[error(
        "{topic}/{partition} has read up to {next_offset}, and a rewind to {start} would leave offsets out"
    )]
    Forward {
        /// The Kafka topic.
        topic: String,
        /// The Kafka partition.
        partition: i32,
        /// The next offset to read.
        next_offset: i64,
        /// Where the reading should have gone on.
        start: i64,
    },
    /// A batch or a claim held the row for too long.
    #[error(
        "{topic}/{partition} is busy: its row was locked for 5 s, by a batch that is being appended"
    )]
    Busy {
        /// The Kafka topic.
        topic: String,
        /// The Kafka partition.
        partition: i32,
    },
    /// The database's error; see [`crate::classify`].
    #[error("cannot open the next generation")]
    Database(#[from] sqlx::Error),
}

/// How far a partition is, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    generation: i32,
    next_offset: i64,
    halted_code: Option<String>,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (generation, next_offset) = (self.generation, self.next_offset);
        write!(f, "offset {next_offset} of generation {generation}")?;
        match &self.halted_code {
            Some(code) => write!(f, ", halted ({code})"),
            None => Ok(()),
        }
    }
}

impl Generation {
    fn standing(&self) -> Standing {
        Standing {
            generation: self.generation,
            next_offset: self.next_offset,
            halted_code: self.halted.as_ref().map(|halt| halt.code.clone()),
        }
    }
}

/// What is done to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Resume,
    Rewind,
}

/// Generations, in (topic, partition, generation) order.
///
/// # Errors
/// The database's.
pub async fn generations(
    connection: &mut PgConnection,
    filter: GenerationFilter<'_>,
) -> Result<Vec<Generation>, sqlx::Error> {
    sqlx::query_as(include_str!("sql/streams.sql"))
        .bind(filter.topic)
        .bind(filter.partition)
        .bind(filter.closed)
        .fetch_all(connection)
        .await
}

/// Lets a halted partition go on at `start`: closes the generation and opens the next one, with a row
/// in the audit. `shown` is the open generation as the operator saw it; nothing of it may have changed.
///
/// # Errors
/// See [`GenerationError`].
pub async fn resume(
    pool: &PgPool,
    shown: &Generation,
    start: i64,
    by: Operator<'_>,
) -> Result<Opened, GenerationError> {
    open_next(pool, Act::Resume, shown, start, by).await
}

/// Has a partition read again from `start` on, which lies at or before what was read: closes the
/// generation and opens the next one, with a row in the audit. `shown` is the open generation as the
/// operator saw it; since then it may have read on, and nothing else.
///
/// # Errors
/// See [`GenerationError`].
pub async fn rewind(
    pool: &PgPool,
    shown: &Generation,
    start: i64,
    by: Operator<'_>,
) -> Result<Opened, GenerationError> {
    open_next(pool, Act::Rewind, shown, start, by).await
}

async fn open_next(
    pool: &PgPool,
    act: Act,
    shown: &Generation,
    start: i64,
    by: Operator<'_>,
) -> Result<Opened, GenerationError> {
    let mut transaction = Transaction::begin(pool).await?;
    // A batch takes less, and an operator can try again.
    transaction.run("SET LOCAL lock_timeout = '5s'").await?;
    let locked = lock(transaction.connection(), shown).await?;
    let Some((stream_id, now)) = locked else {
        transaction.rollback().await?;
        return Err(closed_meanwhile(pool, shown).await?);
    };
    if let Err(error) = act.check(shown, &now, start) {
        transaction.rollback().await?;
        return Err(error);
    }
    let (generation, audit_id) = sqlx::query_as(include_str!("sql/next_generation.sql"))
        .bind(stream_id)
        .bind(start)
        .bind(by.name)
        .bind(act.name())
        .bind(by.reason)
        .fetch_one(transaction.connection())
        .await?;
    transaction.commit().await?;
    Ok(Opened {
        generation,
        audit_id,
    })
}

/// The open generation under its lock; `None` where another operator closed it while this one waited.
async fn lock(
    connection: &mut PgConnection,
    shown: &Generation,
) -> Result<Option<(i64, Standing)>, GenerationError> {
    let locked = sqlx::query(include_str!("sql/lock_generation.sql"))
        .bind(&shown.topic)
        .bind(shown.partition)
        .fetch_optional(connection)
        .await;
    match locked {
        Ok(Some(row)) => {
            let halt = Halt::from_row(row.try_get("halted_code")?, row.try_get("halted_reason")?);
            let standing = Standing {
                generation: row.try_get("generation")?,
                next_offset: row.try_get("next_offset")?,
                halted_code: halt.map(|halt| halt.code),
            };
            Ok(Some((row.try_get("stream_id")?, standing)))
        }
        Ok(None) => Ok(None),
        Err(error) if sqlstate(&error).as_deref() == Some(LOCK_TIMED_OUT) => {
            Err(GenerationError::Busy {
                topic: shown.topic.clone(),
                partition: shown.partition,
            })
        }
        Err(error) => Err(error.into()),
    }
}

async fn closed_meanwhile(
    pool: &PgPool,
    shown: &Generation,
) -> Result<GenerationError, sqlx::Error> {
    let filter = GenerationFilter {
        topic: Some(&shown.topic),
        partition: Some(shown.partition),
        closed: false,
    };
    let now = generations(&mut *pool.acquire().await?, filter).await?;
    let now = now.first().map(Generation::standing);
    Ok(changed(shown, now.unwrap_or_else(|| shown.standing())))
}

fn changed(shown: &Generation, now: Standing) -> GenerationError {
    GenerationError::Changed {
        topic: shown.topic.clone(),
        partition: shown.partition,
        shown: shown.standing(),
        now,
    }
}

impl Act {
    /// As the audit names it.
    fn name(self) -> &'static str {
        match self {
            Self::Resume => "stream.resume",
            Self::Rewind => "stream.rewind",
        }
    }

    /// Whether it may be done, given what the operator was shown and what is there now.
    fn check(self, shown: &Generation, now: &Standing, start: i64) -> Result<(), GenerationError> {
        let was = shown.standing();
        let read_on = self == Self::Rewind && now.next_offset > was.next_offset;
        if (now.generation, &now.halted_code) != (was.generation, &was.halted_code)
            || (now.next_offset != was.next_offset && !read_on)
        {
            return Err(changed(shown, now.clone()));
        }
        let (topic, partition) = (shown.topic.clone(), shown.partition);
        match self {
            Self::Resume if now.halted_code.is_none() => {
                Err(GenerationError::NotHalted { topic, partition })
            }
            Self::Rewind if start > now.next_offset => Err(GenerationError::Forward {
                topic,
                partition,
                next_offset: now.next_offset,
                start,
            }),
            _ => Ok(()),
        }
    }
}

impl FromRow<'_, PgRow> for Generation {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            stream_id: row.try_get("stream_id")?,
            topic: row.try_get("topic")?,
            partition: row.try_get("partition")?,
            generation: row.try_get("generation")?,
            group_id: row.try_get("group_id")?,
            start_offset: row.try_get("start_offset")?,
            next_offset: row.try_get("next_offset")?,
            appended: row.try_get("appended")?,
            duplicates: row.try_get("duplicates")?,
            dead_lettered: row.try_get("dead_lettered")?,
            skipped: row.try_get("skipped")?,
            owner: row.try_get("owner")?,
            halted: Halt::from_row(row.try_get("halted_code")?, row.try_get("halted_reason")?),
            halted_at: row.try_get("halted_at")?,
            updated_at: row.try_get("updated_at")?,
            closed_at: row.try_get("closed_at")?,
            gap: row.try_get("gap")?,
        })
    }
}
