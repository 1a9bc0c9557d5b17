//! The one loop that owns the leases of this process: reads the heads of the streams, takes and
//! gives up leases, starts and stops workers. Called by [`crate::run`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use event_log::read::{StreamHead, stream_heads};
use service::backoff::Backoff;
use sqlx::{PgConnection, PgPool};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::assignment::{self, View};
use super::checkpoint::{self, CheckpointKey, Lease, Standing, WorkerIdentity};
use super::fault::{self, Verdict};
use super::versions::{self, Version};
use super::worker::{Heads, Worker, WorkerEnd};
use super::{Readiness, Settings, Shared, lag, parked};
use crate::metrics::Metrics;
use crate::projection::{Projection, ProjectionError};

/// How often the checkpoints are read: for shares, for leases that others released, for lag.
const REVIEW_INTERVAL: Duration = Duration::from_secs(1);
/// While the log has nothing new for so long, it is asked less often by this factor.
const QUIET: Duration = Duration::from_secs(10);
const QUIET_FACTOR: u32 = 3;
/// What giving the leases back may take at the end.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the runner ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The database refuses what this build asks of it.
    #[error(
        "the database refuses the projectors' work; check that `runlog migrate` has run and that \
         the login may read the log and write the read models"
    )]
    Refused(#[source] ProjectionError),
    /// A worker panicked.
    #[error("a worker ended unexpectedly; this is a bug")]
    WorkerDied(#[source] JoinError),
}

/// The runner of one process.
pub struct Runner {
    shared: Arc<Shared>,
    projections: BTreeMap<String, Arc<dyn Projection>>,
    me: WorkerIdentity,
    heads: watch::Sender<Heads>,
    held: BTreeMap<CheckpointKey, Held>,
    workers: JoinSet<(Lease, WorkerEnd)>,
    /// Takes up parked runs again. May be dropped anywhere: it works in transactions.
    taking_up: Option<JoinHandle<()>>,
    /// The versions that the last review saw.
    versions: Vec<Version>,
    /// The streams that the last review saw.
    reviewed: BTreeSet<i64>,
    next_review: Instant,
    next_renewal: Instant,
    /// When the log last had something new.
    last_news: Instant,
}

struct Held {
    claim: Uuid,
    /// What the metrics call its version.
    label: String,
    stop: CancellationToken,
}

impl Runner {
    /// A runner that has not started. `owner` is how people see this process: host and process.
    pub fn new(
        pool: PgPool,
        projections: Vec<Arc<dyn Projection>>,
        owner: String,
        settings: Settings,
        metrics: Metrics,
        readiness: Readiness,
    ) -> Self {
        let by_name = projections.into_iter().map(|p| (p.name().to_owned(), p));
        let projections: BTreeMap<_, _> = by_name.collect();
        let now = Instant::now();
        Self {
            shared: Shared::new(pool, settings, metrics, readiness),
            me: WorkerIdentity {
                worker_id: Uuid::new_v4(),
                owner,
                projections: projections.keys().cloned().collect(),
            },
            projections,
            heads: watch::Sender::new(Heads::default()),
            held: BTreeMap::new(),
            workers: JoinSet::new(),
            taking_up: None,
            versions: Vec::new(),
            reviewed: BTreeSet::new(),
            next_review: now,
            next_renewal: now,
            last_news: now,
        }
    }

    /// Works until `shutdown` is cancelled; then lets the batches in flight end, and releases the
    /// leases.
    ///
    /// # Errors
    /// [`RunnerError`]; the leases are released then, too.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), RunnerError> {
        self.shared.readiness.started();
        let worked = self.work(&shutdown).await;
        self.shared.readiness.stopping();
        self.drain().await;
        worked
    }

    async fn work(&mut self, shutdown: &CancellationToken) -> Result<(), RunnerError> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut next_poll = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                Some(ended) = self.workers.join_next() => self.ended(ended)?,
                () = sleep_until(next_poll) => {
                    let began = Instant::now();
                    // Every statement of a poll stands alone, so it can be dropped anywhere.
                    let polled = tokio::select! {
                        () = shutdown.cancelled() => return Ok(()),
                        polled = self.poll() => polled,
                    };
                    let delay = self.after_poll(polled, &mut backoff)?;
                    // A poll with a review takes longer, and must not put the next one off.
                    next_poll = began + delay;
                }
            }
        }
    }

    /// How long to wait before the next poll.
    fn after_poll(
        &self,
        polled: Result<(), sqlx::Error>,
        backoff: &mut Backoff,
    ) -> Result<Duration, RunnerError> {
        let Err(cause) = polled else {
            backoff.reset();
            self.shared.readiness.database_answers();
            let interval = self.shared.settings.poll_interval;
            return Ok(match self.last_news.elapsed() {
                quiet if quiet > QUIET => QUIET_FACTOR * interval,
                _ => interval,
            });
        };
        let doing = "cannot read the log's streams and the checkpoints";
        if fault::of_database(&cause) == Verdict::Stop {
            return Err(RunnerError::Refused(ProjectionError::Database {
                doing,
                cause,
            }));
        }
        let delay = backoff.next_delay();
        tracing::warn!(error = %cause, ?delay, "{doing}; trying again");
        self.shared
            .readiness
            .database_fails(format!("{doing}: {cause}"));
        Ok(delay)
    }

    async fn poll(&mut self) -> Result<(), sqlx::Error> {
        let mut connection = self.shared.pool.acquire().await?;
        let heads = Arc::new(stream_heads(&mut connection).await?);
        // First of all: the workers need not wait for a review.
        if self.heads.send_replace(heads.clone()) != heads {
            self.last_news = Instant::now();
        }
        let streams: BTreeSet<i64> = heads.iter().map(|head| head.stream_id).collect();
        if Instant::now() >= self.next_review || streams != self.reviewed {
            self.renew(&mut connection).await?;
            self.review(&mut connection, &heads).await?;
            self.reviewed = streams;
            self.next_review = Instant::now() + REVIEW_INTERVAL.min(self.shared.settings.lease / 3);
        }
        Ok(())
    }

    async fn renew(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if Instant::now() < self.next_renewal {
            return Ok(());
        }
        let lease = self.shared.settings.lease;
        checkpoint::heartbeat(connection, &self.me, lease).await?;
        checkpoint::renew(connection, &self.claims(), lease).await?;
        self.next_renewal = Instant::now() + lease / 3;
        Ok(())
    }

    /// Compares what is with what should be, and moves towards it.
    async fn review(
        &mut self,
        connection: &mut PgConnection,
        heads: &[StreamHead],
    ) -> Result<(), sqlx::Error> {
        let versions = versions::kept(connection, &self.me.projections).await?;
        let standings = self.standings(connection, &versions, heads).await?;
        let workers = checkpoint::workers(connection).await?;
        let held = self
            .held
            .iter()
            .map(|(key, held)| (key.clone(), held.claim));
        let view = View {
            heads,
            standings: &standings,
            workers: &workers,
            me: self.me.worker_id,
            held: &held.collect(),
        };
        let plan = assignment::plan(&versions, &view);
        for key in &plan.give_up {
            // The worker releases the lease when its batch has ended.
            if let Some(held) = self.held.get(key) {
                held.stop.cancel();
            }
        }
        self.see(versions);
        if !plan.take.is_empty() {
            let lease = self.shared.settings.lease;
            let taken = checkpoint::take(connection, &plan.take, &self.me.owner, lease).await?;
            taken.into_iter().for_each(|lease| self.start(lease, heads));
        }
        self.take_up_released(connection).await?;
        let metrics = &self.shared.metrics;
        for (label, count) in parked::counts(connection, &self.versions).await? {
            metrics.parked_runs.with_label_values(&[&label]).set(count);
        }
        lag::measure(connection, metrics, &self.versions, heads, &standings).await
    }

    /// Has the parked runs that an operator released taken up again, one after the other.
    async fn take_up_released(&mut self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        if self
            .taking_up
            .as_ref()
            .is_some_and(|task| !task.is_finished())
        {
            return Ok(());
        }
        let runs = parked::released(connection, &self.me.projections).await?;
        if runs.is_empty() {
            return Ok(());
        }
        let (shared, projections) = (self.shared.clone(), self.projections.clone());
        self.taking_up = Some(tokio::spawn(async move {
            for run in runs {
                let Some(projection) = projections.get(&run.version.projection) else {
                    continue;
                };
                let _permit = shared.batch_permits.acquire().await.ok();
                if let Err(error) = parked::take_up(&shared, &**projection, &run).await {
                    tracing::warn!(%error, "a released run cannot be taken up now; trying again");
                }
            }
        }));
        Ok(())
    }

    /// Takes note of the versions. What a version is called changes when it goes live: its leases are
    /// given up, and taken again under the new name.
    fn see(&mut self, versions: Vec<Version>) {
        let labels: BTreeSet<String> = versions.iter().map(Version::label).collect();
        for held in self.held.values() {
            if !labels.contains(&held.label) {
                held.stop.cancel();
            }
        }
        let gone = self.versions.iter().map(Version::label);
        for label in gone.filter(|label| !labels.contains(label)) {
            self.shared.metrics.forget(&label);
        }
        self.versions = versions;
    }

    /// The checkpoints, made where they are missing.
    async fn standings(
        &self,
        connection: &mut PgConnection,
        versions: &[Version],
        heads: &[StreamHead],
    ) -> Result<Vec<Standing>, sqlx::Error> {
        let projections = &self.me.projections;
        let standings = checkpoint::standings(connection, projections).await?;
        let there: BTreeSet<_> = standings.iter().map(Standing::key).collect();
        let mut is_complete = true;
        for version in versions {
            for head in heads {
                let key = CheckpointKey {
                    projection: version.projection.clone(),
                    version: version.version,
                    stream_id: head.stream_id,
                };
                if !there.contains(&key) {
                    checkpoint::create(connection, version, head).await?;
                    is_complete = false;
                }
            }
        }
        if is_complete {
            return Ok(standings);
        }
        checkpoint::standings(connection, projections).await
    }

    fn start(&mut self, lease: Lease, heads: &[StreamHead]) {
        let Some(projection) = self.projections.get(&lease.key.projection) else {
            return;
        };
        let is_its = |v: &&Version| v.is(&lease.key.projection, lease.key.version);
        let Some(version) = self.versions.iter().find(is_its) else {
            return;
        };
        let stop = CancellationToken::new();
        let (key, claim) = (lease.key.clone(), lease.claim);
        let worker = Worker {
            shared: self.shared.clone(),
            projection: projection.clone(),
            label: version.label(),
            schema: version.schema(),
            is_live: version.is_live,
            lease,
            heads: self.heads.subscribe(),
            stop: stop.clone(),
        };
        if let Some(head) = heads.iter().find(|head| head.stream_id == key.stream_id) {
            tracing::info!(
                projection = worker.label,
                topic = head.topic,
                partition = head.partition,
                generation = head.generation,
                "lease taken"
            );
        }
        let label = worker.label.clone();
        self.workers.spawn(worker.run());
        self.held.insert(key, Held { claim, label, stop });
        self.count_leases();
    }

    fn ended(&mut self, ended: Result<(Lease, WorkerEnd), JoinError>) -> Result<(), RunnerError> {
        let (lease, end) = ended.map_err(RunnerError::WorkerDied)?;
        let CheckpointKey {
            projection,
            version,
            stream_id,
        } = &lease.key;
        tracing::info!(projection, version, stream = stream_id, ?end, "lease ended");
        self.held.remove(&lease.key);
        self.count_leases();
        // What became free, or readable, can be taken at once.
        self.next_review = Instant::now();
        match end {
            WorkerEnd::Failed(error) => Err(RunnerError::Refused(error)),
            WorkerEnd::Stopped | WorkerEnd::Finished | WorkerEnd::Fenced => Ok(()),
        }
    }

    fn count_leases(&self) {
        for label in self.versions.iter().map(Version::label) {
            let count = self
                .held
                .values()
                .filter(|held| held.label == label)
                .count();
            let leases = self.shared.metrics.leases.with_label_values(&[&label]);
            leases.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    fn claims(&self) -> Vec<Uuid> {
        self.held.values().map(|held| held.claim).collect()
    }

    /// Lets the batches in flight end, within the bound; the workers release their leases. What is
    /// not done by then is abandoned, which is safe: it rolls back.
    async fn drain(mut self) {
        self.held.values().for_each(|held| held.stop.cancel());
        if let Some(task) = self.taking_up.take() {
            task.abort();
        }
        let all_ended = async {
            while let Some(ended) = self.workers.join_next().await {
                if let Ok((lease, _)) = ended {
                    self.held.remove(&lease.key);
                }
            }
        };
        if timeout(self.shared.settings.drain_timeout, all_ended)
            .await
            .is_err()
        {
            tracing::warn!(
                streams = self.held.len(),
                "batches in flight did not end in time; they are abandoned"
            );
            self.workers.shutdown().await;
        }
        let claims = self.claims();
        let pool = &self.shared.pool;
        let goodbye = async {
            if !claims.is_empty() {
                checkpoint::release(pool, &claims).await?;
            }
            checkpoint::leave(pool, self.me.worker_id).await
        };
        match timeout(RELEASE_TIMEOUT, goodbye).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::info!(%error, "leases could not be released; they run out by themselves")
            }
            Err(_) => {
                tracing::info!("leases could not be released in time; they run out by themselves")
            }
        }
    }
}
