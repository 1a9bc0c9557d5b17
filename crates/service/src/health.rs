//! Whether this process can do its work now, as named conditions. The loops of a process set
//! them; [`crate::http`] answers /readyz from them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The conditions of one process; clones share them. Ready = every condition is met.
#[derive(Debug, Clone)]
pub struct Health {
    // None = met, Some = the reason why not.
    conditions: Arc<Mutex<BTreeMap<&'static str, Option<String>>>>,
}

impl Health {
    /// Declares the conditions, all of them unmet with the reason "starting", so that a process
    /// is not ready before each part has said that it is.
    pub fn new(conditions: &[&'static str]) -> Self {
        let starting = conditions
            .iter()
            .map(|name| (*name, Some("starting".to_owned())));
        Health {
            conditions: Arc::new(Mutex::new(starting.collect())),
        }
    }

    /// The condition is met.
    pub fn set_ready(&self, condition: &'static str) {
        self.lock().insert(condition, None);
    }

    /// The condition is not met, and why, in words for an operator.
    pub fn set_unready(&self, condition: &'static str, reason: impl Into<String>) {
        self.lock().insert(condition, Some(reason.into()));
    }

    /// The unmet conditions with their reasons, by name.
    pub fn reasons(&self) -> Vec<(String, String)> {
        let unmet =
            |(name, reason): (&&str, &Option<String>)| Some(((*name).to_owned(), reason.clone()?));
        self.lock().iter().filter_map(unmet).collect()
    }

    /// Whether this condition is met.
    pub fn is_met(&self, condition: &'static str) -> bool {
        matches!(self.lock().get(condition), Some(None))
    }

    /// Whether every condition is met.
    pub fn is_ready(&self) -> bool {
        self.lock().values().all(Option::is_none)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Option<String>>> {
        // Each change is one insert, so a panic elsewhere cannot leave the map half changed.
        self.conditions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::Health;

    #[test]
    fn declared_conditions_start_unmet() {
        let health = Health::new(&["kafka", "database"]);
        assert!(!health.is_ready());
        let starting = |name: &str| (name.to_owned(), "starting".to_owned());
        assert_eq!(health.reasons(), [starting("database"), starting("kafka")]);
        health.set_ready("kafka");
        assert!(health.is_met("kafka") && !health.is_met("database"));
    }

    #[test]
    fn ready_needs_every_condition_and_clones_share_them() {
        let health = Health::new(&["kafka", "database"]);
        health.set_ready("kafka");
        assert!(!health.is_ready());
        health.clone().set_ready("database");
        assert!(health.is_ready());
        assert!(health.reasons().is_empty());
        health.set_unready("kafka", "no broker answers");
        assert!(!health.is_ready());
        assert_eq!(
            health.reasons(),
            [("kafka".to_owned(), "no broker answers".to_owned())]
        );
    }
}
