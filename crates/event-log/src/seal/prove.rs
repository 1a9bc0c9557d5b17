//! Shows one run to an outsider: its events up to where they were sealed, and the way from there to the
//! seal. Names of other tenants and runs are not in it, only hashes.

use chrono::{DateTime, NaiveDate, Utc};
use run_events::digest::Content;
use run_events::seal::merkle;
use run_events::seal::proof::{ProofEvent, ProofHead};
use run_events::{Digest, IdempotencyKey, json};
use serde_json::{Map, Value};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use super::compare::{sorted_leaves, stored_heads};
use super::seals;
use crate::read;

/// Events that are read at once. Payloads may be large.
const PAGE: i64 = 100;

/// A proof that is being written.
#[derive(Debug)]
pub struct Proof {
    /// Its first line.
    pub head: ProofHead,
    run_no: i64,
    /// The last event that was written.
    written: i64,
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The run has no leaf in the seals.
    #[error("the run is in no seal{}", day.map(|day| format!(" of {day}")).unwrap_or_default())]
    NotSealed {
        /// The day that was asked for.
        day: Option<NaiveDate>,
    },
    /// The run's events were taken out of the log.
    #[error(
        "the run was retired: its events are no longer in the log, so nothing of them can be shown"
    )]
    Retired,
    /// What is stored of the seal does not fit it.
    #[error("the leaves that are stored for {day} are not those that were sealed")]
    Changed {
        /// The day of the seal.
        day: NaiveDate,
    },
    /// The database's error; see [`crate::classify`].
    #[error("cannot read what belongs to the proof")]
    Database(#[from] sqlx::Error),
}

/// Begins the proof of a run that the caller has found: of the seal of `day`, or of the one that goes
/// farthest in the run.
///
/// # Errors
/// See [`ProofError`].
pub async fn proof(
    connection: &mut PgConnection,
    tenant_id: &str,
    run_id: &str,
    day: Option<NaiveDate>,
) -> Result<Proof, ProofError> {
    let run_no = read::run_no(&mut *connection, tenant_id, run_id).await?;
    let run_no = run_no.ok_or(ProofError::NotSealed { day })?;
    if is_retired(connection, run_no).await? {
        return Err(ProofError::Retired);
    }
    let sealed: Option<(NaiveDate, i64, i64, Vec<u8>)> =
        sqlx::query_as(include_str!("../sql/seal_last_head.sql"))
            .bind(run_no)
            .bind(day)
            .fetch_optional(&mut *connection)
            .await?;
    let (day, run_seq, events, leaf) = sealed.ok_or(ProofError::NotSealed { day })?;
    let leaves = sorted_leaves(&stored_heads(connection, day).await?);
    let seals = seals(connection, Some(day)).await?;
    let seals: Vec<_> = seals.into_iter().map(|stored| stored.written).collect();
    let place = leaves.iter().position(|other| other.0.as_slice() == leaf);
    let index = place.filter(|_| {
        seals
            .first()
            .is_some_and(|first| first.seal.root == merkle::root(&leaves))
    });
    let index = index.ok_or(ProofError::Changed { day })?;
    Ok(Proof {
        head: ProofHead {
            tenant_id: tenant_id.to_owned(),
            run_id: run_id.to_owned(),
            run_seq,
            events: events.unsigned_abs(),
            leaf_index: index as u64,
            path: merkle::path(&leaves, index),
            seals,
        },
        run_no,
        written: 0,
    })
}

async fn is_retired(connection: &mut PgConnection, run_no: i64) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM event_log.retired_run WHERE run_no = $1)")
        .bind(run_no)
        .fetch_one(connection)
        .await
}

impl Proof {
    /// The lines of the next events; none = there are no more.
    ///
    /// # Errors
    /// The database's.
    pub async fn lines(
        &mut self,
        connection: &mut PgConnection,
    ) -> Result<Vec<String>, sqlx::Error> {
        let rows = sqlx::query(include_str!("../sql/proof_events.sql"))
            .bind(self.run_no)
            .bind(self.written + 1)
            .bind(self.head.run_seq)
            .bind(PAGE)
            .fetch_all(connection)
            .await?;
        let mut lines = Vec::with_capacity(rows.len());
        for row in rows {
            self.written = row.try_get("run_seq")?;
            lines.push(line(&row)?);
        }
        Ok(lines)
    }
}

fn line(row: &PgRow) -> Result<String, sqlx::Error> {
    let payload: Option<Map<String, Value>> =
        match row.try_get::<Option<&str>, _>("payload")?.map(json::value) {
            Some(Ok(Value::Object(map))) => Some(map),
            Some(Err(error)) => return Err(sqlx::Error::Decode(Box::new(error))),
            _ => None,
        };
    let content = Content {
        event_type: row.try_get("event_type")?,
        step_id: row.try_get("step_id")?,
        logical_attempt_id: row.try_get("logical_attempt_id")?,
        plan_id: row.try_get("plan_id")?,
        plan_version: row.try_get("plan_version")?,
        project_id: row.try_get("project_id")?,
        environment_id: row.try_get("environment_id")?,
        payload: payload.as_ref(),
    };
    let content_digest = Digest(row.try_get("content_digest")?);
    let emitted_at: DateTime<Utc> = row.try_get("emitted_at")?;
    // Without its payload a content is not what its digest was computed from, and nothing of it can be
    // proved. One that has a payload and does not fit was changed, and is shown as it is.
    let is_erased = payload.is_none() && content.digest() != Some(content_digest);
    let event = ProofEvent {
        run_seq: row.try_get("run_seq")?,
        event_id: row.try_get("event_id")?,
        idempotency_key: IdempotencyKey(row.try_get("idempotency_key")?),
        emitted_at: emitted_at.into(),
        engine_attempt_id: row.try_get("engine_attempt_id")?,
        content: (!is_erased).then_some(content),
        content_digest,
        chain_digest: Digest(row.try_get("chain_digest")?),
    };
    Ok(event.line())
}
