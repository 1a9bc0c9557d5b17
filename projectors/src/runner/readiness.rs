//! Whether the projections make progress, as /readyz shows it. Set by the coordinator and the
//! workers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use service::health::Health;

use super::checkpoint::CheckpointKey;

/// The condition that the database answers.
pub const DATABASE: &str = "database";
/// The condition that no stream of this process is blocked by an error.
pub const PROJECTIONS: &str = "projections";

/// The process's readiness; clones share it.
#[derive(Debug, Clone)]
pub struct Readiness {
    health: Health,
    blocked: Arc<Mutex<BTreeMap<CheckpointKey, String>>>,
}

impl Readiness {
    /// Of a health that declares [`DATABASE`] and [`PROJECTIONS`].
    pub fn new(health: Health) -> Self {
        Self {
            health,
            blocked: Arc::default(),
        }
    }

    /// The database answers.
    pub(super) fn database_answers(&self) {
        self.health.set_ready(DATABASE);
    }

    /// The database does not answer, or not as it should.
    pub(super) fn database_fails(&self, reason: String) {
        self.health.set_unready(DATABASE, reason);
    }

    /// A stream does not move, and why.
    pub(super) fn block(&self, key: &CheckpointKey, reason: String) {
        let mut blocked = self.lock();
        blocked.insert(key.clone(), reason);
        self.show(&blocked);
    }

    /// A stream moves, or is no longer this process's.
    pub(super) fn unblock(&self, key: &CheckpointKey) {
        let mut blocked = self.lock();
        blocked.remove(key);
        self.show(&blocked);
    }

    /// The projections are at work: no stream is blocked yet.
    pub(super) fn started(&self) {
        self.show(&self.lock());
    }

    /// The process is on its way out.
    pub(super) fn stopping(&self) {
        self.health.set_unready("shutdown", "stopping");
    }

    fn show(&self, blocked: &BTreeMap<CheckpointKey, String>) {
        match blocked.values().next() {
            None => self.health.set_ready(PROJECTIONS),
            Some(first) if blocked.len() == 1 => self.health.set_unready(PROJECTIONS, first),
            Some(first) => {
                let more = blocked.len() - 1;
                let reason = format!("{first} (and {more} more streams are blocked)");
                self.health.set_unready(PROJECTIONS, reason);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<CheckpointKey, String>> {
        // Each change is one insert or remove, so a panic elsewhere cannot leave it half done.
        self.blocked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
