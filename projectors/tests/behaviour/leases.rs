//! Who works on what, and what a process that lost its lease can no longer do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use event_log::read::StreamEvent;
use runlog_projectors::RunStatusProjection;
use runlog_projectors::projection::{ApplyFuture, Effects, Projection, ProjectionError};
use sqlx::PgConnection;
use tokio::sync::Semaphore;

use crate::support::{Database, Log, Running, Settings, run, settings, step, until};
use crate::whole_fold::assert_equals_whole_fold;

/// run_status that stops after its rows are written, before the checkpoint moves, until let go.
struct Gated {
    arrived: Semaphore,
    go: Semaphore,
}

impl Gated {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            arrived: Semaphore::new(0),
            go: Semaphore::new(0),
        })
    }
}

impl Projection for Gated {
    fn name(&self) -> &'static str {
        RunStatusProjection::NAME
    }

    fn apply<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        events: &'a [StreamEvent],
    ) -> ApplyFuture<'a> {
        Box::pin(async move {
            let effects = RunStatusProjection.apply(connection, events).await?;
            self.arrived.add_permits(1);
            self.go.acquire().await.unwrap().forget();
            Ok(effects)
        })
    }
}

/// Takes the lease away as time does it: it has run out, and its process says nothing any more.
const RUNS_OUT: &str = "
    UPDATE read_model.projection_checkpoint SET lease_expires_at = '-infinity';
    DELETE FROM read_model.projection_worker";

#[tokio::test]
async fn a_zombie_in_the_middle_of_a_batch_is_refused_and_its_rows_are_rolled_back() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    log.append(stream, "r", run("RunStarted")).await;
    let gated = Gated::new();
    let zombie = Running::start_with(&database, "zombie", settings(), gated.clone());
    gated.arrived.acquire().await.unwrap().forget();
    // The zombie hangs inside its transaction; the server's idle timeout ends that.
    database
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND state = 'idle in transaction'",
        )
        .await;
    database
        .holds(
            "SELECT NOT EXISTS (SELECT FROM pg_stat_activity
              WHERE datname = current_database() AND state LIKE 'idle in transaction%')",
        )
        .await;
    assert_eq!(
        database
            .number("SELECT count(*) FROM read_model.run_current")
            .await,
        0
    );
    database.execute(RUNS_OUT).await;
    log.append(stream, "r", run("RunCompleted")).await;
    let heir = Running::start(&database, "heir", settings());
    database.caught_up().await;
    // It wakes up, fails, and finds that the lease is another's.
    gated.go.add_permits(1000);
    let leases = zombie.metrics.leases.with_label_values(&["run_status"]);
    until("the zombie let go", || leases.get() == 0).await;
    assert_equals_whole_fold(&database, "after the zombie").await;
    let by_heir = "SELECT count(*) FROM read_model.projection_checkpoints WHERE owner = 'heir' AND applied = 2";
    assert_eq!(database.number(by_heir).await, 1);
    zombie.stop().await;
    heir.stop().await;
}

/// run_status whose lease goes to another process while its batch is under way.
struct Robbed {
    arrived: Semaphore,
}

impl Projection for Robbed {
    fn name(&self) -> &'static str {
        RunStatusProjection::NAME
    }

    fn apply<'a>(
        &'a self,
        connection: &'a mut PgConnection,
        events: &'a [StreamEvent],
    ) -> ApplyFuture<'a> {
        Box::pin(async move {
            let effects = RunStatusProjection.apply(connection, events).await?;
            // By way of the batch's own transaction, since its lock keeps everybody else from it.
            sqlx::query(
                "UPDATE read_model.projection_checkpoint SET claim = gen_random_uuid(), owner = 'heir'",
            )
            .execute(connection)
            .await
            .unwrap();
            self.arrived.add_permits(1);
            Ok(effects)
        })
    }
}

#[tokio::test]
async fn a_checkpoint_whose_claim_is_another_does_not_move_and_the_batch_is_rolled_back() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    log.append(stream, "r", run("RunStarted")).await;
    let projection = Arc::new(Robbed {
        arrived: Semaphore::new(0),
    });
    let robbed = Running::start_with(&database, "robbed", settings(), projection.clone());
    projection.arrived.acquire().await.unwrap().forget();
    let leases = robbed.metrics.leases.with_label_values(&["run_status"]);
    let batches = robbed
        .metrics
        .batch_seconds
        .with_label_values(&["run_status"]);
    // Its lease is in the row again after the rollback, for an hour: only it can have let go.
    until("the batch was refused", || leases.get() == 0).await;
    assert_eq!(batches.get_sample_count(), 0);
    let untouched = "SELECT count(*) FROM read_model.projection_checkpoints
                     WHERE applied = 0 AND next_offset = 0 AND owner = 'robbed'";
    assert_eq!(database.number(untouched).await, 1);
    let rows = "SELECT count(*) FROM read_model.run_current";
    assert_eq!(database.number(rows).await, 0);
    robbed.stop().await;
}

