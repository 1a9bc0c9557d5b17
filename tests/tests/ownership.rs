//! Who owns a partition: several ingest processes in one group, by each of Kafka's group protocols;
//! processes that die, come, go and stand still at the worst moment; partitions that are added; a
//! database that goes back. Afterwards everything is compared with the oracle.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use runlog_tests::environment::{run_to_end, said};
use runlog_tests::generator::{Intent, Record, generate};
use runlog_tests::oracle::Produced;
use runlog_tests::{Pipeline, Process, wait_until};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

const SOON: Duration = Duration::from_secs(60);

/// The configurations of the group protocols; a member that died is let go of after 6 s.
const EAGER: &str = "[kafka.properties]
\"partition.assignment.strategy\" = \"range\"
\"session.timeout.ms\" = 6000
\"heartbeat.interval.ms\" = 1000
";
const COOPERATIVE: &str = "[kafka.properties]
\"session.timeout.ms\" = 6000
\"heartbeat.interval.ms\" = 1000
";
const KIP_848: &str = "[kafka.properties]
\"group.protocol\" = \"consumer\"
";

/// The first of the generator's records, which makes more where fewer would lack a kind.
fn records(seed: u64, count: usize, partitions: i32) -> Vec<Record> {
    let mut records = generate(seed, count, partitions);
    records.truncate(count);
    records
}

/// Records that are sent as they are needed, so that some always flow however long a step takes.
struct Feed {
    records: std::vec::IntoIter<Record>,
    produced: Vec<Produced>,
}

impl Feed {
    fn new(seed: u64, partitions: i32) -> Self {
        Self {
            records: records(seed, 2_500, partitions).into_iter(),
            produced: Vec::new(),
        }
    }

    /// Sends records, and waits until the log has taken some of them; others are on their way.
    async fn flows(&mut self, pipeline: &Pipeline) {
        let before = pipeline.progress().await.unwrap().stored;
        let next: Vec<Record> = self.records.by_ref().take(400).collect();
        assert_eq!(next.len(), 400, "make more records");
        self.produced
            .extend(pipeline.topic.send(&next).await.unwrap());
        wait_until("records to flow", SOON, async || {
            let stored = pipeline.progress().await?.stored;
            ensure!(stored > before, "{stored}, {before} before");
            Ok(())
        })
        .await
        .unwrap();
    }
}

fn ingest(pipeline: &Pipeline, settings: &[(&str, &str)]) -> Process {
    let mut program = pipeline.program("runlog-ingest");
    program.envs(settings.iter().copied());
    Process::spawn(&pipeline.environment, "runlog-ingest", program).unwrap()
}

/// Waits until these processes own partitions, and nobody else does.
async fn owned_by(pipeline: &Pipeline, processes: &[&Process]) {
    let mut expected: Vec<String> = processes.iter().map(|p| p.id().to_string()).collect();
    expected.sort();
    wait_until(&format!("{expected:?} to own all"), SOON, async || {
        let owners: Vec<Option<String>> = sqlx::query_scalar(
            "SELECT DISTINCT split_part(owner, ':', 2) AS pid FROM event_log.streams
             WHERE closed_at IS NULL ORDER BY pid",
        )
        .fetch_all(&pipeline.database.pool)
        .await?;
        let owners: Vec<String> = owners.into_iter().flatten().collect();
        ensure!(owners == expected, "{owners:?}");
        Ok(())
    })
    .await
    .unwrap();
}

async fn ends_well(process: Process) {
    assert_eq!(process.terminate().await.unwrap().code(), Some(0));
}

/// One process, a second one, the first one killed, a third one, the second one stopped; and a claim
/// that is lost and made again.
async fn processes_die_come_and_go(protocol: &str, seed: u64) {
    let pipeline = Pipeline::fresh(4).await.unwrap();
    pipeline.configure(protocol).unwrap();
    let mut feed = Feed::new(seed, 4);
    let mut first = ingest(&pipeline, &[]);
    first.wait_ready().await.unwrap();
    feed.flows(&pipeline).await;
    let second = ingest(&pipeline, &[]);
    owned_by(&pipeline, &[&first, &second]).await;
    feed.flows(&pipeline).await;
    first.kill9().unwrap();
    owned_by(&pipeline, &[&second]).await;
    feed.flows(&pipeline).await;
    let third = ingest(&pipeline, &[]);
    owned_by(&pipeline, &[&second, &third]).await;
    feed.flows(&pipeline).await;
    ends_well(second).await;
    owned_by(&pipeline, &[&third]).await;
    let steal = "UPDATE event_log.stream SET claim = gen_random_uuid()";
    pipeline.database.pool.execute(steal).await.unwrap();
    feed.flows(&pipeline).await;
    pipeline.assert_as_sent(&feed.produced).await.unwrap();
    assert!(
        third
            .written()
            .unwrap()
            .contains("another process has claimed it")
    );
    ends_well(third).await;
}

