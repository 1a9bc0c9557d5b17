//! Who writes next: at most `ingest.writers` batches are written at once, and where more wait, the
//! partition goes first that has had least of the writers' time. A partition whose batches cost much
//! (records that the database refuses one by one) so takes no more than its share of it from the
//! others, however much it has to write. Workers take turns; the watchdog asks whether one is free.
//!
//! Start-time fair queueing: a partition's time goes on from where its last turn ended, or from where
//! the partitions are that had turns meanwhile, if that is later: nobody saves up time by being idle.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// What is booked of a turn, at most: a database that hangs is not the partition's doing.
const BOOKED: Duration = Duration::from_secs(5);

/// The writers of the process.
#[derive(Debug)]
pub(crate) struct Turns {
    queue: Mutex<Queue<oneshot::Sender<Turn>>>,
}

/// What a partition has had of the writers' time.
#[derive(Debug, Default)]
pub(crate) struct Account(Arc<Mutex<Duration>>);

/// A place in line.
#[derive(Debug)]
pub(crate) struct Place(oneshot::Receiver<Turn>);

/// Leave to write, until it is dropped; its time is then booked.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    account: Arc<Mutex<Duration>>,
    from: Duration,
    began: Instant,
}

impl Turns {
    pub(crate) fn new(writers: usize) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::new(Queue {
                free: writers,
                now: Duration::ZERO,
                waiting: Vec::new(),
            }),
        })
    }

    /// Stands in line for a turn. Whoever drops the place takes none.
    pub(crate) fn line_up(self: &Arc<Self>, account: &Account) -> Place {
        let place = self.stand(&account.0);
        self.give();
        place
    }

    fn stand(self: &Arc<Self>, account: &Arc<Mutex<Duration>>) -> Place {
        let (sender, turn) = oneshot::channel();
        let had = *lock(account);
        lock(&self.queue).wait(had, Arc::clone(account), sender);
        Place(turn)
    }

    /// Whether a writer is free.
    pub(crate) fn is_free(&self) -> bool {
        lock(&self.queue).free > 0
    }

    /// Gives turns to those that wait, as long as there are writers.
    fn give(self: &Arc<Self>) {
        loop {
            let next = lock(&self.queue).next();
            let Some(Waiting { from, account, who }) = next else {
                return;
            };
            let turn = Turn {
                turns: Arc::clone(self),
                account,
                from,
                began: Instant::now(),
            };
            // One that nobody waits for any more comes back, and is given to the next.
            drop(who.send(turn));
        }
    }
}

