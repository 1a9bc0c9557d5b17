//! A run while a batch is counted: what its next events are judged by, and what is to be counted. No I/O.

use std::collections::{BTreeMap, BTreeSet};

use run_events::{
    EventType, LoggedEvent, Micros, RunEventType, RunStatus, StepEventType, StepStatus,
};

use crate::projection::RunName;
use crate::rows::ChangedAttempts;

/// One run of a batch. Its row is locked.
#[derive(Debug)]
pub struct OpenRun {
    pub(super) name: RunName,
    /// `None` before the run's first event was applied.
    pub(super) known: Option<KnownRun>,
    /// Whether it differs from the row.
    pub(super) is_changed: bool,
    /// Attempts that changed.
    pub(super) changed_attempts: ChangedAttempts,
    /// What is to be counted, in order.
    pub(super) counted: Vec<Counted>,
    steps: BTreeMap<String, Step>,
    /// Attempts that were looked for in the read model.
    loaded: BTreeSet<(String, i32)>,
    /// Whether the read model had no event of the run: then it has no attempts either.
    pub(super) is_new: bool,
}

/// A row of run_stats_run.
#[derive(Debug)]
pub(super) struct KnownRun {
    /// Of the run's first event, like the next two.
    pub(super) project_id: String,
    pub(super) environment_id: String,
    pub(super) plan_id: String,
    pub(super) status: RunStatus,
    /// Whether a RunQueued was counted.
    pub(super) is_queued: bool,
    pub(super) emitted_started_at: Option<Micros>,
    pub(super) last_event_seq: i64,
}

/// The attempts of a step that the batch touches.
#[derive(Debug, Default)]
struct Step {
    attempts: BTreeMap<i32, Attempt>,
    /// Whether the step has any attempt with a valid event, touched by the batch or not.
    is_known: bool,
}

/// What run_stats_attempt says of an attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    pub(super) status: StepStatus,
    pub(super) emitted_started_at: Option<Micros>,
}

/// A valid transition that counts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Counted {
    /// persisted_at of its event.
    pub(super) at: Micros,
    pub(super) run_seq: i64,
    pub(super) what: What,
}

/// Whose it was.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
    Run(RunMoved),
    Attempt(AttemptMoved),
}

/// A run's transition. The duration is by the producer's clock, in milliseconds, not below 0.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RunMoved {
    /// By its first RunQueued.
    Queued,
    Started,
    Ended {
        status: RunStatus,
        millis: Option<i64>,
    },
}

/// An attempt's transition.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AttemptMoved {
    pub(super) step_id: String,
    /// The status that it leads to.
    pub(super) status: StepStatus,
    /// Whether this is the attempt's first valid event, and the step had another attempt before.
    pub(super) is_retry: bool,
    /// By the producer's clock, not below 0; `None` unless it ran.
    pub(super) millis: Option<i64>,
}

impl OpenRun {
    /// `known` as the row has it; `None` = no event of the run was applied yet.
    pub(super) fn new(name: RunName, known: Option<KnownRun>) -> Self {
        Self {
            name,
            is_new: known.is_none(),
            known,
            is_changed: false,
            changed_attempts: ChangedAttempts::default(),
            counted: Vec::new(),
            steps: BTreeMap::new(),
            loaded: BTreeSet::new(),
        }
    }

    /// The run_seq to apply next.
    pub(super) fn next_seq(&self) -> i64 {
        self.known.as_ref().map_or(1, |run| run.last_event_seq + 1)
    }

