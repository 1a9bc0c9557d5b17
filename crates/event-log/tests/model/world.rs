//! Plays steps on the log and on the reference, and compares what they answer.

use std::ops::Range;
use std::pin::pin;

use chrono::{DateTime, Utc};
use event_log::stream::{self, Claimant};
use event_log::{AppendError, Appended, Batch, Claim, FaultClass, Outcome, Record, StreamWriter};
use sqlx::PgPool;

use crate::comparison;
use crate::ground::Ground;
use crate::reference::{Ledger, Reference, StreamName};
use crate::steps::{Fault, Maker, PARTITIONS, Slot, Step, Then};
use crate::support::database::claimant;
use crate::support::interrupt::interrupt;

/// Every partition starts here.
const BASE: i64 = 1_000;
struct Partition {
    /// What Kafka holds, from [`BASE`] on.
    slots: Vec<Option<Record>>,
    generation: i32,
    claim: Claim,
    writer: StreamWriter,
    /// The writer before the last claim.
    zombie: Option<StreamWriter>,
    /// The last batch committed under this claim, where its outcomes are known.
    last: Option<(Range<i64>, Vec<Outcome>)>,
    last_persisted_at: DateTime<Utc>,
}

/// One case: a topic and tenants of its own.
pub struct World<'g> {
    pub ground: &'g Ground,
    pub topic: String,
    pub reference: Reference,
    maker: Maker,
    partitions: Vec<Partition>,
}

