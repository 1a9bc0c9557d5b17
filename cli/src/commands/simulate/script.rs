//! One simulated run: what its engine does next, and when. The script itself knows the run's status,
//! because it decides what happens; it never asks the fold. Called by `generator`.

use rand::RngExt;
use rand::rngs::StdRng;
use run_events::{EventType, RunEventType as R, StepEventType as S};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::payload;
use super::world::{self, Plan};

/// Microseconds of simulated time.
pub(super) type Moment = i64;

const SECOND: Moment = 1_000_000;
/// A failed step is tried this often at most.
const ATTEMPTS: i32 = 3;

/// What one action of the engine tells the world.
pub(super) struct Told {
    pub(super) event_type: EventType,
    pub(super) step_id: Option<&'static str>,
    pub(super) logical_attempt_id: i32,
    pub(super) payload: Map<String, Value>,
}

/// The status of a run, as the engine that runs it knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Pending,
    Running,
    Paused,
    Completed,
    Failed,
    Cancelled,
}

impl Standing {
    /// The name in the read models.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::Paused => "PAUSED",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }
}

/// One run on its way.
pub(super) struct Script {
    pub(super) tenant: String,
    pub(super) run_id: String,
    pub(super) environment: &'static str,
    pub(super) plan: &'static Plan,
    pub(super) plan_version: String,
    pub(super) engine_attempt: i32,
    pub(super) standing: Standing,
    /// Whether an event was told that does not fit the run's state.
    pub(super) inconsistent: bool,
    /// Whether anything was told.
    pub(super) told: bool,
    steps: Vec<Step>,
    /// Simulated time is compressed by this factor, at most 1.
    squeeze: f64,
    start_at: Moment,
    pause_at: Option<Moment>,
    cancel_at: Option<Moment>,
    resume_at: Moment,
    pauses: i32,
    /// Attempt numbers for events out of the script, so that each has a key of its own.
    odd_attempts: i32,
}

struct Step {
    attempt: i32,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Waiting,
    Starts(Moment),
    Skips(Moment, &'static str),
    Runs(Moment, Ending),
    Done(Ending),
}

#[derive(Clone, Copy, PartialEq)]
enum Ending {
    Succeeded,
    Failed,
    Skipped,
    /// Skipped because something it waits for failed.
    Blocked,
}

#[derive(Clone, Copy)]
enum Action {
    Queue,
    Start,
    Pause,
    Resume,
    Cancel,
    End,
    StartStep(usize),
    SkipStep(usize, &'static str),
    EndStep(usize, Ending),
}

impl Script {
    /// A new run that is queued at `now`.
    pub(super) fn new(rng: &mut StdRng, tenants: usize, now: Moment, squeeze: f64) -> Self {
        let plan = world::plan(rng);
        let mut script = Self {
            tenant: world::tenant(rng.random_range(0..tenants)),
            run_id: uuid::Builder::from_random_bytes(rng.random())
                .into_uuid()
                .to_string(),
            environment: world::environment(rng),
            plan,
            plan_version: format!("v{}", rng.random_range(1..40)),
            engine_attempt: 1,
            standing: Standing::Pending,
            inconsistent: false,
            told: false,
            steps: plan
                .steps
                .iter()
                .map(|_| Step {
                    attempt: 1,
                    phase: Phase::Waiting,
                })
                .collect(),
            squeeze,
            start_at: now,
            pause_at: None,
            cancel_at: None,
            resume_at: now,
            pauses: 0,
            odd_attempts: 1_000,
        };
        script.start_at = script.later(now, rng.random_range(0.2..20.0));
        if rng.random_bool(0.08) {
            script.pause_at = Some(script.later(script.start_at, rng.random_range(2.0..120.0)));
        }
        if rng.random_bool(0.06) {
            script.cancel_at = Some(script.later(script.start_at, rng.random_range(2.0..200.0)));
        }
        script
    }

    /// When the run does something next; `None` = never again.
    pub(super) fn next_at(&self, now: Moment) -> Option<Moment> {
        self.next_action(now).map(|(at, _)| at)
    }