#[tokio::test]
async fn processes_die_come_and_go_with_the_eager_protocol() {
    processes_die_come_and_go(EAGER, 90).await;
}

#[tokio::test]
async fn processes_die_come_and_go_with_the_cooperative_protocol() {
    processes_die_come_and_go(COOPERATIVE, 92).await;
}

#[tokio::test]
async fn processes_die_come_and_go_with_the_new_protocol() {
    processes_die_come_and_go(KIP_848, 94).await;
}

/// The claims of all partitions: who asks for one gets another token.
async fn claims(pipeline: &Pipeline) -> BTreeMap<i32, (String, String)> {
    let rows: Vec<(i32, String, String)> = sqlx::query_as(
        "SELECT partition, owner, claim::text FROM event_log.stream WHERE closed_at IS NULL",
    )
    .fetch_all(&pipeline.database.pool)
    .await
    .unwrap();
    rows.into_iter()
        .map(|(partition, owner, claim)| (partition, (owner, claim)))
        .collect()
}

const INSTANCE: &str = "RUNLOG_KAFKA__PROPERTIES__GROUP_INSTANCE_ID";

/// A static member that is restarted gets its partitions back, and nobody else is asked.
async fn a_static_member_is_restarted(protocol: &str, seed: u64) {
    let pipeline = Pipeline::fresh(4).await.unwrap();
    // Much longer than a restart takes.
    let protocol = protocol.replace("6000", "30000");
    pipeline.configure(&protocol).unwrap();
    let mut restarted = ingest(&pipeline, &[(INSTANCE, "one")]);
    restarted.wait_ready().await.unwrap();
    let stays = ingest(&pipeline, &[(INSTANCE, "two")]);
    owned_by(&pipeline, &[&restarted, &stays]).await;
    let mut produced = pipeline.topic.send(&records(seed, 200, 4)).await.unwrap();
    pipeline.wait_ingested(SOON).await.unwrap();
    let before = claims(&pipeline).await;
    let of = |process: &Process, claims: &BTreeMap<i32, (String, String)>| {
        let ends = format!(":{}", process.id());
        let mine = claims
            .iter()
            .filter(|(_, (owner, _))| owner.ends_with(&ends));
        mine.map(|(partition, (_, claim))| (*partition, claim.clone()))
            .collect::<BTreeMap<_, _>>()
    };
    let (restarts, stay) = (of(&restarted, &before), of(&stays, &before));
    ends_well(restarted).await;
    restarted = ingest(&pipeline, &[(INSTANCE, "one")]);
    produced.extend(
        pipeline
            .topic
            .send(&records(seed + 1, 200, 4))
            .await
            .unwrap(),
    );
    pipeline.assert_as_sent(&produced).await.unwrap();
    let after = claims(&pipeline).await;
    assert_eq!(of(&stays, &after), stay, "not even claimed again");
    let again = of(&restarted, &after);
    assert!(
        again.keys().eq(restarts.keys()),
        "{again:?}, {restarts:?} before"
    );
    ends_well(stays).await;
    ends_well(restarted).await;
}

#[tokio::test]
async fn a_static_member_that_is_restarted_keeps_its_partitions() {
    a_static_member_is_restarted(COOPERATIVE, 96).await;
}

#[tokio::test]
async fn a_static_member_that_is_restarted_keeps_its_partitions_with_the_new_protocol() {
    a_static_member_is_restarted(KIP_848, 98).await;
}

#[tokio::test]
async fn a_static_member_that_was_killed_takes_part_again_with_the_new_protocol() {
    let pipeline = Pipeline::fresh(2).await.unwrap();
    pipeline.configure(KIP_848).unwrap();
    let mut killed = ingest(&pipeline, &[(INSTANCE, "one")]);
    killed.wait_ready().await.unwrap();
    let mut produced = pipeline.topic.send(&records(102, 200, 2)).await.unwrap();
    pipeline.wait_ingested(SOON).await.unwrap();
    killed.kill9().unwrap();
    // The broker keeps the name for the dead member until its session ends.
    let mut again = ingest(&pipeline, &[(INSTANCE, "one")]);
    produced.extend(pipeline.topic.send(&records(103, 200, 2)).await.unwrap());
    pipeline.assert_as_sent(&produced).await.unwrap();
    again.wait_ready().await.unwrap();
    ends_well(again).await;
}

