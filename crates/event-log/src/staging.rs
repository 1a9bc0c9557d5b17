//! How the run cache takes part in a batch: which runs it lacks, what it puts before the decision, and
//! when it moves. Pure; called by [`crate::append`] around the statements of the fast path, and run by
//! the model of the protocol (`src/protocol_model`).

use std::collections::HashMap;

use run_events::{Digest, IdempotencyKey};

use crate::decide::{Prepared, StagedRun};
use crate::run_cache::{KnownKey, KnownRun, RunCache};

/// What the fast path found out about the batch's runs: true once the batch is committed.
#[derive(Debug, Clone)]
pub(crate) struct Learned {
    /// Runs that the cache did not hold, by their index in [`Prepared::runs`].
    pub(crate) loaded: HashMap<usize, KnownRun>,
    /// Of every run of the batch, as [`staged`] gives it.
    pub(crate) staged: Vec<Staged>,
}

/// A run's new head, chain and keys.
pub(crate) type Staged = (i64, Digest, HashMap<IdempotencyKey, KnownKey>);

/// Forgets everything where the batch that is next lies before what was learned: the database went
/// back. (A batch starts where the one before ended, unless that one was committed in part and is tried
/// again as a whole.)
pub(crate) fn go_back(cache: &mut RunCache, start: i64) {
    if start < cache.learned_to() {
        cache.clear();
    }
}

/// The runs of the batch that the cache does not hold, by their index in [`Prepared::runs`].
pub(crate) fn unknown(cache: &mut RunCache, prepared: &Prepared<'_>) -> Vec<usize> {
    (0..prepared.runs.len())
        .filter(|i| !cache.touch(&prepared.names[*i]))
        .collect()
}

/// The batch's runs as the decision takes them: loaded just now, or from the cache.
pub(crate) fn stage<'k>(
    cache: &'k RunCache,
    loaded: &'k HashMap<usize, KnownRun>,
    prepared: &Prepared<'_>,
) -> Vec<StagedRun<'k>> {
    let known = |(i, name): (usize, &String)| match loaded.get(&i) {
        Some(run) => StagedRun::new(run),
        None => match cache.get(name) {
            Some(run) => StagedRun::new(run),
            None => unreachable!("every run that the cache lacks is loaded"),
        },
    };
    prepared.names.iter().enumerate().map(known).collect()
}

/// What the decision made of the runs.
pub(crate) fn staged(runs: Vec<StagedRun<'_>>) -> Vec<Staged> {
    runs.into_iter()
        .map(|run| (run.head_seq, run.chain, run.new_keys))
        .collect()
}

/// Moves the cache to what was just committed, up to the offset `end`, and not before that is known.
pub(crate) fn learn(cache: &mut RunCache, prepared: &Prepared<'_>, learned: Learned, end: i64) {
    for (i, run) in learned.loaded {
        cache.insert(prepared.names[i].clone(), run);
    }
    for (name, (head_seq, chain, new_keys)) in prepared.names.iter().zip(learned.staged) {
        cache.advance(name, head_seq, chain, new_keys);
    }
    cache.note_learned_to(end);
    cache.shrink();
}

/// Forgets the batch's runs: its commit may or may not have taken place.
pub(crate) fn doubt(cache: &mut RunCache, prepared: &Prepared<'_>) {
    prepared.names.iter().for_each(|name| cache.forget(name));
}
