//! Seals of days on a real PostgreSQL: what they cover, when they are made, and what they find.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

mod many;
mod proofs;
mod sealing;
#[path = "../support/mod.rs"]
mod support;
mod tampering;

use std::time::Duration;

use chrono::NaiveDate;
use event_log::seal::{self, DayHeads, Progress};
use run_events::Digest;
use run_events::seal::Seal;
use sqlx::AssertSqlSafe;

use crate::support::database::Database;
use crate::support::events::{batch, event_with};

/// Days with events, the third without.
const DAYS: [&str; 4] = ["2001-01-01", "2001-01-02", "2001-01-03", "2001-01-04"];

fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

async fn run(database: &Database, statements: &str) {
    let done = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(&database.pool)
        .await;
    done.unwrap_or_else(|error| panic!("{error}: {statements}"));
}

/// Does something that the triggers refuse, as a superuser can.
async fn tamper(database: &Database, statements: &str) {
    let triggers = |action: &str| {
        [
            "event",
            "run",
            "stream",
            "seal",
            "sealed_head",
            "retired_run",
            "retired_events",
        ]
        .map(|table| format!("ALTER TABLE event_log.{table} {action} TRIGGER USER;"))
        .concat()
    };
    let (off, on) = (triggers("DISABLE"), triggers("ENABLE"));
    run(database, &format!("BEGIN; {off} {statements}; {on} COMMIT")).await;
}

/// Appends an event of a run, which comes through the next offset of a partition at a time.
struct Log<'a> {
    database: &'a Database,
    next: [i64; 2],
}

impl Log<'_> {
    async fn append(&mut self, partition: usize, tenant: &str, run: &str, step: usize, time: &str) {
        let payload = format!(r#"{{"step": {step}}}"#);
        let event = event_with(tenant, run, &format!("s{step}"), &payload);
        let offset = self.next[partition];
        // Every other offset is no event, as where records were duplicates.
        let mut batch = batch(offset, [event]);
        (batch.end, batch.skipped) = (offset + 2, 1);
        let mut writer = self.database.writer(partition as i32).await;
        writer.append(&self.database.pool, &batch).await.unwrap();
        self.next[partition] = batch.end;
        let update = format!(
            "UPDATE event_log.event SET persisted_at = '{time}Z' WHERE (stream_id, source_offset) =
             ((SELECT stream_id FROM event_log.stream WHERE partition = {partition}), {offset})"
        );
        tamper(self.database, &update).await;
    }
}

/// Run `target` has events of three days. Run `moved` has come through two partitions: its second event
/// was persisted a day after its third one.
async fn log(database: &Database) {
    let mut log = Log {
        database,
        next: [0, 0],
    };
    log.append(0, "acme", "target", 1, "2001-01-01 00:00:00")
        .await;
    log.append(0, "acme", "moved", 1, "2001-01-01 00:00:01")
        .await;
    log.append(1, "acme", "moved", 2, "2001-01-02 00:00:00")
        .await;
    log.append(0, "acme", "moved", 3, "2001-01-01 23:59:59.999998")
        .await;
    log.append(0, "acme", "target", 2, "2001-01-01 23:59:59.999999")
        .await;
    log.append(0, "umbrella", "other", 1, "2001-01-02 00:00:00")
        .await;
    log.append(0, "acme", "target", 3, "2001-01-02 12:00:00")
        .await;
    log.append(0, "acme", "target", 4, "2001-01-02 12:00:01")
        .await;
    log.append(1, "umbrella", "gone", 1, "2001-01-02 12:00:00")
        .await;
    log.append(1, "acme", "target", 5, "2001-01-04 00:00:00")
        .await;
    log.append(0, "umbrella", "other", 2, "2001-01-04 23:59:59.999999")
        .await;
}

/// Reads a day.
async fn heads(database: &Database, of: &str) -> DayHeads {
    let mut connection = database.pool.acquire().await.unwrap();
    let heads = seal::collect(&mut connection, day(of), &Progress::default()).await;
    heads.unwrap()
}

/// Seals these days, one behind the other.
async fn seal_days(database: &Database, days: &[&str]) -> Vec<Seal> {
    let mut connection = database.pool.acquire().await.unwrap();
    let last = days.last().copied().unwrap_or_default();
    seal::ended(&mut connection, day(last), Duration::from_secs(30))
        .await
        .unwrap();
    let stored = seal::seals(&mut connection, None).await.unwrap();
    let mut previous: Digest = stored
        .last()
        .map_or(Seal::FIRST, |stored| stored.written.digest);
    let mut seals = Vec::new();
    for of in days {
        let heads = heads(database, of).await;
        let seal = heads.seal(previous);
        seal::store(&database.pool, &heads, &seal, "a test")
            .await
            .unwrap();
        previous = seal.digest();
        seals.push(seal);
    }
    seals
}
