//! The states of a run, one after the other: the fold of its events into intervals. No I/O.

use std::collections::BTreeMap;

use run_events::{EventType, LoggedEvent, Micros, RunStatus};

/// When an event happened, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    /// persistedAt.
    pub(super) persisted: Micros,
    /// emittedAt.
    pub(super) emitted: Micros,
}

/// A row of run_state_interval, without what all rows of its run have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interval {
    /// 1, 2, 3 ... within the run.
    pub(super) number: i64,
    pub(super) state: RunStatus,
    pub(super) started: Moment,
    /// `None` = the run is in this state still.
    pub(super) ended: Option<Moment>,
}

/// A run as far as it was applied: the interval that it is in, and what has changed in this batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Timeline {
    /// These four as the run's first event says.
    pub(super) project_id: String,
    pub(super) environment_id: String,
    pub(super) plan_id: String,
    pub(super) plan_version: String,
    /// The last applied runSeq, of whatever type; 0 before the first event.
    pub(super) last_event_seq: i64,
    /// Whether the run had its first RunQueued while it was PENDING.
    pub(super) is_queued: bool,
    /// The interval that has no end yet.
    pub(super) current: Interval,
    /// The number of the interval that the run's row holds: that far, intervals have rows. 0 = the run has
    /// none.
    pub(super) stored: i64,
    /// Whether any event was applied.
    pub(super) is_changed: bool,
    /// Intervals that began, ended or were moved, by their number, each with the runSeq of the event
    /// that changed it last.
    pub(super) changed: BTreeMap<i64, (Interval, i64)>,
}

impl Moment {
    fn of(logged: &LoggedEvent) -> Self {
        Self {
            persisted: logged.persisted_at,
            emitted: logged.event.emitted_at,
        }
    }
}

impl Interval {
    /// Whole milliseconds, floored; negative ones (two partitions) count 0. `None` while it is open.
    pub(super) fn duration_ms(&self) -> Option<i64> {
        let ended = self.ended?;
        Some(ended.persisted.millis_since(self.started.persisted))
    }
}

impl Timeline {
    /// A run is PENDING from its first event on, whatever that is. The event itself is not applied.
    pub(super) fn before(first: &LoggedEvent) -> Self {
        let event = &first.event;
        let current = Interval {
            number: 1,
            state: RunStatus::Pending,
            started: Moment::of(first),
            ended: None,
        };
        Self {
            project_id: event.project_id.clone(),
            environment_id: event.environment_id.clone(),
            plan_id: event.plan_id.clone(),
            plan_version: event.plan_version.clone(),
            last_event_seq: 0,
            is_queued: false,
            current,
            stored: 0,
            is_changed: false,
            changed: BTreeMap::from([(1, (current, first.run_seq))]),
        }
    }

    /// Applies the event after `last_event_seq`. Step events, unknown types and invalid transitions
    /// change no interval.
    pub(super) fn apply(&mut self, logged: &LoggedEvent) {
        self.last_event_seq = logged.run_seq;
        self.is_changed = true;
        let EventType::Run(kind) = logged.event.event_type else {
            return;
        };
        let Some(next) = self.current.state.after(kind) else {
            return;
        };
        let now = Moment::of(logged);
        if next != self.current.state {
            self.current.ended = Some(now);
            self.changed_by(logged);
            self.current = Interval {
                number: self.current.number + 1,
                state: next,
                started: now,
                ended: None,
            };
        } else if self.is_queued {
            // RunQueued again, which is the one event that keeps a state: the first one counts.
            return;
        } else {
            self.is_queued = true;
            self.current.started = now;
        }
        self.changed_by(logged);
    }

    fn changed_by(&mut self, logged: &LoggedEvent) {
        let current = self.current;
        self.changed
            .insert(current.number, (current, logged.run_seq));
    }
}

#[cfg(test)]
#[path = "timeline_tests.rs"]
mod tests;