    /// Does what comes next, and tells it. `None` = the run is over.
    pub(super) fn act(&mut self, rng: &mut StdRng, now: Moment) -> Option<Told> {
        let (_, action) = self.next_action(now)?;
        self.told = true;
        Some(match action {
            Action::Queue => run_event(R::RunQueued, 1, payload::queued(rng)),
            Action::Start => self.start(rng, now),
            Action::Pause => self.pause(rng, now),
            Action::Resume => {
                self.standing = Standing::Running;
                run_event(R::RunResumed, self.pauses, payload::stopped_by(rng))
            }
            Action::Cancel => {
                self.standing = Standing::Cancelled;
                run_event(R::RunCancelled, 1, payload::stopped_by(rng))
            }
            Action::End => self.end(),
            Action::StartStep(step) => self.start_step(rng, now, step),
            Action::SkipStep(step, because) => self.skip_step(rng, now, step, because),
            Action::EndStep(step, ending) => self.end_step(rng, now, step, ending),
        })
    }

    /// An attempt number that no event of the script has.
    pub(super) fn odd_attempt(&mut self) -> i32 {
        self.odd_attempts += 1;
        self.odd_attempts
    }

    /// A step of the plan, whichever.
    pub(super) fn any_step(&self, rng: &mut StdRng) -> &'static str {
        self.plan.steps[rng.random_range(0..self.plan.steps.len())].id
    }

    /// The earliest action that the run's standing allows; of two at once the first listed.
    fn next_action(&self, now: Moment) -> Option<(Moment, Action)> {
        let running = self.standing == Standing::Running;
        let mut next: Option<(Moment, Action)> = None;
        let mut consider = |at: Moment, action: Action| {
            let at = at.max(now);
            if next.is_none_or(|(earliest, _)| at < earliest) {
                next = Some((at, action));
            }
        };
        match self.standing {
            Standing::Pending if !self.told => consider(now, Action::Queue),
            Standing::Pending => consider(self.start_at, Action::Start),
            Standing::Paused => consider(self.resume_at, Action::Resume),
            _ => {}
        }
        if let Some(at) = self
            .cancel_at
            .filter(|_| running || self.standing == Standing::Paused)
        {
            consider(at, Action::Cancel);
        }
        if let Some(at) = self.pause_at.filter(|_| running) {
            consider(at, Action::Pause);
        }
        for (place, step) in self.steps.iter().enumerate() {
            match step.phase {
                Phase::Runs(until, ending) => consider(until, Action::EndStep(place, ending)),
                Phase::Starts(at) if running => consider(at, Action::StartStep(place)),
                Phase::Skips(at, why) if running => consider(at, Action::SkipStep(place, why)),
                _ => {}
            }
        }
        if running
            && self
                .steps
                .iter()
                .all(|step| matches!(step.phase, Phase::Done(_)))
        {
            consider(now + self.length(0.05), Action::End);
        }
        next
    }

    fn start(&mut self, rng: &mut StdRng, now: Moment) -> Told {
        self.standing = Standing::Running;
        self.release(rng, now);
        run_event(R::RunStarted, 1, payload::started(rng))
    }

    fn pause(&mut self, rng: &mut StdRng, now: Moment) -> Told {
        self.standing = Standing::Paused;
        self.pauses += 1;
        self.resume_at = self.later(now, rng.random_range(5.0..240.0));
        let again = rng.random_bool(0.2);
        self.pause_at = again.then(|| self.later(self.resume_at, rng.random_range(5.0..60.0)));
        run_event(R::RunPaused, self.pauses, payload::stopped_by(rng))
    }

    fn end(&mut self) -> Told {
        let failed = |step: &Step| step.phase == Phase::Done(Ending::Failed);
        if let Some(place) = self.steps.iter().position(failed) {
            self.standing = Standing::Failed;
            let attempts = self.steps[place].attempt;
            let payload = payload::failed(self.plan.steps[place].id, attempts);
            return run_event(R::RunFailed, 1, payload);
        }
        self.standing = Standing::Completed;
        run_event(R::RunCompleted, 1, payload::completed(self.steps.len()))
    }