#[tokio::test]
async fn an_idle_zombie_cannot_move_the_checkpoint_of_its_heir() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    log.append(stream, "r", run("RunStarted")).await;
    let zombie = Running::start(&database, "zombie", settings());
    database.caught_up().await;
    // The heir has the lease, as it were, but does not work: whatever moves now, the zombie moved.
    database
        .execute(
            "UPDATE read_model.projection_checkpoint SET claim = gen_random_uuid(), owner = 'heir'",
        )
        .await;
    log.append(stream, "r", run("RunCompleted")).await;
    let leases = zombie.metrics.leases.with_label_values(&["run_status"]);
    until("the zombie let go", || leases.get() == 0).await;
    let untouched = "SELECT count(*) FROM read_model.projection_checkpoints
                     WHERE owner = 'heir' AND applied = 1 AND next_offset = 1";
    assert_eq!(database.number(untouched).await, 1);
    let running = "SELECT count(*) FROM read_model.run_current WHERE status = 'RUNNING'";
    assert_eq!(database.number(running).await, 1);
    zombie.stop().await;
}

#[tokio::test]
async fn a_killed_process_is_replaced_when_its_lease_has_run_out() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    log.append(stream, "r", run("RunStarted")).await;
    let short = Settings {
        lease: Duration::from_millis(1500),
        ..settings()
    };
    let killed = Running::start(&database, "killed", short.clone());
    database.caught_up().await;
    killed.kill().await;
    let held = "SELECT count(*) FROM read_model.projection_checkpoints WHERE owner = 'killed'";
    assert_eq!(
        database.number(held).await,
        1,
        "a killed process releases nothing"
    );
    let heir = Running::start(&database, "heir", short);
    log.append(stream, "r", run("RunCompleted")).await;
    database.caught_up().await;
    database
        .holds("SELECT owner = 'heir' FROM read_model.projection_checkpoints")
        .await;
    // An idle lease is renewed: it is the heir's still, long after it would have run out.
    database
        .holds("SELECT clock_timestamp() > max(updated_at) FILTER (WHERE applied = 2) FROM read_model.projection_checkpoints")
        .await;
    database
        .holds(
            "SELECT lease_expires_at > (SELECT max(projected_at) + interval '3 seconds'
                                        FROM read_model.run_current)
             FROM read_model.projection_checkpoints WHERE owner = 'heir'",
        )
        .await;
    heir.stop().await;
}

#[tokio::test]
async fn a_process_that_is_told_to_stop_hands_over_at_once() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    log.append(stream, "r", run("RunStarted")).await;
    // Their leases last an hour, so what moves has been released.
    let first = Running::start(&database, "first", settings());
    database.caught_up().await;
    first.stop().await;
    assert_eq!(
        database
            .number("SELECT count(*) FROM read_model.projection_worker")
            .await,
        0
    );
    let free = "SELECT count(*) FROM read_model.projection_checkpoints WHERE owner IS NULL";
    assert_eq!(database.number(free).await, 1);
    let second = Running::start(&database, "second", settings());
    log.append(stream, "r", run("RunCompleted")).await;
    database.caught_up().await;
    second.stop().await;
}

#[tokio::test]
async fn a_batch_in_flight_is_finished_when_the_process_is_told_to_stop() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    log.append(stream, "r", run("RunStarted")).await;
    let gated = Gated::new();
    let running = Running::start_with(&database, "one", settings(), gated.clone());
    gated.arrived.acquire().await.unwrap().forget();
    let stopping = tokio::spawn(running.stop());
    gated.go.add_permits(1);
    stopping.await.unwrap();
    assert_equals_whole_fold(&database, "after the stop").await;
    let done = "SELECT count(*) FROM read_model.projection_checkpoints WHERE applied = 1 AND owner IS NULL";
    assert_eq!(database.number(done).await, 1);
}