#[tokio::test]
async fn of_two_processes_with_one_instance_id_one_ends_and_says_why() {
    // The classic protocol fences the older one, the new protocol refuses the newer one.
    for (protocol, ends) in [(COOPERATIVE, 0), (KIP_848, 1)] {
        let pipeline = Pipeline::fresh(2).await.unwrap();
        pipeline.configure(protocol).unwrap();
        let mut first = ingest(&pipeline, &[(INSTANCE, "same")]);
        first.wait_ready().await.unwrap();
        let mut produced = pipeline.topic.send(&records(100, 200, 2)).await.unwrap();
        pipeline.wait_ingested(SOON).await.unwrap();
        let mut processes = vec![first, ingest(&pipeline, &[(INSTANCE, "same")])];
        let mut ended = processes.remove(ends);
        // A name that is taken may be one's own from before a kill: it is asked for for 90 s.
        assert_eq!(ended.wait_exit(SOON * 3).await.unwrap().code(), Some(1));
        let words = ended.written().unwrap();
        assert!(
            words.contains("group.instance.id \"same\"")
                && words.contains("give each process its own"),
            "{words}"
        );
        produced.extend(pipeline.topic.send(&records(101, 200, 2)).await.unwrap());
        pipeline.assert_as_sent(&produced).await.unwrap();
        ends_well(processes.remove(0)).await;
    }
}

#[tokio::test]
async fn partitions_that_are_added_are_read_and_runs_that_move_keep_one_sequence() {
    let pipeline = Pipeline::fresh(2).await.unwrap();
    let often = [(
        "RUNLOG_KAFKA__PROPERTIES__TOPIC_METADATA_REFRESH_INTERVAL_MS",
        "500",
    )];
    let mut ingest = ingest(&pipeline, &often);
    ingest.wait_ready().await.unwrap();
    let appended =
        |record: &Record| record.intent == Intent::Append && record.content_type.is_none();
    let all: Vec<Record> = records(102, 1_200, 1)
        .into_iter()
        .filter(appended)
        .collect();
    let (before, after) = all.split_at(all.len() / 2);
    pipeline.topic.send(before).await.unwrap();
    pipeline.wait_ingested(SOON).await.unwrap();
    pipeline.topic.grow_to(4).await.unwrap();
    let topic = pipeline.topic.with_own_producer().unwrap();
    topic.learn_partitions(4).await.unwrap();
    // What comes now of the same runs stands in a partition that is new.
    let mut moved = after.to_vec();
    moved.iter_mut().for_each(|record| record.partition = 3);
    topic.send(&moved).await.unwrap();
    let wanted = i64::try_from(all.len()).unwrap();
    wait_until("the new partition to be read", SOON, async || {
        let stored = pipeline.progress().await?.stored;
        ensure!(stored == wanted, "{stored} of {wanted}");
        Ok(())
    })
    .await
    .unwrap();
    let row: (i64, i64, i64, i64) = sqlx::query_as(
        "WITH runs AS (
           SELECT tenant_id, run_id, min(run_seq) AS low, max(run_seq) AS high, count(*) AS events,
                  count(DISTINCT partition) AS partitions,
                  max(run_seq) FILTER (WHERE partition = 0) < min(run_seq) FILTER (WHERE partition = 3) AS in_order
           FROM event_log.run_events GROUP BY tenant_id, run_id)
         SELECT sum(events)::bigint, count(*) FILTER (WHERE low <> 1 OR high <> events),
                count(*) FILTER (WHERE partitions = 2), count(*) FILTER (WHERE NOT in_order)
         FROM runs",
    )
    .fetch_one(&pipeline.database.pool)
    .await
    .unwrap();
    let (events, holes, moved, disordered) = row;
    assert_eq!((events, holes, disordered), (wanted, 0, 0), "{row:?}");
    assert!(moved > 10, "{moved} runs moved");
    ends_well(ingest).await;
}