impl Place {
    /// Waits for the turn.
    pub(crate) async fn turn(self) -> Turn {
        match self.0.await {
            Ok(turn) => turn,
            // What waits is dropped only with the queue, at the end of the process.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Turn {
    /// Ends it and stands in line again, where others wait: to be asked by a partition that has more to
    /// write. One that lined up only after it had gathered its next batch would find its turn given away,
    /// however little time it has had.
    pub(crate) fn again(self) -> Option<Place> {
        if lock(&self.turns.queue).waiting.is_empty() {
            return None;
        }
        self.book();
        Some(self.turns.stand(&self.account))
    }

    fn book(&self) {
        *lock(&self.account) = self.from + self.began.elapsed().min(BOOKED);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.book();
        lock(&self.turns.queue).free += 1;
        self.turns.give();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Who waits, and the writers that are free. Pure.
#[derive(Debug)]
struct Queue<W> {
    free: usize,
    /// Where the partition was that had the last turn.
    now: Duration,
    /// In the order in which they came.
    waiting: Vec<Waiting<W>>,
}

#[derive(Debug)]
struct Waiting<W> {
    from: Duration,
    account: Arc<Mutex<Duration>>,
    who: W,
}

impl<W> Queue<W> {
    /// One more waits, who had so much time.
    fn wait(&mut self, had: Duration, account: Arc<Mutex<Duration>>, who: W) {
        let from = had.max(self.now);
        self.waiting.push(Waiting { from, account, who });
    }

    /// Whose turn it is, if there is a writer: the one that had least, of equals the one that came first.
    fn next(&mut self) -> Option<Waiting<W>> {
        if self.free == 0 {
            return None;
        }
        let waiting = self.waiting.iter().enumerate();
        let (place, _) = waiting.min_by_key(|(_, waiting)| waiting.from)?;
        let next = self.waiting.remove(place);
        self.free -= 1;
        self.now = self.now.max(next.from);
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Partitions that always have something to write, and what a turn of each costs: the turns that
    /// each has had when they took so much time together.
    fn turns(writers: usize, costs: &[u64], milliseconds: u64) -> Vec<u64> {
        let mut queue = Queue {
            free: writers,
            now: Duration::ZERO,
            waiting: Vec::new(),
        };
        let mut had = vec![0; costs.len()];
        for who in 0..costs.len() {
            queue.wait(Duration::ZERO, Arc::default(), who);
        }
        // Turns under way: when each ends, whose it is, and where its partition is then.
        let mut busy: Vec<(u64, usize, Duration)> = Vec::new();
        let mut clock = 0;
        while clock < milliseconds {
            while let Some(next) = queue.next() {
                let cost = costs[next.who];
                had[next.who] += 1;
                let after = next.from + Duration::from_millis(cost);
                busy.push((clock + cost, next.who, after));
            }
            let (place, _) = busy.iter().enumerate().min_by_key(|(_, b)| b.0).unwrap();
            let (end, who, after) = busy.remove(place);
            clock = end;
            queue.free += 1;
            queue.wait(after, Arc::default(), who);
        }
        had
    }

    #[test]
    fn partitions_have_equal_time_whatever_their_turns_cost() {
        // One writer, and turns of 250 and 10 ms: 10 s are 5 s for each.
        let had = turns(1, &[250, 10], 10_000);
        assert!((19..=21).contains(&had[0]), "{had:?}");
        assert!((475..=525).contains(&had[1]), "{had:?}");
        // Two writers and four partitions: half a writer for each.
        let had = turns(2, &[200, 20, 20, 20], 10_000);
        assert!((23..=27).contains(&had[0]), "{had:?}");
        assert!(had[1..].iter().all(|n| (235..=265).contains(n)), "{had:?}");
    }

    #[test]
    fn equal_partitions_take_turns_in_the_order_in_which_they_came() {
        let mut queue = Queue {
            free: 1,
            now: Duration::ZERO,
            waiting: Vec::new(),
        };
        for who in 0..3 {
            queue.wait(Duration::ZERO, Arc::default(), who);
        }
        for who in 0..3 {
            assert_eq!(queue.next().unwrap().who, who);
            assert!(queue.next().is_none(), "one writer");
            queue.free += 1;
        }
        assert!(queue.next().is_none());
    }

    #[test]
    fn a_partition_that_was_idle_has_saved_no_time() {
        let mut queue = Queue {
            free: 1,
            now: Duration::from_secs(100),
            waiting: Vec::new(),
        };
        queue.wait(Duration::ZERO, Arc::default(), "idle until now");
        queue.wait(Duration::from_secs(101), Arc::default(), "busy");
        let next = queue.next().unwrap();
        assert_eq!(next.who, "idle until now");
        assert_eq!(next.from, Duration::from_secs(100));
    }

    #[tokio::test]
    async fn a_turn_that_nobody_waits_for_any_more_goes_to_the_next() {
        let turns = Turns::new(1);
        let accounts = [(); 3].map(|()| Account::default());
        let first = turns.line_up(&accounts[0]).turn().await;
        assert!(!turns.is_free());
        let given_up = turns.line_up(&accounts[1]);
        let waits = turns.line_up(&accounts[2]);
        drop(given_up);
        drop(first);
        let third = waits.turn().await;
        assert!(!turns.is_free());
        drop(third);
        assert!(turns.is_free());
        // Given, but never taken.
        let first = turns.line_up(&accounts[0]).turn().await;
        let given = turns.line_up(&accounts[1]);
        drop(first);
        assert!(!turns.is_free());
        drop(given);
        assert!(turns.is_free());
    }

    #[tokio::test]
    async fn the_time_of_a_turn_is_booked() {
        let turns = Turns::new(1);
        let (one, other) = (Account::default(), Account::default());
        let turn = turns.line_up(&one).turn().await;
        let began = turn.began;
        drop(turn);
        let had = *lock(&one.0);
        assert!(had > Duration::ZERO && had <= began.elapsed());
        assert_eq!(*lock(&other.0), Duration::ZERO);
    }

    #[tokio::test]
    async fn whoever_has_more_to_write_is_in_line_before_the_turn_is_given_away() {
        let turns = Turns::new(1);
        let (little, much) = (Account::default(), Account::default());
        *lock(&much.0) = Duration::from_secs(3600);
        let first = turns.line_up(&little).turn().await;
        assert!(first.again().is_none(), "nobody else waits");
        assert!(turns.is_free());
        let first = turns.line_up(&little).turn().await;
        let other = turns.line_up(&much);
        let second = first.again().unwrap().turn().await;
        assert!(lock(&turns.queue).waiting.len() == 1, "the other one waits");
        drop(second);
        let other = other.turn().await;
        // The hour that it had counts from now on for those that come.
        assert!(lock(&turns.queue).now >= Duration::from_secs(3600));
        drop(other);
    }
}
