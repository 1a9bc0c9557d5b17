//! The part of an append that needs no database, for the benchmark `benches/hot`, which is its only caller.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};

use crate::decide::{Prepared, decide};
use crate::record::Record;
use crate::run_cache::{KnownRun, RunCache};
use crate::staging::{self, Learned};

/// Digests the records, decides them as events of new runs, and lets a run cache learn of them: what the
/// fast path of an append does around its statements. Returns how many events it would insert.
pub fn decide_new_runs(records: &[Record], persisted_at: DateTime<Utc>) -> usize {
    let mut cache = RunCache::new();
    let prepared = Prepared::new(records);
    let unknown = staging::unknown(&mut cache, &prepared).into_iter();
    let loaded: HashMap<_, _> = unknown.map(|i| (i, KnownRun::empty(i as i64))).collect();
    let mut runs = staging::stage(&cache, &loaded, &prepared);
    let all = 0..prepared.records.len();
    let decision = decide(&prepared, all, &mut runs, &HashSet::new(), persisted_at);
    let staged = staging::staged(runs);
    let learned = Learned { loaded, staged };
    staging::learn(&mut cache, &prepared, learned, records.len() as i64);
    decision.events.len()
}
