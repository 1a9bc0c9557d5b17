//! A run while a batch is folded into it: its state, what has changed of it, and the snapshots that were
//! taken on the way. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use run_events::{Applied, EventType, Inconsistency, LoggedEvent, RunState, StepAttempt};
use uuid::Uuid;

use super::points;
use super::snapshots::Taken;
use crate::projection::RunName;
use crate::rows::ChangedAttempts;

/// One run of a batch. Its row is locked.
#[derive(Debug)]
pub struct OpenRun {
    pub(super) name: RunName,
    /// `None` before the run's first event was applied.
    pub(super) state: Option<RunState>,
    /// Whether the state differs from the row.
    pub(super) is_changed: bool,
    /// Whether the run has a row.
    pub(super) is_stored: bool,
    /// Attempts that changed.
    pub(super) changed_attempts: ChangedAttempts,
    /// Invalid transitions, in order.
    pub(super) alerts: Vec<Alert>,
    /// Snapshots, in order.
    pub(super) taken: Vec<Taken>,
    /// Steps whose attempts are all in the state.
    loaded: BTreeSet<String>,
    /// Whether all attempts of the run are in the state: from the start where the read model had no
    /// event of the run.
    is_whole: bool,
    /// Whether all attempts were asked for. They are not there still where they are too large.
    was_asked_for: bool,
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
            is_stored: state.is_some(),
            is_whole: state.is_none(),
            was_asked_for: false,
            state,
            is_changed: false,
            changed_attempts: ChangedAttempts::default(),
            alerts: Vec::new(),
            taken: Vec::new(),
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
        if self.is_whole {
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

    /// Whether a snapshot may be due after one of these events, up to the first gap, and attempts
    /// that it needs are not in the state yet.
    pub(super) fn lacks_attempts<'a>(&self, events: impl Iterator<Item = &'a LoggedEvent>) -> bool {
        let Some(state) = &self.state else {
            return false;
        };
        if self.is_whole || self.was_asked_for {
            return false;
        }
        let (mut status, mut next) = (state.status, self.next_seq());
        for logged in events.skip_while(|logged| logged.run_seq < self.next_seq()) {
            if logged.run_seq != next {
                return false;
            }
            next += 1;
            let after = match logged.event.event_type {
                EventType::Run(kind) => status.after(kind).unwrap_or(status),
                EventType::Step(_) | EventType::Unknown(_) => status,
            };
            let ends = after.is_terminal() && !status.is_terminal();
            // There may be more attempts by then, but not fewer: it is due at no other event.
            if ends || points::is_due(logged.run_seq, state.attempts()) {
                return true;
            }
            status = after;
        }
        false
    }

    /// Takes in an attempt as its row has it. One of a step that was loaded before is left alone: the
    /// state may be further than the row.
    pub(super) fn add_attempt(&mut self, step_id: String, attempt_id: i32, attempt: StepAttempt) {
        if let Some(state) = &mut self.state
            && !self.loaded.contains(&step_id)
        {
            let attempts = state.steps.entry(step_id).or_default();
            attempts.insert(attempt_id, attempt);
        }
    }

    /// All attempts were asked for, and those that came are taken in.
    pub(super) fn asked_for_all(&mut self) {
        self.was_asked_for = true;
        self.is_whole = self.state.as_ref().is_some_and(|state| {
            let held: usize = state.steps.values().map(BTreeMap::len).sum();
            held as i64 == state.attempts()
        });
    }

    /// Applies the event, unless it was applied before. Its step's attempts are loaded; an event
    /// beyond `next_seq` is left alone. Takes a snapshot where one is due.
    pub(super) fn apply(&mut self, logged: &LoggedEvent) {
        if self.next_seq() == 1 && logged.run_seq != 1 {
            return;
        }
        let state = self.state.get_or_insert_with(|| RunState::before(logged));
        let had_ended = state.status.is_terminal();
        let had_attempt = has_attempt(state, logged);
        match state.apply(logged) {
            Applied::Already | Applied::Gap { .. } => return,
            Applied::Opaque => {}
            Applied::Valid => {
                if let Some(step) = step_of(logged) {
                    self.changed_attempts
                        .note(step, had_attempt, logged.run_seq);
                }
            }
            Applied::Invalid(what) => self.alerts.push(Alert::new(logged, what)),
        }
        self.is_changed = true;
        let at_end = state.status.is_terminal() && !had_ended;
        if self.is_whole && (at_end || points::is_due(logged.run_seq, state.attempts())) {
            let taken = Taken::of(state, logged.persisted_at, at_end);
            self.taken.extend(taken);
        }
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

/// Whether the state has the attempt that the event is about.
fn has_attempt(state: &RunState, logged: &LoggedEvent) -> bool {
    let attempts = logged
        .event
        .step_id
        .as_ref()
        .and_then(|step| state.steps.get(step));
    attempts.is_some_and(|attempts| attempts.contains_key(&logged.event.logical_attempt_id))
}

/// The attempt that a step event is about.
fn step_of(logged: &LoggedEvent) -> Option<(String, i32)> {
    let event = &logged.event;
    match event.event_type {
        EventType::Step(_) => Some((event.step_id.clone()?, event.logical_attempt_id)),
        EventType::Run(_) | EventType::Unknown(_) => None,
    }
}