impl<'g> World<'g> {
    pub async fn play(ground: &'g Ground, steps: &[Step]) {
        let maker = Maker::new();
        let mut world = Self {
            ground,
            topic: format!("topic-{}", maker.case),
            reference: Reference::default(),
            maker,
            partitions: Vec::new(),
        };
        for n in 0..PARTITIONS {
            let partition = world.open(n).await;
            world.partitions.push(partition);
        }
        for step in steps {
            world.step(step).await;
        }
        // What a rewind or an interruption left unread.
        for n in 0..PARTITIONS {
            let range = world.next(n)..BASE + world.partitions[n].slots.len() as i64;
            world.append(n, range, None, Then::Retry).await;
        }
        comparison::compare(&world).await;
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Append {
                partition,
                slots,
                fault,
                then,
            } => {
                let range = self.produce(*partition, slots);
                self.append(*partition, range, *fault, *then).await;
            }
            Step::Race { spared, slots } => self.race(*spared, slots).await,
            Step::Claim { partition } => self.reclaim(*partition).await,
            Step::Zombie { partition } => self.zombie(*partition).await,
            Step::Again { partition, cold } => self.again(*partition, *cold).await,
            Step::Lost { partition, by } => self.lost(*partition, *by).await,
            Step::Rewind { partition, back } => self.rewind(*partition, *back).await,
        }
    }

    async fn open(&mut self, n: usize) -> Partition {
        let who = self.who();
        let database = &self.ground.database.pool;
        stream::open(database, &who, &self.topic, n as i32, BASE)
            .await
            .unwrap();
        let claim = stream::claim(database, &who, &self.topic, n as i32)
            .await
            .unwrap()
            .unwrap();
        self.reference
            .ledger
            .insert((n as i32, 1), Ledger::starting_at(BASE));
        Partition {
            slots: Vec::new(),
            generation: 1,
            writer: StreamWriter::new(claim.clone()),
            claim,
            zombie: None,
            last: None,
            last_persisted_at: DateTime::UNIX_EPOCH,
        }
    }

    fn who(&self) -> Claimant {
        claimant(&self.maker.case)
    }

    fn name(&self, n: usize) -> StreamName {
        (n as i32, self.partitions[n].generation)
    }

    fn next(&self, n: usize) -> i64 {
        self.reference.ledger[&self.name(n)].next_offset
    }

    /// Lets the producer write, and returns as many offsets from the reader's place on.
    fn produce(&mut self, n: usize, slots: &[Slot]) -> Range<i64> {
        for slot in slots {
            let offset = BASE + self.partitions[n].slots.len() as i64;
            let record = self.maker.record(offset, slot);
            self.partitions[n].slots.push(record);
        }
        let next = self.next(n);
        next..next + slots.len() as i64
    }

    fn slots(&self, n: usize, range: &Range<i64>) -> &[Option<Record>] {
        &self.partitions[n].slots[(range.start - BASE) as usize..(range.end - BASE) as usize]
    }

    fn batch(&self, n: usize, range: &Range<i64>) -> Batch {
        let slots = self.slots(n, range);
        let records: Vec<Record> = slots.iter().flatten().cloned().collect();
        Batch {
            start: range.start,
            end: range.end,
            skipped: (slots.len() - records.len()) as i64,
            records,
        }
    }

    async fn append(&mut self, n: usize, range: Range<i64>, fault: Option<Fault>, then: Then) {
        let batch = self.batch(n, &range);
        let mut result = self.interrupted(n, &batch, fault).await;
        if let Some(Err(error)) = &result {
            assert_interrupted(error, fault);
        }
        if !matches!(result, Some(Ok(_))) {
            self.ground.saw("interrupted");
            if matches!(then, Then::Claim) {
                self.reclaim(n).await;
                let next = self.partitions[n].claim.next_offset;
                assert!(
                    next == range.start || next == range.end,
                    "{next} cuts {range:?}"
                );
                if next == range.end {
                    self.ground.saw("committed all the same");
                    self.settle(n, range, None).await;
                }
                return;
            }
            let again = self.partitions[n]
                .writer
                .append(&self.ground.writers, &batch);
            result = Some(again.await);
        }
        let appended = result.unwrap().unwrap();
        let persisted_at = appended.persisted_at;
        self.settle(n, range.clone(), Some(appended.outcomes)).await;
        if fault.is_none() && !range.is_empty() {
            assert_eq!(persisted_at, self.partitions[n].last_persisted_at);
        }
    }

    /// Appends with a fault. `None` where the caller never learns what happened.
    async fn interrupted(
        &mut self,
        n: usize,
        batch: &Batch,
        fault: Option<Fault>,
    ) -> Option<Result<Appended, AppendError>> {
        let ground = self.ground;
        let append = self.partitions[n].writer.append(&ground.writers, batch);
        match fault {
            None => Some(append.await),
            Some(Fault::Dropped(waits)) => interrupt(append, waits).await.ok(),
            Some(Fault::Killed(waits)) => {
                let mut append = pin!(append);
                match interrupt(append.as_mut(), waits).await {
                    Ok(result) => Some(result),
                    Err(_) => {
                        ground.kill_writers().await;
                        Some(append.await)
                    }
                }
            }
            Some(Fault::Network(cut)) => {
                ground.proxy.cut_next_commit(cut);
                let result = append.await;
                ground.proxy.disarm();
                Some(result)
            }
        }
    }

    /// The reference takes a batch that the log has committed.
    async fn settle(&mut self, n: usize, range: Range<i64>, outcomes: Option<Vec<Outcome>>) {
        let persisted_at = self.persisted_at(n, &range).await;
        let slots = self.slots(n, &range).to_vec();
        let expected = self.reference.append(self.name(n), &slots, persisted_at);
        if let Some(outcomes) = &outcomes {
            assert_eq!(outcomes, &expected, "partition {n}, offsets {range:?}");
        }
        for outcome in &expected {
            self.ground.saw(match outcome {
                Outcome::Appended { .. } => "appended",
                Outcome::Duplicate(_) => "duplicate",
                Outcome::Conflict(_) => "conflict",
                Outcome::DeadLetter(reason) => reason.as_str(),
            });
        }
        let partition = &mut self.partitions[n];
        partition.last = Some((range, expected));
        partition.last_persisted_at = persisted_at;
    }

    /// When the log persisted a batch: the one thing that the reference has to be told.
    async fn persisted_at(&self, n: usize, range: &Range<i64>) -> DateTime<Utc> {
        let stream_id = self.partitions[n].claim.stream_id;
        let (last, rows): (Option<DateTime<Utc>>, Vec<DateTime<Utc>>) = sqlx::query_as(
            "SELECT last_persisted_at, ARRAY(
               SELECT persisted_at FROM event_log.event
               WHERE stream_id = $1 AND source_offset >= $2 AND source_offset < $3
               UNION
               SELECT received_at FROM event_log.dead_letter
               WHERE stream_id = $1 AND source_offset >= $2 AND source_offset < $3)
             FROM event_log.stream WHERE stream_id = $1",
        )
        .bind(stream_id)
        .bind(range.start)
        .bind(range.end)
        .fetch_one(&self.ground.database.pool)
        .await
        .unwrap();
        let last = last.unwrap_or_default();
        assert!(
            rows.iter().all(|at| *at == last),
            "a batch has one time: {rows:?}, {last}"
        );
        assert!(range.is_empty() || last >= self.partitions[n].last_persisted_at);
        last
    }

    async fn race(&mut self, spared: usize, slots: &[Vec<Slot>; 2]) {
        let [one, other]: [usize; 2] = (0..PARTITIONS)
            .filter(|n| *n != spared)
            .collect::<Vec<_>>()
            .try_into()
            .unwrap();
        let ranges = [self.produce(one, &slots[0]), self.produce(other, &slots[1])];
        let batches = [self.batch(one, &ranges[0]), self.batch(other, &ranges[1])];
        let pool = &self.ground.writers;
        let (front, back) = self.partitions.split_at_mut(other);
        let (first, second) = (&mut front[one].writer, &mut back[0].writer);
        let (first, second) = tokio::join!(
            stubborn(first, pool, &batches[0]),
            stubborn(second, pool, &batches[1])
        );
        // Either could have been first: the reference must explain what happened in one order.
        let at = [
            self.persisted_at(one, &ranges[0]).await,
            self.persisted_at(other, &ranges[1]).await,
        ];
        let explained = |in_order: bool| {
            let mut reference = self.reference.clone();
            let mut take =
                |i: usize, n| reference.append(self.name(n), self.slots(n, &ranges[i]), at[i]);
            let expected = if in_order {
                let first = take(0, one);
                (first, take(1, other))
            } else {
                let second = take(1, other);
                (take(0, one), second)
            };
            expected == (first.clone(), second.clone())
        };
        let in_order = explained(true);
        assert!(
            in_order || explained(false),
            "no order of the two explains {first:?} and {second:?}"
        );
        let [a, b] = ranges;
        let mut both = [(one, a, first), (other, b, second)];
        if !in_order {
            self.ground.saw("race won by the second");
            both.reverse();
        }
        for (n, range, outcomes) in both {
            self.settle(n, range, Some(outcomes)).await;
        }
    }

    async fn reclaim(&mut self, n: usize) {
        let claim = stream::claim(
            &self.ground.database.pool,
            &self.who(),
            &self.topic,
            n as i32,
        )
        .await
        .unwrap()
        .unwrap();
        let partition = &mut self.partitions[n];
        assert_eq!(claim.generation, partition.generation);
        let writer = StreamWriter::new(claim.clone());
        partition.claim = claim;
        partition.zombie = Some(std::mem::replace(&mut partition.writer, writer));
        partition.last = None;
    }

    async fn zombie(&mut self, n: usize) {
        let next = self.next(n);
        let end = BASE + self.partitions[n].slots.len() as i64;
        let batch = self.batch(n, &(next..end.min(next + 3)));
        if let Some(zombie) = &mut self.partitions[n].zombie {
            let result = zombie.append(&self.ground.writers, &batch).await;
            assert!(matches!(result, Err(AppendError::Fenced)), "{result:?}");
            self.ground.saw("fenced");
        }
    }

    async fn again(&mut self, n: usize, cold: bool) {
        let Some((range, outcomes)) = self.partitions[n].last.clone() else {
            return;
        };
        if range.is_empty() {
            return;
        }
        let batch = self.batch(n, &range);
        let partition = &mut self.partitions[n];
        if cold {
            partition.writer = StreamWriter::new(partition.claim.clone());
        }
        let appended = partition.writer.append(&self.ground.writers, &batch).await;
        assert_eq!(
            appended.unwrap().outcomes,
            outcomes,
            "the second answer differs"
        );
        self.ground.saw("answered again");
    }

    async fn lost(&mut self, n: usize, by: i64) {
        let stored = self.next(n);
        // One offset back would be the batch before.
        let start = stored + if by < 0 { by - 1 } else { by };
        let batch = Batch {
            start,
            end: start + 1,
            skipped: 1,
            records: Vec::new(),
        };
        let result = self.partitions[n]
            .writer
            .append(&self.ground.writers, &batch)
            .await;
        match result {
            // What lies behind the stored offset was committed under this claim, or before it.
            Ok(appended) if by < 0 => assert!(appended.outcomes.is_empty()),
            Err(AppendError::Moved {
                stored: s,
                start: b,
            }) if by > 0 => assert_eq!((s, b), (stored, start)),
            other => panic!("a batch at {start} where {stored} is stored: {other:?}"),
        }
    }

    async fn rewind(&mut self, n: usize, back: usize) {
        let start = (self.next(n) - back as i64).max(BASE);
        let old = self.name(n);
        let new = (old.0, old.1 + 1);
        let mut transaction = self.ground.database.pool.begin().await.unwrap();
        let closed: String = sqlx::query_scalar(
            "UPDATE event_log.stream SET closed_at = clock_timestamp()
             WHERE stream_id = $1 RETURNING group_id",
        )
        .bind(self.partitions[n].claim.stream_id)
        .fetch_one(&mut *transaction)
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO event_log.stream (topic, partition, generation, group_id, start_offset, next_offset)
             VALUES ($1, $2, $3, $4, $5, $5)",
        )
        .bind(&self.topic)
        .bind(new.0)
        .bind(new.1)
        .bind(closed)
        .bind(start)
        .execute(&mut *transaction)
        .await
        .unwrap();
        transaction.commit().await.unwrap();
        self.reference.ledger.get_mut(&old).unwrap().closed = true;
        self.reference
            .ledger
            .insert(new, Ledger::starting_at(start));
        self.partitions[n].generation += 1;
        self.reclaim(n).await;
        self.partitions[n].last_persisted_at = DateTime::UNIX_EPOCH;
        self.ground.saw("rewound");
    }
}

fn assert_interrupted(error: &AppendError, fault: Option<Fault>) {
    let lost = matches!(
        error,
        AppendError::Fault {
            class: FaultClass::Environment,
            ..
        }
    );
    assert!(lost && fault.is_some(), "{fault:?} made {error:?}");
}

/// Appends until it is appended: two that race may meet in a deadlock.
async fn stubborn(writer: &mut StreamWriter, pool: &PgPool, batch: &Batch) -> Vec<Outcome> {
    for _ in 0..10 {
        match writer.append(pool, batch).await {
            Ok(appended) => return appended.outcomes,
            Err(error) => assert!(
                matches!(
                    error,
                    AppendError::Fault {
                        class: FaultClass::Environment,
                        ..
                    }
                ),
                "{error:?}"
            ),
        }
    }
    panic!("ten tries, and the batch is not appended");
}