#[tokio::test]
async fn partitions_added_while_the_leader_of_static_members_was_away_are_read() {
    let mut pipeline = Pipeline::fresh(2).await.unwrap();
    pipeline
        .configure(&COOPERATIVE.replace("6000", "45000"))
        .unwrap();
    let member = |pipeline: &Pipeline, name| {
        let often = "RUNLOG_KAFKA__PROPERTIES__TOPIC_METADATA_REFRESH_INTERVAL_MS";
        ingest(pipeline, &[(INSTANCE, name), (often, "500")])
    };
    let mut leader = member(&pipeline, "one");
    leader.wait_ready().await.unwrap();
    let other = member(&pipeline, "two");
    owned_by(&pipeline, &[&leader, &other]).await;
    let (before, after): (Vec<_>, Vec<_>) = records(104, 400, 4)
        .into_iter()
        .partition(|record| record.partition < 2);
    let mut produced = pipeline.topic.send(&before).await.unwrap();
    pipeline.wait_ingested(SOON).await.unwrap();

    leader.kill9().unwrap();
    pipeline.topic.grow_to(4).await.unwrap();
    // It gets back what it had, and is not told that it leads.
    let leader = member(&pipeline, "one");
    pipeline.topic = pipeline.topic.with_own_producer().unwrap();
    pipeline.topic.partitions = 4;
    pipeline.topic.learn_partitions(4).await.unwrap();
    produced.extend(pipeline.topic.send(&after).await.unwrap());
    wait_until("the new partitions to be claimed", SOON * 2, async || {
        let claims = claims(&pipeline).await;
        ensure!(claims.len() == 4, "{claims:?}");
        Ok(())
    })
    .await
    .unwrap();
    pipeline.assert_as_sent(&produced).await.unwrap();
    ends_well(leader).await;
    ends_well(other).await;
}

/// Holds claims back, before they come to the stream row, while the row of `hold` says so. Those that
/// are held wait for the lock 1.
const HOLD_CLAIMS: &str = "
    CREATE TABLE public.hold AS SELECT true AS held;
    GRANT SELECT ON public.hold TO runlog_ingest;
    CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF current_query() LIKE '%SET claim%' AND (SELECT held FROM public.hold) THEN
        PERFORM pg_advisory_xact_lock_shared(1);
      END IF;
      RETURN NULL;
    END $$;
    CREATE TRIGGER hold BEFORE UPDATE ON event_log.stream EXECUTE FUNCTION public.hold()";
/// The backends of the claims that are held.
const HELD_CLAIMS: &str = "FROM pg_stat_activity WHERE datname = current_database()
    AND wait_event = 'advisory' AND query LIKE '%UPDATE event_log.stream%SET claim%'";

/// Two processes, one of which stands still inside the group's callback, in the middle of its claims.
/// The other one has got its partitions back since, by claims of its own.
struct Standstill {
    pipeline: Pipeline,
    other: Process,
    still: Process,
    produced: Vec<Produced>,
    /// Holds the claims.
    holder: PgConnection,
}

async fn standstill(seed: u64) -> Standstill {
    let pipeline = Pipeline::fresh(4).await.unwrap();
    let mut other = ingest(&pipeline, &[]);
    other.wait_ready().await.unwrap();
    let mut produced = pipeline.topic.send(&records(seed, 200, 4)).await.unwrap();
    pipeline.wait_ingested(SOON).await.unwrap();
    let mut holder = PgConnection::connect(&pipeline.database.url).await.unwrap();
    holder.execute("SELECT pg_advisory_lock(1)").await.unwrap();
    sqlx::raw_sql(HOLD_CLAIMS)
        .execute(&mut holder)
        .await
        .unwrap();
    // The database waits for longer than the group does.
    let patient = [
        ("RUNLOG_DATABASE__LOCK_TIMEOUT", "2m"),
        ("RUNLOG_DATABASE__STATEMENT_TIMEOUT", "2m"),
    ];
    let still = ingest(&pipeline, &patient);
    wait_until("claims to be held", SOON, async || {
        let count = format!("SELECT count(*) {HELD_CLAIMS}");
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(count))
            .fetch_one(&pipeline.database.pool)
            .await?;
        ensure!(count > 0, "no claim waits");
        Ok(())
    })
    .await
    .unwrap();
    still.signal("STOP").unwrap();
    holder
        .execute("UPDATE public.hold SET held = false")
        .await
        .unwrap();
    // The group gives its partitions away after the session's 6 s.
    produced.extend(
        pipeline
            .topic
            .send(&records(seed + 1, 400, 4))
            .await
            .unwrap(),
    );
    pipeline.wait_ingested(SOON).await.unwrap();
    owned_by(&pipeline, &[&other]).await;
    Standstill {
        pipeline,
        other,
        still,
        produced,
        holder,
    }
}

impl Standstill {
    async fn send(&mut self, seed: u64) {
        let records = records(seed, 400, 4);
        self.produced
            .extend(self.pipeline.topic.send(&records).await.unwrap());
    }

