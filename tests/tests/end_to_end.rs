//! The whole path under fire: records flow while ingest and projectors are killed again and again,
//! and then the log, the ledger, the dead letters and the read models are compared with the oracle.
#![allow(clippy::unwrap_used, clippy::panic)]

use anyhow::{Result, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use runlog_tests::generator::{Record, generate};
use runlog_tests::oracle::Produced;
use runlog_tests::oracle::log::judge;
use runlog_tests::oracle::table::report;
use runlog_tests::pipeline::exit_code;
use runlog_tests::{Pipeline, Process, Topic, wait_until};
use std::time::Duration;
use tokio::sync::watch;

const RECORDS: usize = 20_500;
const PARTITIONS: i32 = 6;
/// Whom to kill, in this order: `true` is ingest. Six times ingest, three times the projectors.
const VICTIMS: [bool; 9] = [true, false, true, true, false, true, true, false, true];
/// Records that are sent at once, and how often: about 4,000 a second.
const BURST: usize = 100;
const PAUSE: Duration = Duration::from_millis(25);
/// How long progress may take: a killed process's group session, a restart, a slow machine.
const PROGRESS: Duration = Duration::from_secs(90);

/// Sends records while another task decides how many of them may go.
struct Feed {
    total: usize,
    allowed: watch::Sender<usize>,
    acknowledged: watch::Receiver<usize>,
    task: tokio::task::JoinHandle<Result<Vec<Produced>>>,
}

impl Feed {
    fn start(topic: Topic, records: Vec<Record>) -> Self {
        let total = records.len();
        let (allowed, mut gate) = watch::channel(0_usize);
        let (count, acknowledged) = watch::channel(0_usize);
        let task = tokio::spawn(async move {
            let mut produced: Vec<Produced> = Vec::with_capacity(records.len());
            let mut pace = tokio::time::interval(PAUSE);
            while produced.len() < records.len() {
                gate.wait_for(|allowed| *allowed > produced.len()).await?;
                pace.tick().await;
                let end = (produced.len() + BURST).min(*gate.borrow());
                let burst = topic.send(&records[produced.len()..end]).await?;
                produced.extend(burst);
                count.send_replace(produced.len());
            }
            Ok(produced)
        });
        Self {
            total,
            allowed,
            acknowledged,
            task,
        }
    }

    fn release(&self, more: usize) {
        self.allowed
            .send_modify(|allowed| *allowed = (*allowed + more).min(self.total));
    }

    /// Whether records are yet to be sent or yet to be stored.
    fn flows(&self, stored: i64) -> bool {
        let acknowledged = *self.acknowledged.borrow();
        acknowledged < *self.allowed.borrow()
            || usize::try_from(stored).unwrap_or_default() < acknowledged
    }
}

fn seed() -> u64 {
    let given = std::env::var("RUNLOG_TEST_SEED")
        .ok()
        .and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(rand::random);
    eprintln!("seed {seed} (RUNLOG_TEST_SEED={seed} makes the same records again)");
    seed
}

/// Waits until the victim has moved by a random amount, and kills it where records still flow.
async fn kill_in_the_flow(
    pipeline: &Pipeline,
    feed: &Feed,
    victim: Process,
    is_ingest: bool,
    share: usize,
    rng: &mut StdRng,
) -> Result<()> {
    for _ in 0..5 {
        let position = async || {
            let progress = pipeline.progress().await?;
            anyhow::Ok((
                if is_ingest {
                    progress.stored
                } else {
                    progress.applied
                },
                progress.stored,
            ))
        };
        let (before, _) = position().await?;
        feed.release(share);
        let goal = before + i64::try_from(rng.random_range(1..share / 2))?;
        let (now, stored) = wait_until("progress before a kill", PROGRESS, async || {
            let (now, stored) = position().await?;
            ensure!(
                now >= goal,
                "{} is at {now}, waiting for {goal}",
                victim.name
            );
            Ok((now, stored))
        })
        .await?;
        if feed.flows(stored) {
            eprintln!("SIGKILL of {} after {} more", victim.name, now - before);
            return victim.kill9();
        }
    }
    anyhow::bail!("{} was never seen while records flow", victim.name)
}

#[tokio::test(flavor = "multi_thread")]
async fn end_to_end_survives_kills() {
    let seed = seed();
    let records = generate(seed, RECORDS, PARTITIONS);
    assert!(records.len() >= 20_000);
    let mut rng = StdRng::seed_from_u64(seed);
    let pipeline = Pipeline::fresh(PARTITIONS).await.unwrap();
    let mut ingest = pipeline.ingest().unwrap();
    let mut projectors = pipeline.projectors().unwrap();
    ingest.wait_ready().await.unwrap();
    projectors.wait_ready().await.unwrap();

    let total = records.len();
    let share = total / (VICTIMS.len() + 3);
    let feed = Feed::start(pipeline.topic.clone(), records);
    for is_ingest in VICTIMS {
        if is_ingest {
            kill_in_the_flow(&pipeline, &feed, ingest, true, share, &mut rng)
                .await
                .unwrap();
            ingest = pipeline.ingest().unwrap();
        } else {
            kill_in_the_flow(&pipeline, &feed, projectors, false, share, &mut rng)
                .await
                .unwrap();
            projectors = pipeline.projectors().unwrap();
        }
    }
    feed.release(total);
    let produced = feed.task.await.unwrap().unwrap();
    pipeline.wait_projected(PROGRESS * 2).await.unwrap();

    let differences = pipeline.differences(&produced).await.unwrap();
    assert!(
        differences.is_empty(),
        "seed {seed}: {}",
        report(&differences, 20)
    );
    let log = judge(&produced);
    eprintln!(
        "{} records sent = {} appended + {} duplicates + {} dead letters, as the oracle says",
        produced.len(),
        log.appended.len(),
        log.totals
            .values()
            .map(|totals| totals.duplicates)
            .sum::<i64>(),
        log.dead_letters.len(),
    );
    ingest.wait_ready().await.unwrap();
    projectors.wait_ready().await.unwrap();
    assert_eq!(
        exit_code(ingest.terminate().await.unwrap()).unwrap(),
        0,
        "ingest after SIGTERM"
    );
    assert_eq!(
        exit_code(projectors.terminate().await.unwrap()).unwrap(),
        0,
        "projectors after SIGTERM"
    );
}