    fn start_step(&mut self, rng: &mut StdRng, now: Moment, place: usize) -> Told {
        if rng.random_bool(0.01) {
            // The engine restarted; it goes on where it was.
            self.engine_attempt += 1;
        }
        // Most steps take seconds, some minutes.
        let seconds = 0.5 * 200_f64.powf(rng.random::<f64>());
        let ending = if rng.random_bool(0.07) {
            Ending::Failed
        } else {
            Ending::Succeeded
        };
        self.steps[place].phase = Phase::Runs(self.later(now, seconds), ending);
        self.step_event(S::StepStarted, place, payload::step_started(rng))
    }

    fn skip_step(&mut self, rng: &mut StdRng, now: Moment, place: usize, because: &str) -> Told {
        let ending = if because == BLOCKED {
            Ending::Blocked
        } else {
            Ending::Skipped
        };
        self.steps[place].phase = Phase::Done(ending);
        self.release(rng, now);
        self.step_event(S::StepSkipped, place, payload::step_skipped(because))
    }

    fn end_step(&mut self, rng: &mut StdRng, now: Moment, place: usize, ending: Ending) -> Told {
        if ending == Ending::Succeeded {
            self.steps[place].phase = Phase::Done(ending);
            self.release(rng, now);
            return self.step_event(S::StepCompleted, place, payload::step_completed(rng));
        }
        let retry = self.steps[place].attempt < ATTEMPTS && rng.random_bool(0.85);
        let told = self.step_event(S::StepFailed, place, payload::step_failed(rng, retry));
        if retry {
            let backoff = 5.0 * 2_f64.powi(self.steps[place].attempt);
            self.steps[place].attempt += 1;
            self.steps[place].phase = Phase::Starts(self.later(now, backoff));
        } else {
            self.steps[place].phase = Phase::Done(Ending::Failed);
            self.release(rng, now);
        }
        told
    }

    /// Lets every waiting step go whose predecessors are done.
    fn release(&mut self, rng: &mut StdRng, now: Moment) {
        for place in 0..self.steps.len() {
            if self.steps[place].phase != Phase::Waiting {
                continue;
            }
            let before = self.plan.steps[place]
                .after
                .iter()
                .map(|&i| self.steps[i].phase);
            let endings: Option<Vec<Ending>> = before
                .map(|phase| match phase {
                    Phase::Done(ending) => Some(ending),
                    _ => None,
                })
                .collect();
            let Some(endings) = endings else { continue };
            let at = self.later(now, rng.random_range(0.02..1.5));
            let blocked = endings
                .iter()
                .any(|e| matches!(e, Ending::Failed | Ending::Blocked));
            self.steps[place].phase = if blocked {
                Phase::Skips(at, BLOCKED)
            } else if rng.random_bool(0.03) {
                Phase::Skips(at, "nothing new in its sources")
            } else {
                Phase::Starts(at)
            };
        }
    }

    fn step_event(&self, kind: S, place: usize, payload: Map<String, Value>) -> Told {
        Told {
            event_type: EventType::Step(kind),
            step_id: Some(self.plan.steps[place].id),
            logical_attempt_id: self.steps[place].attempt,
            payload,
        }
    }

    fn length(&self, seconds: f64) -> Moment {
        // Simulated lengths are far from any bound of i64; a microsecond keeps order within a run.
        ((seconds * self.squeeze * SECOND as f64) as Moment).max(1)
    }

    fn later(&self, now: Moment, seconds: f64) -> Moment {
        now + self.length(seconds)
    }
}

const BLOCKED: &str = "a step it waits for failed";

fn run_event(kind: R, attempt: i32, payload: Map<String, Value>) -> Told {
    Told {
        event_type: EventType::Run(kind),
        step_id: None,
        logical_attempt_id: attempt,
        payload,
    }
}

/// A UUIDv7 of a simulated moment.
pub(super) fn event_id(rng: &mut StdRng, at: Moment) -> Uuid {
    let millis = u64::try_from(at / 1_000).unwrap_or_default();
    let random: [u8; 10] = rng.random();
    uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
}
