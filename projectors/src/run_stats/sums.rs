//! What a batch counted, by window. Pure; called by [`super`] when the batch is judged, and written by
//! [`super::write`].

use std::collections::BTreeMap;

use run_events::{Micros, RunStatus, StepStatus};

use super::histogram::Durations;
use super::open_run::{AttemptMoved, Counted, KnownRun, OpenRun, RunMoved, What};

const HOUR_MICROS: i64 = 3_600_000_000;
const DAY_MICROS: i64 = 24 * HOUR_MICROS;

/// The key of a row of run_hourly and run_daily. Its order is that of the locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RunKey<'r> {
    pub(super) tenant_id: &'r str,
    /// The beginning of the hour or day, in UTC.
    pub(super) window: Micros,
    pub(super) project_id: &'r str,
    pub(super) environment_id: &'r str,
    pub(super) plan_id: &'r str,
}

/// What is to be added to a row of run_hourly or run_daily.
#[derive(Debug, Default)]
pub(super) struct RunCounts {
    pub(super) queued: i64,
    pub(super) started: i64,
    pub(super) completed: i64,
    pub(super) failed: i64,
    pub(super) cancelled: i64,
    pub(super) durations: Durations,
    /// The highest run_seq counted.
    pub(super) last_event_seq: i64,
}

/// The key of a row of step_daily. Its order is that of the locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StepKey<'r> {
    pub(super) tenant_id: &'r str,
    /// The beginning of the day, in UTC.
    pub(super) day: Micros,
    pub(super) plan_id: &'r str,
    pub(super) step_id: &'r str,
}

/// What is to be added to a row of step_daily.
#[derive(Debug, Default)]
pub(super) struct StepCounts {
    pub(super) started: i64,
    pub(super) succeeded: i64,
    pub(super) failed: i64,
    pub(super) skipped: i64,
    pub(super) retries: i64,
    pub(super) durations: Durations,
    /// The highest run_seq counted.
    pub(super) last_event_seq: i64,
}

/// A batch, summed up.
#[derive(Debug, Default)]
pub(super) struct Sums<'r> {
    pub(super) hourly: BTreeMap<RunKey<'r>, RunCounts>,
    pub(super) daily: BTreeMap<RunKey<'r>, RunCounts>,
    pub(super) steps: BTreeMap<StepKey<'r>, StepCounts>,
}

impl<'r> Sums<'r> {
    /// What these runs have counted.
    pub(super) fn of(runs: &'r [OpenRun]) -> Self {
        let mut sums = Self::default();
        for run in runs {
            let Some(known) = &run.known else { continue };
            for counted in &run.counted {
                sums.add(&run.name.tenant_id, known, counted);
            }
        }
        sums
    }

    fn add(&mut self, tenant_id: &'r str, run: &'r KnownRun, counted: &'r Counted) {
        let day = beginning(counted.at, DAY_MICROS);
        match &counted.what {
            What::Run(moved) => {
                let key = RunKey {
                    tenant_id,
                    window: day,
                    project_id: &run.project_id,
                    environment_id: &run.environment_id,
                    plan_id: &run.plan_id,
                };
                let hour = RunKey {
                    window: beginning(counted.at, HOUR_MICROS),
                    ..key
                };
                let hourly = self.hourly.entry(hour).or_default();
                hourly.add(moved, counted.run_seq);
                let daily = self.daily.entry(key).or_default();
                daily.add(moved, counted.run_seq);
            }
            What::Attempt(moved) => {
                let key = StepKey {
                    tenant_id,
                    day,
                    plan_id: &run.plan_id,
                    step_id: &moved.step_id,
                };
                let steps = self.steps.entry(key).or_default();
                steps.add(moved, counted.run_seq);
            }
        }
    }
}

/// The beginning of the window of that length, in UTC, that `at` is in.
fn beginning(at: Micros, length: i64) -> Micros {
    Micros(at.0.div_euclid(length) * length)
}

impl RunCounts {
    fn add(&mut self, moved: &RunMoved, run_seq: i64) {
        match moved {
            RunMoved::Queued => self.queued += 1,
            RunMoved::Started => self.started += 1,
            RunMoved::Ended { status, millis } => {
                match status {
                    RunStatus::Completed => self.completed += 1,
                    RunStatus::Failed => self.failed += 1,
                    RunStatus::Cancelled => self.cancelled += 1,
                    // No end.
                    RunStatus::Pending | RunStatus::Running | RunStatus::Paused => {}
                }
                self.durations.extend(*millis);
            }
        }
        self.last_event_seq = self.last_event_seq.max(run_seq);
    }
}

impl StepCounts {
    fn add(&mut self, moved: &AttemptMoved, run_seq: i64) {
        match moved.status {
            StepStatus::Running => self.started += 1,
            StepStatus::Success => self.succeeded += 1,
            StepStatus::Failed => self.failed += 1,
            StepStatus::Skipped => self.skipped += 1,
            // No event leads there.
            StepStatus::Pending => {}
        }
        self.retries += i64::from(moved.is_retry);
        self.durations.extend(moved.millis);
        self.last_event_seq = self.last_event_seq.max(run_seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_begin_at_utc_hours_and_days_before_1970_too() {
        let at = |text| Micros::parse_rfc3339(text).unwrap_or(Micros(i64::MIN));
        for (time, hour, day) in [
            (
                "2026-03-01T23:59:59.999999Z",
                "2026-03-01T23:00:00Z",
                "2026-03-01T00:00:00Z",
            ),
            (
                "2026-03-02T00:00:00Z",
                "2026-03-02T00:00:00Z",
                "2026-03-02T00:00:00Z",
            ),
            (
                "1969-12-31T23:59:59.999999Z",
                "1969-12-31T23:00:00Z",
                "1969-12-31T00:00:00Z",
            ),
        ] {
            assert_eq!(beginning(at(time), HOUR_MICROS), at(hour), "{time}");
            assert_eq!(beginning(at(time), DAY_MICROS), at(day), "{time}");
        }
    }
}
