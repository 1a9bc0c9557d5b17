//! What a writer remembers of the runs it wrote: enough to decide without reading.
//!
//! One cache belongs to one claim of one partition. It holds only committed facts: it changes after
//! a known commit, and any doubt drops it. A run that was met in the middle is known in part: keys
//! that are missing are looked up. It may be out of date (another partition wrote to the run): then a
//! unique constraint speaks, and the batch is decided again from the database.

use std::collections::HashMap;

use lru::LruCache;
use run_events::{Digest, IdempotencyKey};

use crate::record::Original;

/// What a key stands for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KnownKey {
    pub(crate) content: Digest,
    pub(crate) original: Original,
}

/// One run as far as it is known.
#[derive(Debug, Clone)]
pub(crate) struct KnownRun {
    pub(crate) run_no: i64,
    /// The last runSeq; 0 = no events.
    pub(crate) head_seq: i64,
    pub(crate) chain: Digest,
    pub(crate) keys: HashMap<IdempotencyKey, KnownKey>,
    /// Whether `keys` holds every key up to the head. Else a key that is not in it may be taken.
    pub(crate) is_whole: bool,
    /// Whether it was taken out of the log, for ever: it takes no event.
    pub(crate) is_retired: bool,
}

impl KnownRun {
    /// A run that has just been numbered.
    pub(crate) fn empty(run_no: i64) -> Self {
        Self {
            run_no,
            head_seq: 0,
            chain: Digest::CHAIN_START,
            keys: HashMap::new(),
            is_whole: true,
            is_retired: false,
        }
    }

    /// A run that was taken out of the log.
    pub(crate) fn retired(run_no: i64) -> Self {
        Self {
            is_retired: true,
            ..Self::empty(run_no)
        }
    }

    /// A run of which the last event is known, if it has any.
    pub(crate) fn with_head(run_no: i64, head: Option<(i64, Digest)>) -> Self {
        match head {
            None => Self::empty(run_no),
            Some((head_seq, chain)) => Self {
                head_seq,
                chain,
                is_whole: false,
                ..Self::empty(run_no)
            },
        }
    }
}

/// A run's name as one text: tenant and run, parted by U+0000, which neither can hold.
pub(crate) fn run_name(tenant_id: &str, run_id: &str) -> String {
    let mut name = String::with_capacity(tenant_id.len() + run_id.len() + 1);
    name.push_str(tenant_id);
    name.push('\0');
    name.push_str(run_id);
    name
}

/// Runs by name, the least recently used dropped first.
#[derive(Debug, Clone)]
pub(crate) struct RunCache {
    runs: LruCache<String, KnownRun>,
    /// Keys in all runs: what the memory goes with.
    keys: usize,
    max_keys: usize,
    /// One past the last offset of what it learned from.
    learned_to: i64,
}

impl RunCache {
    /// About 180 bytes each, so some 20 MB a partition at most.
    const MAX_KEYS: usize = 100_000;
    /// An entry without keys costs memory too: one is as much as so many keys.
    const KEYS_PER_RUN: usize = 5;

    pub(crate) fn new() -> Self {
        Self {
            runs: LruCache::unbounded(),
            keys: 0,
            max_keys: Self::MAX_KEYS,
            learned_to: i64::MIN,
        }
    }

    /// Holds at most so many keys from now on, and never more than [`Self::MAX_KEYS`].
    pub(crate) fn bound(&mut self, max_keys: usize) {
        self.max_keys = max_keys.min(Self::MAX_KEYS);
    }

    fn max_runs(&self) -> usize {
        self.max_keys / Self::KEYS_PER_RUN
    }

    pub(crate) fn clear(&mut self) {
        self.runs.clear();
        self.keys = 0;
        self.learned_to = i64::MIN;
    }

    /// One past the last offset of what it learned from; the least number where that is nothing.
    pub(crate) fn learned_to(&self) -> i64 {
        self.learned_to
    }

    pub(crate) fn note_learned_to(&mut self, end: i64) {
        self.learned_to = end;
    }

    /// Marks a run as just used; whether it is known.
    pub(crate) fn touch(&mut self, name: &str) -> bool {
        self.runs.get(name).is_some()
    }

    /// Everything that is known, in no order: for the model of the protocol.
    #[cfg(test)]
    pub(crate) fn runs(&self) -> impl Iterator<Item = (&String, &KnownRun)> {
        self.runs.iter()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&KnownRun> {
        self.runs.peek(name)
    }

    pub(crate) fn forget(&mut self, name: &str) {
        if let Some(run) = self.runs.pop(name) {
            self.keys -= run.keys.len();
        }
    }

    pub(crate) fn insert(&mut self, name: String, run: KnownRun) {
        self.keys += run.keys.len();
        if let Some(replaced) = self.runs.put(name, run) {
            self.keys -= replaced.keys.len();
        }
    }

    /// Records what a committed batch added to a known run.
    pub(crate) fn advance(
        &mut self,
        name: &str,
        head_seq: i64,
        chain: Digest,
        new_keys: HashMap<IdempotencyKey, KnownKey>,
    ) {
        if let Some(run) = self.runs.get_mut(name) {
            self.keys -= run.keys.len();
            run.head_seq = head_seq;
            run.chain = chain;
            run.keys.extend(new_keys);
            self.keys += run.keys.len();
        }
    }

    /// Drops the least recently used runs until the bounds hold.
    pub(crate) fn shrink(&mut self) {
        while self.keys > self.max_keys || self.runs.len() > self.max_runs() {
            match self.runs.pop_lru() {
                Some((_, run)) => self.keys -= run.keys.len(),
                None => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_run_goes_first() {
        let mut cache = RunCache::new();
        for n in 0..=cache.max_runs() as i64 {
            cache.insert(n.to_string(), KnownRun::empty(n));
        }
        assert!(cache.touch("0"));
        cache.shrink();
        assert!(cache.get("0").is_some());
        assert!(cache.get("1").is_none());
    }

    #[test]
    fn a_smaller_bound_holds_from_the_next_time_on() {
        let mut cache = RunCache::new();
        for n in 0..100 {
            cache.insert(n.to_string(), KnownRun::empty(n));
        }
        cache.bound(50);
        cache.shrink();
        assert_eq!(cache.runs.len(), 10);
        assert!(cache.get("99").is_some());
        cache.bound(usize::MAX);
        assert_eq!(cache.max_keys, RunCache::MAX_KEYS);
    }
}
