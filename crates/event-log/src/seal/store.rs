//! Stores a seal with its leaves, in one transaction.

use run_events::seal::{Seal, VERSION};
use sqlx::PgPool;

use super::SealError;
use super::heads::{DayHeads, RunHead};
use crate::fault::sqlstate;
use crate::transaction::Transaction;

/// Leaves that are stored at once.
const LEAVES: usize = 10_000;
/// `object_not_in_prerequisite_state`: what `event_log.seal_day` refuses with.
const NOT_NEXT: &str = "55000";

/// Stores the seal of a day behind the last one that is stored, with an audit row of which the number is
/// returned. `operator` is who does it: user and host, 1..256 bytes.
///
/// # Errors
/// [`SealError::Damaged`], [`SealError::Meanwhile`], or the database's.
pub async fn store(
    pool: &PgPool,
    heads: &DayHeads,
    seal: &Seal,
    operator: &str,
) -> Result<i64, SealError> {
    if let Some(damage) = heads.damaged.first() {
        return Err(SealError::Damaged {
            run_no: damage.run_no,
            what: damage.what,
        });
    }
    let mut transaction = Transaction::begin(pool).await?;
    let audit_id = sqlx::query_scalar("SELECT event_log.seal_day($1, $2, $3, $4, $5, $6, $7, $8)")
        .bind(seal.day)
        .bind(number(seal.runs))
        .bind(number(seal.events))
        .bind(seal.root.0.as_slice())
        .bind(seal.previous.0.as_slice())
        .bind(seal.digest().0.as_slice())
        .bind(VERSION)
        .bind(operator)
        .fetch_one(transaction.connection())
        .await;
    let audit_id = audit_id.map_err(|error| match sqlstate(&error).as_deref() {
        Some(NOT_NEXT) => SealError::Meanwhile { day: seal.day },
        _ => error.into(),
    })?;
    for some in heads.heads.chunks(LEAVES) {
        sqlx::query("SELECT event_log.seal_heads($1, $2, $3, $4, $5)")
            .bind(seal.day)
            .bind(column(some, |head| head.run_no))
            .bind(column(some, |head| head.run_seq))
            .bind(column(some, |head| number(head.events)))
            .bind(column(some, |head| head.leaf.0.to_vec()))
            .execute(transaction.connection())
            .await?;
    }
    transaction.commit().await?;
    Ok(audit_id)
}

fn column<T>(heads: &[RunHead], of: impl Fn(&RunHead) -> T) -> Vec<T> {
    heads.iter().map(of).collect()
}

/// A count as the database has it.
fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
