//! What happened in a run, counted, and how it is told.
//!
//! Called by the other parts of the harness, which add to it, and by `runlog-chaos`, which prints it.

use anyhow::Result;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Counts of one round, or of a whole run.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Rounds that came to their end.
    pub rounds: u64,
    /// Faults by what they were, for example `kill ingest at append.inserted`.
    pub faults: BTreeMap<String, u64>,
    /// Seconds from a fault's end until lag was 0 again, by fault.
    pub recovery: BTreeMap<String, Vec<f64>>,
    /// Records that Kafka acknowledged.
    pub sent: u64,
    /// Of these: events of the log.
    pub appended: u64,
    /// Of these: repetitions.
    pub duplicates: u64,
    /// Of these: dead letters.
    pub dead_letters: u64,
    /// What must not happen, and did.
    pub violations: Vec<String>,
}

/// A tally that several tasks add to.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Mutex<Tally>>);

impl Shared {
    /// Locks it for a moment.
    pub fn lock(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a fault.
    pub fn fault(&self, name: impl Into<String>) {
        *self.lock().faults.entry(name.into()).or_default() += 1;
    }

    /// Notes what must not happen.
    pub fn violation(&self, what: impl Into<String>) {
        let what = what.into();
        eprintln!("VIOLATION: {what}");
        self.lock().violations.push(what);
    }
}

impl Tally {
    /// Adds another round's counts.
    pub fn add(&mut self, other: Tally) {
        self.rounds += other.rounds;
        for (name, count) in other.faults {
            *self.faults.entry(name).or_default() += count;
        }
        for (name, seconds) in other.recovery {
            self.recovery.entry(name).or_default().extend(seconds);
        }
        self.sent += other.sent;
        self.appended += other.appended;
        self.duplicates += other.duplicates;
        self.dead_letters += other.dead_letters;
        self.violations.extend(other.violations);
    }

    /// Faults whose name starts like this.
    #[must_use]
    pub fn count(&self, prefix: &str) -> u64 {
        let mine = self
            .faults
            .iter()
            .filter(|(name, _)| name.starts_with(prefix));
        mine.map(|(_, count)| count).sum()
    }

    /// Writes the counts as JSON.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn save(&self, path: &Path, seed: u64, lasted: Duration) -> Result<()> {
        let recovery: BTreeMap<_, _> = self
            .recovery
            .iter()
            .map(|(name, seconds)| (name, quantiles(seconds)))
            .collect();
        let all = json!({
            "seed": seed, "seconds": lasted.as_secs(), "rounds": self.rounds, "faults": self.faults,
            "recovery_seconds": recovery, "sent": self.sent, "appended": self.appended,
            "duplicates": self.duplicates, "dead_letters": self.dead_letters,
            "violations": self.violations,
        });
        Ok(std::fs::write(path, format!("{all:#}\n"))?)
    }
}

/// Median, highest and count.
fn quantiles(seconds: &[f64]) -> (f64, f64, usize) {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    (
        median,
        sorted.last().copied().unwrap_or_default(),
        sorted.len(),
    )
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<52} {:>8}", "fault", "times")?;
        for (name, count) in &self.faults {
            writeln!(f, "{name:<52} {count:>8}")?;
        }
        writeln!(
            f,
            "\n{:<34} {:>8} {:>10} {:>10}",
            "until lag was 0 again", "times", "median s", "highest s"
        )?;
        for (name, seconds) in &self.recovery {
            let (median, highest, count) = quantiles(seconds);
            writeln!(f, "{name:<34} {count:>8} {median:>10.1} {highest:>10.1}")?;
        }
        writeln!(f, "\nrounds            {}", self.rounds)?;
        writeln!(f, "kills             {}", self.count("kill "))?;
        writeln!(f, "zombies           {}", self.count("zombie "))?;
        writeln!(f, "postgres crashes  {}", self.count("postgres crash"))?;
        writeln!(f, "failovers         {}", self.count("postgres failover"))?;
        writeln!(f, "broker bounces    {}", self.count("broker bounce"))?;
        writeln!(
            f,
            "records           {} sent = {} appended + {} duplicates + {} dead letters",
            self.sent, self.appended, self.duplicates, self.dead_letters
        )?;
        write!(f, "violations        {}", self.violations.len())
    }
}