#[tokio::test]
async fn a_batch_that_hangs_is_abandoned_when_the_drain_is_over() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let stream = log.stream(0, 1, 0).await;
    log.append(stream, "r", run("RunStarted")).await;
    let gated = Gated::new();
    let impatient = Settings {
        drain_timeout: Duration::from_millis(50),
        ..settings()
    };
    let running = Running::start_with(&database, "one", impatient, gated.clone());
    gated.arrived.acquire().await.unwrap().forget();
    running.stop().await;
    assert_eq!(
        database
            .number("SELECT count(*) FROM read_model.run_current")
            .await,
        0
    );
    let kept = "SELECT count(*) FROM read_model.projection_checkpoints WHERE applied = 0 AND next_offset = 0";
    assert_eq!(database.number(kept).await, 1);
}

#[tokio::test]
async fn processes_share_the_streams_evenly_and_the_rest_takes_over() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    for partition in 0..5 {
        let stream = log.stream(partition, 1, 0).await;
        log.append(stream, &format!("r{partition}"), run("RunStarted"))
            .await;
    }
    let one = Running::start(&database, "one", settings());
    database
        .holds("SELECT count(*) = 5 FROM read_model.projection_checkpoints WHERE owner = 'one'")
        .await;
    let two = Running::start(&database, "two", settings());
    database
        .holds(
            "SELECT array_agg(n ORDER BY n) = '{2,3}' FROM
               (SELECT count(*) AS n FROM read_model.projection_checkpoints WHERE owner IS NOT NULL GROUP BY owner) o",
        )
        .await;
    one.stop().await;
    database
        .holds("SELECT count(*) = 5 FROM read_model.projection_checkpoints WHERE owner = 'two'")
        .await;
    two.stop().await;
}

/// Writes nothing; remembers what it was given, and refuses the streams it is told to.
#[derive(Default)]
struct Recorder {
    seen: Mutex<Vec<(i64, i64)>>,
    refused: Mutex<Option<i64>>,
}

impl Projection for Recorder {
    fn name(&self) -> &'static str {
        "recorder"
    }

    fn apply<'a>(&'a self, _: &'a mut PgConnection, events: &'a [StreamEvent]) -> ApplyFuture<'a> {
        let refused = *self.refused.lock().unwrap();
        let result = match events.iter().find(|event| Some(event.stream_id) == refused) {
            Some(_) => Err(ProjectionError::Database {
                doing: "cannot do it",
                cause: sqlx::Error::PoolTimedOut,
            }),
            None => {
                let places = events
                    .iter()
                    .map(|event| (event.stream_id, event.source_offset));
                self.seen.lock().unwrap().extend(places);
                Ok(Effects::default())
            }
        };
        Box::pin(std::future::ready(result))
    }
}

#[tokio::test]
async fn a_generation_waits_until_the_one_before_it_is_read_to_its_end() {
    let database = Database::new().await;
    let mut log = Log::new(&database);
    let first = log.stream(0, 1, 0).await;
    for _ in 0..5 {
        log.append(first, "r", step("Note", "a", 1)).await;
    }
    log.duplicates(first, 3).await;
    let second = log.stream(0, 2, 2).await;
    for _ in 0..5 {
        log.append(second, "r", step("Note", "a", 1)).await;
    }
    database.add_projection("recorder").await;
    let recorder = Arc::new(Recorder {
        refused: Mutex::new(Some(first)),
        ..Recorder::default()
    });
    let batches = Settings {
        batch_events: 2,
        ..settings()
    };
    let running = Running::start_with(&database, "one", batches, recorder.clone());
    let failures = running
        .metrics
        .batch_failures
        .with_label_values(&["recorder"]);
    until("the first generation fails a few times", || {
        failures.get() >= 4
    })
    .await;
    assert!(recorder.seen.lock().unwrap().is_empty());
    let untouched = "SELECT count(*) FROM read_model.projection_checkpoints
                     WHERE generation = 2 AND owner IS NULL AND next_offset = 2";
    assert_eq!(database.number(untouched).await, 1);

    *recorder.refused.lock().unwrap() = None;
    database.caught_up().await;
    let expected: Vec<(i64, i64)> = (0..5)
        .map(|n| (first, n))
        .chain((2..7).map(|n| (second, n)))
        .collect();
    assert_eq!(*recorder.seen.lock().unwrap(), expected);
    let finished = "SELECT count(*) FROM read_model.projection_checkpoints
                    WHERE generation = 1 AND finished_at IS NOT NULL AND owner IS NULL AND next_offset = 8";
    assert_eq!(database.number(finished).await, 1);
    running.stop().await;
}
