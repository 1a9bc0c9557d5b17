//! The product's processes: armed with a failpoint, killed, stopped and continued, started again.
//!
//! Called by [`super::round`], which ticks it many times a second. A process that ends in any way
//! that nobody arranged is a violation: no fault may need a restart.

use super::deployment::Deployment;
use super::schedule::{INGEST, Kind, PROJECTORS, Plan};
use super::tally::Shared;
use crate::process::Process;
use anyhow::{Result, bail};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Places of the append side, and how often one is passed at most before it acts.
const INGEST_PLACES: [(&str, u32); 11] = [
    ("ingest.polled", 2_000),
    ("ingest.claimed", 2),
    ("ingest.appended", 30),
    ("ingest.before_show", 3),
    ("append.locked", 30),
    ("append.inserted", 30),
    ("append.checked", 3),
    ("transaction.begun", 30),
    ("transaction.before_commit", 30),
    ("transaction.commit_sent", 30),
    ("transaction.committed", 30),
];
/// Places of the read side.
const PROJECTOR_PLACES: [(&str, u32); 6] = [
    ("project.read", 30),
    ("project.applied", 30),
    ("transaction.begun", 30),
    ("transaction.before_commit", 30),
    ("transaction.commit_sent", 30),
    ("transaction.committed", 30),
];

/// What the armed place does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Kill,
    Stop,
}

struct Member {
    process: Process,
    armed: Option<(&'static str, Action)>,
    frozen_until: Option<Instant>,
}

enum State {
    Down(Instant),
    Up(Member),
}

struct Slot {
    kind: Kind,
    number: usize,
    state: State,
}

/// All processes of a round.
pub struct Fleet {
    deployment: Arc<Deployment>,
    tally: Shared,
    rng: StdRng,
    slots: Vec<Slot>,
    visitors: Vec<Visitor>,
    arms: bool,
}

/// One more ingest, for a while.
struct Visitor {
    process: Process,
    /// When it gets its SIGTERM; `None` = it has.
    leaves: Option<Instant>,
}

impl Fleet {
    /// A fleet whose processes start at the first tick.
    #[must_use]
    pub fn new(deployment: Arc<Deployment>, tally: Shared, plan: &Plan) -> Self {
        let down = |kind| {
            move |number| Slot {
                kind,
                number,
                state: State::Down(Instant::now()),
            }
        };
        let ingest = (0..INGEST).map(down(Kind::Ingest));
        let projectors = (0..PROJECTORS).map(down(Kind::Projectors));
        Self {
            deployment,
            tally,
            rng: StdRng::seed_from_u64(plan.seed),
            slots: ingest.chain(projectors).collect(),
            visitors: Vec::new(),
            arms: !plan.solo,
        }
    }

