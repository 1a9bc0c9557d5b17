//! One round: a topic and a database of its own, a fleet and producers, the plan's faults, calm, and
//! the comparison with the oracle.
//!
//! Called by `runlog-chaos`.

use super::deployment::Deployment;
use super::feed::Feed;
use super::fleet::Fleet;
use super::schedule::{Fault, Plan, Server};
use super::servers::Servers;
use super::tally::{Shared, Tally};
use super::watch::Watch;
use crate::generator::generate;
use crate::observe;
use crate::oracle::witness;
use crate::pipeline::compare;
use crate::wait::wait_until;
use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, watch};

/// How often the fleet is looked at.
const TICK: Duration = Duration::from_millis(20);
/// How long it may take until everything is stored and projected, once no fault is left.
const CALM: Duration = Duration::from_secs(180);
/// Differences that are told.
const TOLD: usize = 40;

/// Plays a round; its violations are in the tally.
///
/// # Errors
/// Where the harness itself cannot go on.
pub async fn play(servers: &mut Servers, plan: &Plan, rate: u32, scratch: &Path) -> Result<Tally> {
    let tally = Shared::default();
    let deployment = Arc::new(Deployment::fresh(servers, plan, scratch).await?);
    // More than can be sent: the producers stop when the faults end.
    let count = usize::try_from(u64::from(rate) * plan.lasts.as_secs())?;
    let records = {
        let (seed, partitions) = (plan.seed, plan.partitions);
        tokio::task::spawn_blocking(move || generate(seed, count, partitions)).await?
    };
    let (stored, seen) = watch::channel(0);
    let feed = Feed::start(&deployment.topic, records, rate, &seen)?;
    let pool = servers.pool(&deployment.database)?;
    let round = Round {
        watch: Watch::new(pool, stored, Arc::clone(&feed.heads), tally.clone()),
        fleet: Mutex::new(Fleet::new(Arc::clone(&deployment), tally.clone(), plan)),
        deployment,
        tally: tally.clone(),
    };
    let produced = {
        let faults = round.faults(servers, plan, feed);
        tokio::select! {
            produced = faults => produced?,
            ended = round.tick() => return ended.and(Err(anyhow::anyhow!("the fleet ended"))),
            () = round.watch.run() => unreachable!("it looks for ever"),
            () = round.watch.run_kafka(&round.deployment.topic, &round.deployment.group) => unreachable!("it looks for ever"),
        }
    };
    let Round {
        fleet, deployment, ..
    } = round;
    fleet.into_inner().end().await?;
    let pool = servers.pool(&deployment.database)?;
    let observed = observe::observe(&pool).await?;
    let name = deployment.topic.name.clone();
    let checked = tokio::task::spawn_blocking(move || {
        let (log, mut lines) =
            witness::explain(&produced, &observed.run_events, &observed.dead_letters);
        lines.extend(compare(&log, &observed, &produced, &name)?);
        anyhow::Ok((log, produced.len(), lines))
    });
    let (log, sent, lines) = checked.await??;
    pool.close().await;
    servers
        .sql(&format!(
            "DROP DATABASE \"{}\" WITH (FORCE)",
            deployment.database
        ))
        .await?;
    deployment.topic.remove().await?;
    let mut tally = std::mem::take(&mut *tally.lock());
    tally.rounds = 1;
    tally.sent = sent as u64;
    tally.appended = log.appended.len() as u64;
    tally.dead_letters = log.dead_letters.len() as u64;
    let duplicates: i64 = log.totals.values().map(|totals| totals.duplicates).sum();
    tally.duplicates = duplicates.unsigned_abs();
    if lines.len() > TOLD {
        eprintln!("{} differences, of which {TOLD} are told", lines.len());
    }
    for line in lines.into_iter().take(TOLD) {
        eprintln!("VIOLATION: {line}");
        tally.violations.push(line);
    }
    Ok(tally)
}

struct Round {
    watch: Watch,
    fleet: Mutex<Fleet>,
    deployment: Arc<Deployment>,
    tally: Shared,
}