    /// The attempts that these events touch and that were not looked for yet. They count as loaded
    /// from now on.
    pub(super) fn attempts_to_load<'a>(
        &mut self,
        events: impl Iterator<Item = &'a LoggedEvent>,
    ) -> Vec<(&'a str, i32)> {
        if self.is_new {
            return Vec::new();
        }
        let next = self.next_seq();
        events
            .filter(|logged| logged.run_seq >= next)
            .filter(|logged| matches!(logged.event.event_type, EventType::Step(_)))
            .filter_map(|logged| {
                let step_id = logged.event.step_id.as_deref()?;
                Some((step_id, logged.event.logical_attempt_id))
            })
            .filter(|(step_id, attempt)| self.loaded.insert(((*step_id).to_owned(), *attempt)))
            .collect()
    }

    /// Takes over what the read model says of an attempt; `attempt` is `None` where it only says that
    /// the step has others.
    pub(super) fn put_attempt(
        &mut self,
        step_id: String,
        attempt_id: i32,
        attempt: Option<Attempt>,
    ) {
        let step = self.steps.entry(step_id).or_default();
        step.is_known = true;
        if let Some(attempt) = attempt {
            step.attempts.insert(attempt_id, attempt);
        }
    }

    /// The attempt as it stands, once it has a valid event.
    pub(super) fn attempt(&self, step_id: &str, attempt_id: i32) -> Option<Attempt> {
        self.steps.get(step_id)?.attempts.get(&attempt_id).copied()
    }

    /// Judges the event and notes what it counts, unless it was applied before. Its attempt is loaded;
    /// an event beyond `next_seq` is left alone.
    pub(super) fn apply(&mut self, logged: &LoggedEvent) {
        if logged.run_seq != self.next_seq() {
            return;
        }
        let run = self.known.get_or_insert_with(|| KnownRun::before(logged));
        run.last_event_seq = logged.run_seq;
        self.is_changed = true;
        let what = match (&logged.event.event_type, &logged.event.step_id) {
            (EventType::Run(kind), _) => run.apply(*kind, logged.event.emitted_at).map(What::Run),
            (EventType::Step(kind), Some(step_id)) => {
                let moved = self.apply_to_step(*kind, step_id, logged);
                moved.map(What::Attempt)
            }
            // As in the fold: a step event without a step would be opaque.
            (EventType::Step(_), None) | (EventType::Unknown(_), _) => None,
        };
        self.counted.extend(what.map(|what| Counted {
            at: logged.persisted_at,
            run_seq: logged.run_seq,
            what,
        }));
    }

    fn apply_to_step(
        &mut self,
        kind: StepEventType,
        step_id: &str,
        logged: &LoggedEvent,
    ) -> Option<AttemptMoved> {
        let (attempt_id, emitted_at) = (logged.event.logical_attempt_id, logged.event.emitted_at);
        let before = self.attempt(step_id, attempt_id);
        let prior = before.map_or(StepStatus::Pending, |attempt| attempt.status);
        let status = prior.after(kind)?;
        let step = self.steps.entry(step_id.to_owned()).or_default();
        let is_retry = before.is_none() && step.is_known;
        step.is_known = true;
        let began = before.and_then(|attempt| attempt.emitted_started_at);
        let emitted_started_at = match kind {
            StepEventType::StepStarted => Some(emitted_at),
            _ => began,
        };
        let attempt = Attempt {
            status,
            emitted_started_at,
        };
        step.attempts.insert(attempt_id, attempt);
        let changed = (step_id.to_owned(), attempt_id);
        self.changed_attempts
            .note(changed, before.is_some(), logged.run_seq);
        Some(AttemptMoved {
            step_id: step_id.to_owned(),
            status,
            is_retry,
            millis: began.map(|began| emitted_at.millis_since(began)),
        })
    }
}

impl KnownRun {
    /// Before the run's first event, with what that event says about the run.
    fn before(first: &LoggedEvent) -> Self {
        let event = &first.event;
        Self {
            project_id: event.project_id.clone(),
            environment_id: event.environment_id.clone(),
            plan_id: event.plan_id.clone(),
            status: RunStatus::Pending,
            is_queued: false,
            emitted_started_at: None,
            last_event_seq: 0,
        }
    }

    fn apply(&mut self, kind: RunEventType, emitted_at: Micros) -> Option<RunMoved> {
        self.status = self.status.after(kind)?;
        match kind {
            RunEventType::RunQueued => {
                let is_first = !self.is_queued;
                self.is_queued = true;
                is_first.then_some(RunMoved::Queued)
            }
            RunEventType::RunStarted => {
                self.emitted_started_at = Some(emitted_at);
                Some(RunMoved::Started)
            }
            RunEventType::RunPaused | RunEventType::RunResumed => None,
            RunEventType::RunCompleted | RunEventType::RunFailed | RunEventType::RunCancelled => {
                let began = self.emitted_started_at;
                Some(RunMoved::Ended {
                    status: self.status,
                    millis: began.map(|began| emitted_at.millis_since(began)),
                })
            }
        }
    }
}