    /// Whether every process runs.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let runs = |slot: &Slot| match &slot.state {
            State::Up(member) => member.frozen_until.is_none(),
            State::Down(_) => false,
        };
        self.slots.iter().all(runs) && self.visitors.is_empty()
    }

    /// One more ingest joins, and leaves by SIGTERM after so long.
    ///
    /// # Errors
    /// Where it cannot be started.
    pub fn invite(&mut self, lasts: Duration) -> Result<()> {
        let command = self.deployment.program(Kind::Ingest, INGEST);
        let process = Process::spawn(&self.deployment.environment, "visitor", command)?;
        let leaves = Some(Instant::now() + lasts);
        self.visitors.push(Visitor { process, leaves });
        self.tally.fault("rebalance");
        Ok(())
    }

    /// Visitors that are due get their SIGTERM; returns how many have left.
    fn see_off(&mut self, now: Instant) -> Result<usize> {
        let mut left = 0;
        let mut staying = Vec::new();
        for mut visitor in self.visitors.drain(..) {
            if let Some(status) = visitor.process.ended()? {
                left += 1;
                if visitor.leaves.is_some() || status.code() != Some(0) {
                    let description = visitor.process.describe();
                    self.tally
                        .violation(format!("a visitor ended with {status}: {description}"));
                }
                continue;
            }
            if visitor.leaves.is_some_and(|leaves| now >= leaves) {
                visitor.leaves = None;
                visitor.process.signal("TERM")?;
            }
            staying.push(visitor);
        }
        self.visitors = staying;
        Ok(left)
    }

    /// Starts what is due, continues what stood still long enough, notes what ended. Returns the
    /// names of the faults that have healed since the last tick.
    ///
    /// # Errors
    /// Where a process cannot be started.
    pub fn tick(&mut self) -> Result<Vec<String>> {
        let now = Instant::now();
        let mut healed = Vec::new();
        for at in 0..self.slots.len() {
            match &mut self.slots[at].state {
                State::Down(until) if now >= *until => {
                    let (kind, number) = (self.slots[at].kind, self.slots[at].number);
                    self.slots[at].state = State::Up(self.start(kind, number)?);
                    healed.push(format!("kill {}", name_of(kind)));
                }
                State::Down(_) => {}
                State::Up(_) => healed.extend(self.look_at(at, now)?),
            }
        }
        for _ in 0..self.see_off(now)? {
            healed.push("rebalance".to_owned());
        }
        Ok(healed)
    }

    fn look_at(&mut self, at: usize, now: Instant) -> Result<Option<String>> {
        let kind = self.slots[at].kind;
        let State::Up(member) = &mut self.slots[at].state else {
            return Ok(None);
        };
        if let Some(status) = member.process.ended()? {
            self.note_end(at, status);
            let pause = Duration::from_millis(self.rng.random_range(0..600));
            self.slots[at].state = State::Down(now + pause);
            return Ok(None);
        }
        if let Some(until) = member.frozen_until {
            if now < until {
                return Ok(None);
            }
            member.frozen_until = None;
            member.process.signal("CONT")?;
            return Ok(Some(format!("zombie {}", name_of(kind))));
        }
        if let Some((place, Action::Stop)) = member.armed
            && member.process.is_stopped()
        {
            member.armed = None;
            let lasts = Duration::from_millis(self.rng.random_range(1_000..7_000));
            member.frozen_until = Some(now + lasts);
            self.tally
                .fault(format!("zombie {} at {place}", name_of(kind)));
        }
        Ok(None)
    }

    fn note_end(&self, at: usize, status: ExitStatus) {
        let slot = &self.slots[at];
        let State::Up(member) = &slot.state else {
            return;
        };
        match member.armed {
            Some((place, Action::Kill)) if status.signal() == Some(9) => {
                self.tally
                    .fault(format!("kill {} at {place}", name_of(slot.kind)));
            }
            _ => self.tally.violation(format!(
                "{} {} ended by itself with {status}: {}",
                slot.kind.program(),
                slot.number,
                member.process.describe()
            )),
        }
    }

    fn start(&mut self, kind: Kind, number: usize) -> Result<Member> {
        let places: &[(&str, u32)] = match kind {
            Kind::Ingest => &INGEST_PLACES,
            Kind::Projectors => &PROJECTOR_PLACES,
        };
        let (place, most) = places[self.rng.random_range(0..places.len())];
        // A dynamic member that dies costs its group a session's time: it has to live for longer.
        let patience = if kind == Kind::Ingest && !self.deployment.is_static() {
            3
        } else {
            1
        };
        let passes = self.rng.random_range(1..=most * patience);
        let action = match self.rng.random_range(0..100) {
            0..75 => Some(Action::Kill),
            75..85 => Some(Action::Stop),
            _ => None,
        };
        let armed = action.filter(|_| self.arms).map(|action| (place, action));
        let mut command = self.deployment.program(kind, number);
        if let Some((place, action)) = armed {
            let does = match action {
                Action::Kill => "kill",
                Action::Stop => "stop",
            };
            command.env("RUNLOG_FAILPOINTS", format!("{place}={does}@{passes}"));
        }
        let process = Process::spawn(&self.deployment.environment, kind.program(), command)?;
        Ok(Member {
            process,
            armed,
            frozen_until: None,
        })
    }

    /// SIGKILL of a process, wherever it is. Returns whether there was one.
    ///
    /// # Errors
    /// Where the signal does not reach it.
    pub fn kill(&mut self, kind: Kind, number: usize) -> Result<bool> {
        let pause = Duration::from_millis(self.rng.random_range(0..1_000));
        let Some(slot) = self.slot(kind, number) else {
            return Ok(false);
        };
        let runs = match &mut slot.state {
            State::Up(member) => member.process.ended()?.is_none(),
            State::Down(_) => false,
        };
        if !runs {
            return Ok(false);
        }
        let down = State::Down(Instant::now() + pause);
        if let State::Up(member) = std::mem::replace(&mut slot.state, down) {
            member.process.kill9()?;
            self.tally.fault(format!("kill {} anywhere", name_of(kind)));
        }
        Ok(true)
    }

    /// SIGSTOP of a process, wherever it is, for so long. Returns whether there was one.
    ///
    /// # Errors
    /// Where the signal does not reach it.
    pub fn freeze(&mut self, kind: Kind, number: usize, lasts: Duration) -> Result<bool> {
        let Some(slot) = self.slot(kind, number) else {
            return Ok(false);
        };
        let State::Up(member) = &mut slot.state else {
            return Ok(false);
        };
        if member.frozen_until.is_some() || member.process.ended()?.is_some() {
            return Ok(false);
        }
        member.process.signal("STOP")?;
        member.frozen_until = Some(Instant::now() + lasts);
        self.tally
            .fault(format!("zombie {} anywhere", name_of(kind)));
        Ok(true)
    }

    fn slot(&mut self, kind: Kind, number: usize) -> Option<&mut Slot> {
        let mine = |slot: &&mut Slot| slot.kind == kind && slot.number == number;
        self.slots.iter_mut().find(mine)
    }

    /// No process that starts from now on is armed, and nobody stands still any more.
    ///
    /// # Errors
    /// Where a signal does not reach a process.
    pub fn calm(&mut self) -> Result<()> {
        self.arms = false;
        for slot in &mut self.slots {
            if let State::Up(member) = &mut slot.state
                && member.frozen_until.is_some()
            {
                member.frozen_until = Some(Instant::now());
            }
        }
        Ok(())
    }

    /// SIGTERM for all; each must drain and end with 0.
    ///
    /// # Errors
    /// Where one does not end.
    pub async fn end(mut self) -> Result<()> {
        for slot in std::mem::take(&mut self.slots) {
            let State::Up(member) = slot.state else {
                continue;
            };
            let description = member.process.describe();
            let was_armed = member.armed.is_some();
            // It may still pass its place on the way out.
            let status = match member.process.terminate().await {
                Ok(status) => status,
                Err(_) if was_armed => continue,
                Err(error) => bail!(error),
            };
            if status.code() != Some(0) && !(was_armed && status.signal() == Some(9)) {
                self.tally.violation(format!(
                    "{} ended with {status} after SIGTERM: {description}",
                    slot.kind.program()
                ));
            }
        }
        Ok(())
    }
}

/// For the names of faults.
#[must_use]
pub fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Ingest => "ingest",
        Kind::Projectors => "projectors",
    }
}