    /// Lets the process go on. Whoever the group names reads in the end, and no partition is alone.
    async fn goes_on(mut self, seed: u64) {
        self.still.signal("CONT").unwrap();
        self.send(seed).await;
        owned_by(&self.pipeline, &[&self.other, &self.still]).await;
        self.still.wait_ready().await.unwrap();
        self.send(seed + 1).await;
        self.pipeline.assert_as_sent(&self.produced).await.unwrap();
        for mut process in [self.other, self.still] {
            process.wait_ready().await.unwrap();
            ends_well(process).await;
        }
    }
}

#[tokio::test]
async fn claims_that_are_made_too_late_leave_no_partition_alone() {
    let mut stands = standstill(104).await;
    // Its claims come behind those of the process that reads now, which is fenced and claims again.
    stands
        .holder
        .execute("SELECT pg_advisory_unlock(1)")
        .await
        .unwrap();
    owned_by(&stands.pipeline, &[&stands.other, &stands.still]).await;
    stands.send(106).await;
    stands.pipeline.wait_ingested(SOON).await.unwrap();
    owned_by(&stands.pipeline, &[&stands.other]).await;
    stands.goes_on(107).await;
}

#[tokio::test]
async fn claims_that_fail_behind_a_process_that_stands_still_leave_no_partition_alone() {
    let mut stands = standstill(109).await;
    let kill = format!("SELECT pg_terminate_backend(pid) {HELD_CLAIMS}");
    stands.holder.execute(AssertSqlSafe(kill)).await.unwrap();
    stands.goes_on(111).await;
}

/// Takes everybody off the database, and gives it back as `swap` left it. Ingest must stand still.
async fn alone_with_the_database(pipeline: &Pipeline, swap: &[&str]) {
    let name = pipeline.database.url.rsplit('/').next().unwrap();
    let name = name.split('?').next().unwrap();
    let mut admin = PgConnection::connect(&pipeline.environment.database_url)
        .await
        .unwrap();
    let mut statements = vec![format!(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{name}'"
    )];
    statements.extend(swap.iter().map(|statement| statement.replace("DB", name)));
    for statement in statements {
        admin.execute(AssertSqlSafe(statement)).await.unwrap();
    }
}

#[tokio::test]
async fn a_database_that_goes_back_under_a_running_process_is_filled_again_from_kafka() {
    let pipeline = Pipeline::fresh(2).await.unwrap();
    let mut ingest = ingest(&pipeline, &[]);
    ingest.wait_ready().await.unwrap();
    let mut produced = pipeline.topic.send(&records(112, 400, 2)).await.unwrap();
    pipeline.wait_ingested(SOON).await.unwrap();
    // The standby's state: what it lacks is committed on the primary afterwards.
    ingest.signal("STOP").unwrap();
    alone_with_the_database(
        &pipeline,
        &["CREATE DATABASE \"DB-standby\" TEMPLATE \"DB\""],
    )
    .await;
    ingest.signal("CONT").unwrap();
    produced.extend(pipeline.topic.send(&records(113, 400, 2)).await.unwrap());
    pipeline.wait_ingested(SOON).await.unwrap();
    ingest.signal("STOP").unwrap();
    alone_with_the_database(
        &pipeline,
        &[
            "DROP DATABASE \"DB\"",
            "ALTER DATABASE \"DB-standby\" RENAME TO \"DB\"",
        ],
    )
    .await;
    ingest.signal("CONT").unwrap();
    produced.extend(pipeline.topic.send(&records(114, 400, 2)).await.unwrap());
    pipeline.assert_as_sent(&produced).await.unwrap();
    let words = ingest.written().unwrap();
    assert!(words.contains("its stored offset is"), "{words}");
    ingest.wait_ready().await.unwrap();
    ends_well(ingest).await;
}

#[tokio::test]
async fn settings_that_do_not_go_together_exit_2_and_name_the_key() {
    let pipeline = Pipeline::fresh(1).await.unwrap();
    let session = format!("{KIP_848}\"session.timeout.ms\" = 6000\n");
    let poll =
        "[kafka.properties]\n\"max.poll.interval.ms\" = 20000\n\"session.timeout.ms\" = 6000\n";
    for (configuration, words) in [
        (
            session.as_str(),
            ["session.timeout.ms", "group.protocol = consumer"],
        ),
        (poll, ["max.poll.interval.ms", "ingest.drain_timeout"]),
        (
            "[kafka.properties]\n\"group.instance.id\" = \"one\"\n\
             \"partition.assignment.strategy\" = \"cooperative-sticky\"\n",
            ["partition.assignment.strategy", "without a reader"],
        ),
    ] {
        pipeline.configure(configuration).unwrap();
        let output = run_to_end(pipeline.program("runlog-ingest")).await.unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(words.iter().all(|word| text.contains(word)), "{text}");
    }
}
