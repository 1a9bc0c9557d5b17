//! The memory of records in the process's hands: one bound, from which every partition that is read
//! has an equal share. Workers take and give back; the poll thread asks whether to pause.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// While the process holds more than its bound (partitions came to it, so that the shares became
/// smaller than what some of them hold), a partition has this part of its share.
const CROWDED: usize = 4;

/// What the process may hold, and what it holds.
#[derive(Debug)]
pub(crate) struct Memory {
    bound: usize,
    held: AtomicUsize,
    sharers: AtomicUsize,
}

/// One partition's part. What it holds is given back when it goes.
#[derive(Debug)]
pub(crate) struct Share {
    memory: Arc<Memory>,
    held: AtomicUsize,
}

impl Memory {
    pub(crate) fn new(bound: usize) -> Arc<Self> {
        Arc::new(Self {
            bound,
            held: AtomicUsize::new(0),
            sharers: AtomicUsize::new(0),
        })
    }

    /// One more partition that is read.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        self.sharers.fetch_add(1, Ordering::Relaxed);
        Share {
            memory: Arc::clone(self),
            held: AtomicUsize::new(0),
        }
    }

    /// The partitions that are read; 1 at least.
    pub(crate) fn sharers(&self) -> usize {
        self.sharers.load(Ordering::Relaxed).max(1)
    }
}

impl Share {
    pub(crate) fn take(&self, bytes: usize) {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        self.memory.held.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
        self.memory.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether the partition has to be paused.
    pub(crate) fn is_full(&self) -> bool {
        is_full(self.held(), self.limit())
    }

    /// Whether a paused partition may be read again: half of what filled it is gone, so that it is not
    /// paused and resumed for every record.
    pub(crate) fn has_room(&self) -> bool {
        has_room(self.held(), self.limit())
    }

    fn limit(&self) -> usize {
        let Memory { bound, held, .. } = &*self.memory;
        limit(*bound, held.load(Ordering::Relaxed), self.memory.sharers())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.give_back(self.held());
        self.memory.sharers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What one partition may hold.
fn limit(bound: usize, held_by_all: usize, sharers: usize) -> usize {
    let share = bound / sharers;
    if held_by_all > bound {
        share / CROWDED
    } else {
        share
    }
}

/// A record at least always passes.
fn is_full(held: usize, limit: usize) -> bool {
    held > 0 && held >= limit
}

fn has_room(held: usize, limit: usize) -> bool {
    held <= limit / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: usize = 10;

    /// Takes records until the partition would be paused, as the poll thread does.
    fn fill(share: &Share) {
        while !share.is_full() {
            share.take(RECORD);
        }
    }

    #[test]
    fn partitions_that_are_stuck_together_hold_the_bound_and_a_record_each() {
        for partitions in [1, 2, 7, 200] {
            let memory = Memory::new(10_000);
            let shares: Vec<_> = (0..partitions).map(|_| memory.share()).collect();
            shares.iter().for_each(fill);
            let held = memory.held.load(Ordering::Relaxed);
            assert!(held <= 10_000 + partitions * RECORD, "{partitions}: {held}");
            let least = shares.iter().map(Share::held).min();
            assert!(least >= Some(10_000 / partitions), "{least:?}");
        }
    }

    #[test]
    fn a_stuck_partition_leaves_the_others_their_shares() {
        let memory = Memory::new(1_000);
        let (stuck, other) = (memory.share(), memory.share());
        fill(&stuck);
        assert_eq!((stuck.held(), other.held()), (500, 0));
        fill(&other);
        assert_eq!(other.held(), 500);
        other.give_back(200);
        assert!(!other.has_room());
        other.give_back(50);
        assert!(other.has_room());
        assert!(!stuck.has_room());
    }

    #[test]
    fn partitions_that_come_to_a_full_process_get_a_part_of_their_share() {
        let memory = Memory::new(1_000);
        let first = memory.share();
        fill(&first);
        first.take(RECORD);
        let late: Vec<_> = (0..9).map(|_| memory.share()).collect();
        late.iter().for_each(fill);
        assert!(late.iter().all(|share| share.held() == 30), "{late:?}");
        // And the rest of it as soon as there is room.
        first.give_back(900);
        late.iter().for_each(fill);
        assert!(late.iter().all(|share| share.held() == 100), "{late:?}");
    }

    #[test]
    fn a_record_passes_however_small_the_bound() {
        let memory = Memory::new(1);
        let shares = [memory.share(), memory.share()];
        shares.iter().for_each(fill);
        assert!(shares.iter().all(|share| share.held() == RECORD));
        shares[0].give_back(RECORD);
        assert!(shares[0].has_room());
    }

    #[test]
    fn a_partition_that_goes_gives_everything_back() {
        let memory = Memory::new(1_000);
        let (gone, left) = (memory.share(), memory.share());
        fill(&gone);
        drop(gone);
        assert_eq!(memory.held.load(Ordering::Relaxed), 0);
        fill(&left);
        assert_eq!(left.held(), 1_000);
    }
}
