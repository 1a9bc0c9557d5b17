//! Two versions of a projection side by side: the new one follows the live one, and each is kept and read by itself.

use event_log::fault::sqlstate;
use runlog_projectors::runner::versions::{Version, hold_still};
use sqlx::{AssertSqlSafe, Postgres, Transaction};

use crate::each;
use crate::logs;
use crate::support::{Database, Log, Running, project_with, settings};
use crate::tables::{digest, digest_shown, per_run};
use crate::verify::verify_version;

/// A projection of which there are two versions.
struct SideBySide {
    database: Database,
    name: &'static str,
}

impl SideBySide {
    fn schema(&self, version: i32) -> String {
        format!("{}_{version}", self.name)
    }

    async fn digest(&self, version: i32) -> u64 {
        digest(&self.database, &self.schema(version), false).await
    }

    /// Of what people see.
    async fn shown(&self) -> u64 {
        digest_shown(&self.database, &self.schema(1)).await
    }

    /// A version, as the runner sees it.
    fn version(&self, version: i32) -> Version {
        Version {
            projection: self.name.to_owned(),
            version,
            is_live: version == 1,
        }
    }

    /// Keeps a version still until the transaction ends.
    async fn hold(&self, version: i32) -> Transaction<'static, Postgres> {
        let mut transaction = self.database.pool.begin().await.unwrap();
        hold_still(&mut transaction, &self.version(version))
            .await
            .unwrap();
        transaction
    }

    /// Lets version 1 read on in a stream, or has another process hold its lease, which does nothing.
    async fn stand_still(&self, stream: i64, seconds: i32) {
        sqlx::query(
            "UPDATE read_model.projection_checkpoint
             SET claim = gen_random_uuid(), owner = 'idle', lease_expires_at = now() + make_interval(secs => $2)
             WHERE version = 1 AND stream_id = $1",
        )
        .bind(stream)
        .bind(seconds)
        .execute(&self.database.pool)
        .await
        .unwrap();
    }

    /// How far a version has read a stream.
    async fn offset(&self, version: i32, stream: i64) -> i64 {
        sqlx::query_scalar(
            "SELECT next_offset FROM read_model.projection_checkpoint WHERE version = $1 AND stream_id = $2",
        )
        .bind(version)
        .bind(stream)
        .fetch_one(&self.database.pool)
        .await
        .unwrap()
    }

    /// Waits until a version stands at the head of both streams.
    async fn at_the_head(&self, version: i32) {
        self.at_heads(version, 2).await;
    }

    /// Waits until a version stands at the head of so many streams.
    async fn at_heads(&self, version: i32, streams: i64) {
        let sql = format!(
            "SELECT count(*) = {streams}
             FROM read_model.projection_checkpoint c JOIN event_log.stream s USING (stream_id)
             WHERE c.version = {version} AND c.next_offset = s.next_offset"
        );
        self.database.holds(AssertSqlSafe(sql)).await;
    }

    /// The streams in which a version has come to the head.
    async fn heads_reached(&self, version: i32) -> i64 {
        sqlx::query_scalar(
            "SELECT count(*) FROM read_model.projection_checkpoint c JOIN event_log.stream s USING (stream_id)
             WHERE c.version = $1 AND c.next_offset = s.next_offset",
        )
        .bind(version)
        .fetch_one(&self.database.pool)
        .await
        .unwrap()
    }

    /// Moves the views to version 2, unless that is refused: the SQLSTATE then.
    async fn publish(&self) -> Result<(), Option<String>> {
        let published = sqlx::query("SELECT read_model.publish($1, 2)")
            .bind(self.name)
            .execute(&self.database.pool)
            .await;
        published.map(drop).map_err(|error| sqlstate(&error))
    }
}

async fn are_kept_side_by_side(name: &'static str) {
    let both = SideBySide {
        database: Database::new().await,
        name,
    };
    let database = &both.database;
    let mut log = Log::new(database);
    let streams = logs::partitions(&log, 2).await;
    let mut write = async |seed| each::write(name, &mut log, &streams, seed, 150).await;
    write(41).await;
    project_with(database, name, 2000).await;
    let old = both.digest(1).await;
    let running = Running::start_with(database, "one", settings(), each::projection(name));
    sqlx::query("SELECT read_model.begin_rebuild($1)")
        .bind(name)
        .execute(&database.pool)
        .await
        .unwrap();
    both.at_the_head(2).await;
    assert_eq!(
        (both.digest(2).await, both.shown().await),
        (old, old),
        "{name}"
    );

    // The new one does not overtake the old one: not in the stream in which that stands still.
    both.stand_still(streams[0], 3600).await;
    let stands_at = both.offset(1, streams[0]).await;
    for seed in [42, 45] {
        write(seed).await;
        both.at_heads(2, 1).await;
    }
    assert_eq!(both.heads_reached(1).await, 1);
    for version in [1, 2] {
        assert_eq!(both.offset(version, streams[0]).await, stands_at, "{name}");
    }
    both.stand_still(streams[0], 0).await;
    both.at_the_head(2).await;
    let new = both.digest(2).await;
    assert!(new != old, "{name}: nothing new");
    assert_eq!(
        (both.digest(1).await, both.shown().await),
        (new, new),
        "{name}"
    );

    // The old one goes on while the new one stands still, and is not switched to.
    let held = both.hold(2).await;
    write(43).await;
    both.at_the_head(1).await;
    assert_eq!(both.heads_reached(2).await, 0);
    assert_eq!(both.digest(2).await, new, "{name}");
    let all = both.digest(1).await;
    assert!(all != new && both.shown().await == all, "{name}");
    each::assert_shown(name, database, "the old version").await;
    assert_eq!(
        both.publish().await,
        Err(Some("55000".to_owned())),
        "{name}"
    );
    assert_eq!(both.shown().await, all, "{name}");
    held.rollback().await.unwrap();
    both.at_the_head(2).await;
    assert_eq!(both.digest(2).await, all, "{name}");

    // A row less in the old one: from then on it is known which of them is shown.
    let less = format!(
        "DELETE FROM {table} WHERE run_id = 'run-1'",
        table = per_run(database, &both.schema(1)).await
    );
    sqlx::raw_sql(AssertSqlSafe(less))
        .execute(&database.pool)
        .await
        .unwrap();
    let old = both.digest(1).await;
    assert_eq!(
        (both.shown().await, both.digest(2).await),
        (old, all),
        "{name}"
    );
    assert!(old != all, "{name}");
    assert_eq!(both.publish().await, Ok(()), "{name}");
    assert_eq!(
        (both.shown().await, both.digest(1).await),
        (all, old),
        "{name}"
    );

    // The new one goes on, and the old one is kept as it was.
    write(44).await;
    both.at_the_head(2).await;
    running.stop().await;
    each::assert_shown(name, database, "the new version").await;
    assert_eq!(
        (both.digest(1).await, both.heads_reached(1).await),
        (old, 0),
        "{name}"
    );
    let verified = verify_version(database, name, 2, 100).await;
    assert_eq!(
        (verified.events, verified.differences),
        (750, 0),
        "{:?}",
        verified.lines
    );
}

#[tokio::test]
async fn two_versions_of_the_states_are_kept_and_read_side_by_side() {
    are_kept_side_by_side("run_status").await;
}

#[tokio::test]
async fn two_versions_of_the_intervals_are_kept_and_read_side_by_side() {
    are_kept_side_by_side("run_timeline").await;
}

#[tokio::test]
async fn two_versions_of_the_counts_are_kept_and_read_side_by_side() {
    are_kept_side_by_side("run_stats").await;
}
