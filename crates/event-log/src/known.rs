//! What the database knows of a batch's runs, keys and event ids. Read by [`crate::append`] where the
//! run cache does not know, by [`crate::checked`] under the locks of the runs, and by
//! [`crate::committed`].

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use run_events::{Digest, IdempotencyKey};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use crate::decide::{PreparedEvent, StagedRun};
use crate::record::Original;
use crate::run_cache::{KnownKey, KnownRun};

/// One event, as far as dedup needs it.
#[derive(FromRow)]
struct KeyRow {
    run_seq: i64,
    event_id: Uuid,
    idempotency_key: [u8; 32],
    content_digest: [u8; 32],
    persisted_at: DateTime<Utc>,
}

impl KeyRow {
    fn known(self) -> (IdempotencyKey, KnownKey) {
        let original = Original {
            event_id: self.event_id,
            run_seq: self.run_seq,
            persisted_at: self.persisted_at,
        };
        let known = KnownKey {
            content: Digest(self.content_digest),
            original,
        };
        (IdempotencyKey(self.idempotency_key), known)
    }
}

/// The runs that exist, each with its last event.
pub(crate) async fn existing_runs(
    connection: &mut PgConnection,
    runs: &[(&str, &str)],
) -> Result<HashMap<(String, String), KnownRun>, sqlx::Error> {
    #[derive(FromRow)]
    struct Row {
        run_no: i64,
        tenant_id: String,
        run_id: String,
        run_seq: Option<i64>,
        chain_digest: Option<[u8; 32]>,
        is_retired: bool,
    }
    let (tenants, ids): (Vec<&str>, Vec<&str>) = runs.iter().copied().unzip();
    let rows: Vec<Row> = sqlx::query_as(include_str!("sql/load_runs.sql"))
        .bind(tenants)
        .bind(ids)
        .fetch_all(connection)
        .await?;
    let known = |row: Row| {
        let head = row.run_seq.zip(row.chain_digest.map(Digest));
        let run = match row.is_retired {
            true => KnownRun::retired(row.run_no),
            false => KnownRun::with_head(row.run_no, head),
        };
        ((row.tenant_id, row.run_id), run)
    };
    Ok(rows.into_iter().map(known).collect())
}

/// Locks the rows of the runs, in one order for all writers, and returns their numbers.
pub(crate) async fn lock_runs(
    connection: &mut PgConnection,
    runs: &[(&str, &str)],
) -> Result<HashMap<(String, String), i64>, sqlx::Error> {
    run_numbers(connection, include_str!("sql/lock_runs.sql"), runs).await
}

/// (tenant, run) -> run_no of the rows that a statement about these runs returns.
pub(crate) async fn run_numbers(
    connection: &mut PgConnection,
    statement: &'static str,
    runs: &[(&str, &str)],
) -> Result<HashMap<(String, String), i64>, sqlx::Error> {
    let (tenants, ids): (Vec<&str>, Vec<&str>) = runs.iter().copied().unzip();
    let rows: Vec<(i64, String, String)> = sqlx::query_as(statement)
        .bind(tenants)
        .bind(ids)
        .fetch_all(connection)
        .await?;
    Ok(rows
        .into_iter()
        .map(|(run_no, tenant, run)| ((tenant, run), run_no))
        .collect())
}

/// Each run with its last event.
pub(crate) async fn run_heads(
    connection: &mut PgConnection,
    run_nos: &[i64],
) -> Result<HashMap<i64, KnownRun>, sqlx::Error> {
    type Row = (i64, Option<i64>, Option<[u8; 32]>, bool);
    let rows: Vec<Row> = sqlx::query_as(include_str!("sql/run_heads.sql"))
        .bind(run_nos)
        .fetch_all(connection)
        .await?;
    let known = |(run_no, seq, chain, is_retired): Row| match is_retired {
        true => (run_no, KnownRun::retired(run_no)),
        false => {
            let head = seq.zip(chain.map(Digest));
            (run_no, KnownRun::with_head(run_no, head))
        }
    };
    Ok(rows.into_iter().map(known).collect())
}

/// What the log holds for these (run_no, key) pairs.
pub(crate) async fn known_keys(
    connection: &mut PgConnection,
    run_nos: &[i64],
    keys: &[&[u8]],
) -> Result<Vec<(i64, IdempotencyKey, KnownKey)>, sqlx::Error> {
    #[derive(FromRow)]
    struct Row {
        run_no: i64,
        #[sqlx(flatten)]
        key: KeyRow,
    }
    let rows: Vec<Row> = sqlx::query_as(include_str!("sql/known_keys.sql"))
        .bind(run_nos)
        .bind(keys)
        .fetch_all(connection)
        .await?;
    let known = |row: Row| {
        let (key, known) = row.key.known();
        (row.run_no, key, known)
    };
    Ok(rows.into_iter().map(known).collect())
}

/// Looks up the keys of these events in their runs, where the runs are not known whole.
pub(crate) async fn complete_keys(
    connection: &mut PgConnection,
    events: impl Iterator<Item = PreparedEvent<'_>>,
    runs: &mut [StagedRun<'_>],
) -> Result<(), sqlx::Error> {
    let (mut index, mut run_nos, mut keys) = (HashMap::new(), Vec::new(), Vec::new());
    for event in events {
        let key = &event.event.idempotency_key;
        if let Some(run_no) = runs[event.run].lacks(key) {
            index.insert(run_no, event.run);
            run_nos.push(run_no);
            keys.push(key.0.as_slice());
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    for (run_no, key, known) in known_keys(connection, &run_nos, &keys).await? {
        if let Some(run) = index.get(&run_no) {
            runs[*run].new_keys.insert(key, known);
        }
    }
    Ok(())
}

/// Which of these event ids the log holds.
pub(crate) async fn used_event_ids(
    connection: &mut PgConnection,
    event_ids: &[Uuid],
) -> Result<HashSet<Uuid>, sqlx::Error> {
    let rows: Vec<Uuid> =
        sqlx::query_scalar("SELECT event_id FROM event_log.event WHERE event_id = ANY ($1)")
            .bind(event_ids)
            .fetch_all(connection)
            .await?;
    Ok(rows.into_iter().collect())
}
