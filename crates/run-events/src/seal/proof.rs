//! Whether a proof fits: one run's events, what they were sealed as, and the seals. Needs nothing but the
//! proof, line by line, so that its length does not matter. Called by `runlog audit check`, and by
//! `runlog audit prove` with what it writes.

use chrono::NaiveDate;

use super::proof_lines::read_event;
pub use super::proof_lines::{ProofEvent, ProofHead};
use super::{Head, Seal, Unreadable, Written, merkle};
use crate::Digest;
use crate::digest::chain_digest;

/// Problems, and events whose content is withheld, that are told; the others are only counted.
pub const TOLD: usize = 20;

/// A proof while it is read.
#[derive(Debug)]
pub struct ProofCheck {
    head: ProofHead,
    /// The last event that was read, and its chain digest as written.
    last: (i64, Digest),
    told: Told,
}

/// What a proof shows, and what does not fit.
#[derive(Debug)]
pub struct Checked {
    /// Which run, and where it stood.
    pub head: ProofHead,
    /// What does not fit, and which contents are withheld.
    pub told: Told,
}

/// What there is to say of a proof.
#[derive(Debug, Default)]
pub struct Told {
    /// The first problems, each a line.
    pub problems: Vec<String>,
    /// How many there are; 0 = the proof fits.
    pub problem_count: u64,
    /// The first events whose content is withheld: of them only the digest is proved.
    pub withheld: Vec<i64>,
    /// How many there are.
    pub withheld_count: u64,
}

/// What an outsider kept, to compare a proof's seals with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// The digest of a seal.
    Digest(Digest),
    /// Seals.
    Seals(Vec<Written>),
}

impl Told {
    fn problem(&mut self, what: String) {
        self.problem_count += 1;
        if self.problems.len() < TOLD {
            self.problems.push(what);
        }
    }
}

impl ProofCheck {
    /// Begins with the first line.
    ///
    /// # Errors
    /// Where it is not the first line of a proof.
    pub fn begin(line: &str) -> Result<Self, Unreadable> {
        Ok(Self {
            head: ProofHead::read(line)?,
            last: (0, Digest::CHAIN_START),
            told: Told::default(),
        })
    }

    /// Judges the line of the next event.
    ///
    /// # Errors
    /// Where it is not the line of an event.
    pub fn event(&mut self, line: &str) -> Result<(), Unreadable> {
        let (last, chain) = self.last;
        let told = &mut self.told;
        self.last = read_event(line, |event| {
            judge(event, last, chain, told);
            (event.run_seq, event.chain_digest)
        })?;
        Ok(())
    }

    /// Judges the rest: there are no more lines.
    pub fn end(mut self) -> Checked {
        let (last, chain) = self.last;
        if last == self.head.run_seq {
            self.path(chain);
        } else {
            let sealed = self.head.run_seq;
            let what = format!("the events end at runSeq {last}, and {sealed} is what was sealed");
            self.told.problem(what);
        }
        self.seals();
        Checked {
            head: self.head,
            told: self.told,
        }
    }

    fn path(&mut self, chain: Digest) {
        let head = &self.head;
        let leaf = Head {
            tenant_id: &head.tenant_id,
            run_id: &head.run_id,
            run_seq: head.run_seq,
            events: head.events,
            chain,
        };
        let Some(Written { seal, .. }) = head.seals.first() else {
            return;
        };
        let root = merkle::root_of_path(leaf.leaf(), head.leaf_index, seal.runs, &head.path);
        if root != Some(seal.root) {
            self.told.problem(format!(
                "path: it does not lead from the run's last event to the root of the seal of {}",
                seal.day
            ));
        }
    }

    fn seals(&mut self) {
        let mut before: Option<Seal> = None;
        for written in &self.head.seals {
            let day = written.seal.day;
            if !written.fits() {
                let what = format!("seal of {day}: it is not what its digest was computed from");
                self.told.problem(what);
            }
            if let Some(before) = before.replace(written.seal)
                && !written.seal.follows(&before)
            {
                let what = format!(
                    "seal of {day}: it does not follow on that of {}",
                    before.day
                );
                self.told.problem(what);
            }
        }
    }
}

fn judge(event: &ProofEvent<'_>, last: i64, chain: Digest, told: &mut Told) {
    let run_seq = event.run_seq;
    if run_seq.checked_sub(1) != Some(last) {
        told.problem(format!("event {run_seq}: it stands behind event {last}"));
    }
    match &event.content {
        None => {
            told.withheld_count += 1;
            if told.withheld.len() < TOLD {
                told.withheld.push(run_seq);
            }
        }
        Some(content) if content.digest() != Some(event.content_digest) => told.problem(format!(
            "event {run_seq}: its content or payload is not what content_digest was computed from"
        )),
        Some(_) => {}
    }
    let link = chain_digest(
        chain,
        run_seq,
        event.event_id,
        event.idempotency_key,
        event.emitted_at,
        event.engine_attempt_id,
        event.content_digest,
    );
    if link != event.chain_digest {
        told.problem(format!(
            "chain at event {run_seq}: chain_digest does not follow from the event and the one before it"
        ));
    }
}

impl Checked {
    /// Whether everything fits.
    pub fn fits(&self) -> bool {
        self.told.problem_count == 0
    }

    /// Compares the proof's seals with what was kept; the last day of which both have the same seal.
    ///
    /// # Errors
    /// In words, where they differ, or have no day in common.
    pub fn compare(&self, kept: &Kept) -> Result<NaiveDate, String> {
        let seals = &self.head.seals;
        match kept {
            Kept::Digest(digest) => {
                let same = seals.iter().rfind(|written| written.digest == *digest);
                same.map(|written| written.seal.day).ok_or_else(|| {
                    format!(
                        "{digest} is the digest of none of the seals that the proof holds, {}",
                        self.days()
                    )
                })
            }
            Kept::Seals(kept) => {
                let mut common = None;
                for kept in kept {
                    if let Some(day) = self.compare_one(kept)? {
                        common = common.max(Some(day));
                    }
                }
                common.ok_or_else(|| {
                    format!(
                        "none of the seals that were kept is one of the proof's days, {}",
                        self.days()
                    )
                })
            }
        }
    }

    /// The day, where the proof has a seal of it.
    fn compare_one(&self, kept: &Written) -> Result<Option<NaiveDate>, String> {
        let day = kept.seal.day;
        if !kept.fits() {
            return Err(format!(
                "the seal of {day} that was kept is not what its digest was computed from"
            ));
        }
        let mut of_day = self
            .head
            .seals
            .iter()
            .filter(|written| written.seal.day == day);
        match of_day.next() {
            None => Ok(None),
            Some(written) if written.digest == kept.digest => Ok(Some(day)),
            Some(written) => Err(format!(
                "the seal of {day} is {} here, and {} is what was kept",
                written.digest, kept.digest
            )),
        }
    }

    fn days(&self) -> String {
        let day = |written: Option<&Written>| written.map(|written| written.seal.day.to_string());
        let (first, last) = (day(self.head.seals.first()), day(self.head.seals.last()));
        format!(
            "{} to {}",
            first.unwrap_or_default(),
            last.unwrap_or_default()
        )
    }
}