impl Round {
    async fn tick(&self) -> Result<()> {
        loop {
            for name in self.fleet.lock().await.tick()? {
                self.watch.healed(&name);
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// The faults in their order, then calm until all is stored and projected.
    async fn faults(
        &self,
        servers: &mut Servers,
        plan: &Plan,
        feed: Feed,
    ) -> Result<Vec<crate::oracle::Produced>> {
        let started = Instant::now();
        for (at, fault) in &plan.faults {
            tokio::time::sleep(at.saturating_sub(started.elapsed())).await;
            if plan.solo {
                self.settled().await;
                if started.elapsed() > plan.lasts {
                    break;
                }
            }
            eprintln!("{:>6.1} s  {fault}", started.elapsed().as_secs_f64());
            let played = self.fault(servers, &feed, *fault).await;
            played.with_context(|| format!("the fault {fault}"))?;
        }
        tokio::time::sleep(plan.lasts.saturating_sub(started.elapsed())).await;
        self.fleet.lock().await.calm()?;
        let produced = feed.finish().await?;
        let calm = Instant::now();
        self.watch.healed("calm");
        self.settled().await;
        eprintln!(
            "{:>6.1} s  lag 0, {:.1} s after the last fault",
            started.elapsed().as_secs_f64(),
            calm.elapsed().as_secs_f64()
        );
        Ok(produced)
    }

    /// Waits until every process runs, and everything from before the faults so far is there (I7).
    async fn settled(&self) {
        let settled = wait_until("all to be stored and projected", CALM, async || {
            ensure!(self.fleet.lock().await.is_whole(), "processes are down");
            ensure!(self.watch.open() == 0, "lag is left");
            Ok(())
        });
        if let Err(error) = settled.await {
            let positions = observe::positions(&self.watch.pool.borrow().clone()).await;
            self.tally.violation(format!("I7: {error}; {positions:?}"));
        }
    }

    /// Plays one fault to its end.
    async fn fault(&self, servers: &mut Servers, feed: &Feed, fault: Fault) -> Result<()> {
        match fault {
            // The fleet counts these, and says when they heal.
            Fault::Kill(kind, slot) => {
                self.fleet.lock().await.kill(kind, slot)?;
                return Ok(());
            }
            Fault::Freeze(kind, slot, lasts) => {
                self.fleet.lock().await.freeze(kind, slot, lasts)?;
                return Ok(());
            }
            Fault::PostgresCrash { kill, down } => servers.crash_postgres(kill, down).await?,
            Fault::Failover { behind } => self.fail_over(servers, behind).await?,
            Fault::ReadOnly(lasts) => {
                const SETTING: &str = "default_transaction_read_only";
                servers
                    .sql(&format!("ALTER SYSTEM SET {SETTING} = on"))
                    .await?;
                servers.sql("SELECT pg_reload_conf()").await?;
                tokio::time::sleep(lasts).await;
                // Itself allowed in a transaction that is read-only.
                servers
                    .sql(&format!("ALTER SYSTEM RESET {SETTING}"))
                    .await?;
                servers.sql("SELECT pg_reload_conf()").await?;
            }
            Fault::BrokerBounce { kill, down } => servers.bounce_broker(kill, down).await?,
            Fault::Cut(server) => proxy(servers, server).cut(),
            Fault::Unreachable(server, lasts) => {
                proxy(servers, server).set_refusing(true);
                tokio::time::sleep(lasts).await;
                proxy(servers, server).set_refusing(false);
            }
            Fault::Latency(server, millis, lasts) => {
                proxy(servers, server).set_latency(Duration::from_millis(millis));
                tokio::time::sleep(lasts).await;
                proxy(servers, server).set_latency(Duration::ZERO);
            }
            Fault::AddPartition => feed.add_partition().await?,
            Fault::Visitor(lasts) => {
                self.fleet.lock().await.invite(lasts)?;
                return Ok(());
            }
        }
        self.tally.fault(fault.name());
        self.watch.healed(fault.name());
        Ok(())
    }

    async fn fail_over(&self, servers: &mut Servers, behind: Duration) -> Result<()> {
        servers.make_standby().await?;
        self.watch.failovers.fetch_add(1, Ordering::SeqCst);
        servers.fail_over(behind).await?;
        let pool = servers.pool(&self.deployment.database)?;
        self.watch.pool.send_replace(pool);
        self.watch.failovers.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

fn proxy(servers: &Servers, server: Server) -> &super::proxy::Proxy {
    match server {
        Server::Kafka => &servers.kafka_proxy,
        Server::Postgres => &servers.postgres_proxy,
    }
}
