//! Watches a version being built until it has come as far as the live one.

use std::time::{Duration, Instant};

use sqlx::{FromRow, PgPool};

use super::Versions;
use crate::database::failed;
use crate::output::note;
use crate::progress::Progress;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(300);
/// How often it is said that nobody does the work.
const REMIND: Duration = Duration::from_secs(10);
/// So many events behind the live version is as good as caught up: holding it still brings the rest.
const CLOSE: i64 = 10_000;

#[derive(Debug, FromRow)]
struct Standing {
    /// Events that the live version has applied.
    live: i64,
    /// Events that the new version has applied.
    applied: i64,
    /// Whether every stream has a checkpoint of the new version.
    is_begun: bool,
    /// Processes that run the projection.
    workers: i64,
}

/// Returns the events that it is made of by then.
pub(super) async fn until_caught_up(pool: &PgPool, versions: &Versions) -> anyhow::Result<i64> {
    let mut progress: Option<Progress> = None;
    let mut next_reminder = Instant::now() + Duration::from_secs(3);
    loop {
        let standing = look(pool, versions)
            .await
            .map_err(|error| failed(error, "see how far the new version is"))?;
        let done = u64::try_from(standing.applied).unwrap_or(0);
        let all = u64::try_from(standing.live).unwrap_or(0);
        progress
            .get_or_insert_with(|| Progress::start(Some(all), "{human_pos}/{human_len} events"))
            .at(done, done);
        if standing.is_begun && standing.live - standing.applied <= CLOSE {
            if let Some(progress) = progress {
                progress.finish();
            }
            return Ok(standing.applied);
        }
        if standing.workers == 0 && Instant::now() >= next_reminder {
            note(format!(
                "No runlog-projectors process runs {}: start one, it does the work.",
                versions.projection
            ));
            next_reminder = Instant::now() + REMIND;
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn look(pool: &PgPool, versions: &Versions) -> Result<Standing, sqlx::Error> {
    sqlx::query_as(
        "SELECT (SELECT coalesce(sum(c.applied), 0)::bigint FROM read_model.projection_checkpoints c
                 WHERE c.projection = $1 AND c.version = $3) AS live,
                (SELECT coalesce(sum(c.applied), 0)::bigint FROM read_model.projection_checkpoints c
                 WHERE c.projection = $1 AND c.version = $2) AS applied,
                (SELECT count(*) FROM event_log.streams)
                  <= (SELECT count(*) FROM read_model.projection_checkpoints c
                      WHERE c.projection = $1 AND c.version = $2) AS is_begun,
                (SELECT count(*) FROM read_model.projection_worker w
                 WHERE $1 = ANY (w.projections) AND w.expires_at > clock_timestamp()) AS workers",
    )
    .bind(&versions.projection)
    .bind(versions.new)
    .bind(versions.live)
    .fetch_one(pool)
    .await
}
