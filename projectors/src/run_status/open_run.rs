//! A run while a batch is folded into it: its state and what has changed of it. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use run_events::{Applied, EventType, Inconsistency, LoggedEvent, RunState};
use uuid::Uuid;

use crate::projection::RunName;

/// One run of a batch. Its row is locked.
#[derive(Debug)]
pub struct OpenRun {
    pub(super) name: RunName,
    /// `None` before the run's first event was applied.
    pub(super) state: Option<RunState>,
    /// Whether the state differs from the row.
    pub(super) is_changed: bool,
    /// Attempts that changed, with the run_seq of their latest valid event.
    pub(super) changed_attempts: BTreeMap<(String, i32), i64>,
    /// Invalid transitions, in order.
    pub(super) alerts: Vec<Alert>,
    /// Steps whose attempts are all in the state.
    loaded: BTreeSet<String>,
    /// Whether the read model had no event of the run: then it has no attempts either.
    is_new: bool,
}

/// A row of run_inconsistency.
#[derive(Debug)]
pub(super) struct Alert {
    pub(super) event_id: Uuid,
    pub(super) event_type: String,
    pub(super) run_seq: i64,
    pub(super) persisted_at: DateTime<Utc>,
    /// With the attempt; `None` for a run event.
    pub(super) step: Option<(String, i32)>,
    pub(super) what: Inconsistency,
    pub(super) project_id: String,
    pub(super) environment_id: String,
}

impl OpenRun {
    /// `state` as the row has it; `None` = no event of the run was applied yet.
    pub(super) fn new(name: RunName, state: Option<RunState>) -> Self {
        Self {
            name,
            is_new: state.is_none(),
            state,
            is_changed: false,
            changed_attempts: BTreeMap::new(),
            alerts: Vec::new(),
            loaded: BTreeSet::new(),
        }
    }

    /// The run_seq to apply next.
    pub(super) fn next_seq(&self) -> i64 {
        self.state
            .as_ref()
            .map_or(1, |state| state.last_event_seq + 1)
    }

    /// The steps that these events touch and that are not in the state yet. They count as loaded
    /// from now on.
    pub(super) fn steps_to_load<'a>(
        &mut self,
        events: impl Iterator<Item = &'a LoggedEvent>,
    ) -> Vec<&'a str> {
        if self.is_new {
            return Vec::new();
        }
        let next = self.next_seq();
        events
            .filter(|logged| logged.run_seq >= next)
            .filter(|logged| matches!(logged.event.event_type, EventType::Step(_)))
            .filter_map(|logged| logged.event.step_id.as_deref())
            .filter(|step_id| self.loaded.insert((*step_id).to_owned()))
            .collect()
    }

    /// Applies the event, unless it was applied before. Its step's attempts are loaded; an event
    /// beyond `next_seq` is left alone.
    pub(super) fn apply(&mut self, logged: &LoggedEvent) {
        if self.next_seq() == 1 && logged.run_seq != 1 {
            return;
        }
        let state = self.state.get_or_insert_with(|| RunState::before(logged));
        match state.apply(logged) {
            Applied::Already | Applied::Gap { .. } => return,
            Applied::Opaque => {}
            Applied::Valid => {
                if let Some(step) = step_of(logged) {
                    self.changed_attempts.insert(step, logged.run_seq);
                }
            }
            Applied::Invalid(what) => self.alerts.push(Alert::new(logged, what)),
        }
        self.is_changed = true;
    }
}

impl Alert {
    fn new(logged: &LoggedEvent, what: Inconsistency) -> Self {
        let event = &logged.event;
        Self {
            event_id: event.event_id,
            event_type: event.event_type.as_str().to_owned(),
            run_seq: logged.run_seq,
            persisted_at: logged.persisted_at.to_datetime(),
            step: step_of(logged),
            what,
            project_id: event.project_id.clone(),
            environment_id: event.environment_id.clone(),
        }
    }
}

/// The attempt that a step event is about.
fn step_of(logged: &LoggedEvent) -> Option<(String, i32)> {
    let event = &logged.event;
    match event.event_type {
        EventType::Step(_) => Some((event.step_id.clone()?, event.logical_attempt_id)),
        EventType::Run(_) | EventType::Unknown(_) => None,
    }
}
