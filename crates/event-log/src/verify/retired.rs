//! The tombstones of retired runs: what is left of them goes into the digest of all runs' heads, and no event of them
//! may be there. Called by [`super::verify`].
//!
//! No run is retired while a verification reads: it holds the lock that every act of retention takes alone
//! (`event_log.retire_runs`). So what is counted of a stream in many statements stays what it was.

use run_events::Digest;
use sqlx::PgConnection;

use super::Found;
use super::finding::{Finding, Kind, Place};

/// Tombstones that are read at once.
const PAGE: i64 = 5_000;

/// Keeps every run from being retired for as long as the connection lives; waits for an act that is under way.
pub(super) async fn hold(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_lock_shared(hashtextextended('runlog retention', 0))")
        .execute(connection)
        .await?;
    Ok(())
}

/// How many events of a stream went with retired runs. What is counted for a run without a tombstone is not.
pub(super) async fn events_of(
    connection: &mut PgConnection,
    stream_id: i64,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT coalesce(sum(c.events), 0)::bigint
         FROM event_log.retired_events c JOIN event_log.retired_run t USING (run_no)
         WHERE c.stream_id = $1",
    )
    .bind(stream_id)
    .fetch_one(connection)
    .await
}

/// Judges all tombstones.
pub(super) async fn runs(
    connection: &mut PgConnection,
    found: &mut Found,
) -> Result<(), sqlx::Error> {
    type Row = (i64, String, String, i64, Vec<u8>, bool, i64, bool);
    let mut after = 0;
    loop {
        let page: Vec<Row> = sqlx::query_as(include_str!("../sql/verify_retired.sql"))
            .bind(after)
            .bind(PAGE)
            .fetch_all(&mut *connection)
            .await?;
        let Some(last) = page.last() else {
            return Ok(());
        };
        after = last.0;
        for (number, tenant_id, run_id, head_seq, chain, is_named, counted, has_events) in page {
            found.retired += 1;
            if let Ok(chain) = chain.try_into() {
                let chain = Digest(chain);
                found.heads.add(&tenant_id, &run_id, head_seq, chain);
            }
            let mut tell = |what: String| {
                found.findings.push(Finding {
                    kind: Kind::Retired,
                    place: Place::Run {
                        tenant_id: tenant_id.clone(),
                        run_id: run_id.clone(),
                    },
                    at: None,
                    what,
                    number,
                });
            };
            if has_events {
                tell("it was retired, and the log has events of it".to_owned());
            }
            if !is_named {
                tell("its tombstone names another run than event_log.run".to_owned());
            }
            if counted != head_seq {
                tell(format!(
                    "its tombstone ends at runSeq {head_seq}, and event_log.retired_events counts {counted} events"
                ));
            }
        }
    }
}
