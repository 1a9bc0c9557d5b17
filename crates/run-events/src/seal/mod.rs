//! Seals: one digest of what the log was at the end of a day, and proofs that a run was part of it.
//! Pure, so that somebody without the database can check them.
//!
//! A seal covers the heads of all runs that got events on its day ([`Head`]) by a Merkle tree
//! ([`merkle`]), and the seal of the day before. Called by event-log, which reads the heads, and by the
//! CLI. [`proof`] is the file that shows one run to an outsider.

pub mod merkle;
pub mod proof;
mod proof_lines;
mod reader;

use chrono::NaiveDate;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::Digest;
use reader::Object;
pub use reader::Unreadable;

/// How leaves and digests are computed. Another way gets another number.
pub const VERSION: i16 = 1;

/// What the digest of a seal begins with, so that it is the digest of nothing else.
const SEAL: &str = "runlog seal v1";
/// What the data of a leaf begins with.
const HEAD: &str = "runlog head v1";

/// Where a run stands at the end of a day: a leaf.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// The tenant that owns the run.
    pub tenant_id: &'a str,
    /// The run's id within the tenant.
    pub run_id: &'a str,
    /// The highest runSeq among the run's events of the day, from 1.
    pub run_seq: i64,
    /// The run's events of the day, from 1.
    pub events: u64,
    /// The chain digest of the event of that runSeq.
    pub chain: Digest,
}

impl Head<'_> {
    /// The leaf: SHA-256 over 0x00, `runlog head v1`, the length of tenantId (8 bytes), tenantId, the
    /// length of runId (8 bytes), runId, runSeq (8 bytes), events (8 bytes) and the chain digest (32
    /// bytes); integers big-endian.
    ///
    /// The chain digest holds the ids of the run's events, so nobody guesses what a leaf stands for.
    pub fn leaf(&self) -> Digest {
        let mut data = HEAD.as_bytes().to_vec();
        for name in [self.tenant_id, self.run_id] {
            data.extend((name.len() as u64).to_be_bytes());
            data.extend(name.as_bytes());
        }
        data.extend(self.run_seq.to_be_bytes());
        data.extend(self.events.to_be_bytes());
        data.extend(self.chain.0);
        merkle::leaf(&data)
    }
}

/// The seal of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// The day, UTC, by persistedAt.
    pub day: NaiveDate,
    /// Runs that got events on it.
    pub runs: u64,
    /// Events of it.
    pub events: u64,
    /// The root of the tree over the leaves of those runs in ascending order. That order says nothing of
    /// names, so a leaf's place tells an outsider nothing of other tenants.
    pub root: Digest,
    /// The digest of the seal of the day before; [`Seal::FIRST`] where it is the first.
    pub previous: Digest,
}

impl Seal {
    /// What comes before the first seal: 32 zero bytes.
    pub const FIRST: Digest = Digest([0; 32]);

    /// The digest that is kept outside: SHA-256 over `runlog seal v1`, the day as `2026-01-31`, runs (8
    /// bytes), events (8 bytes), root and previous; integers big-endian.
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        hash.update(SEAL);
        hash.update(self.day.to_string());
        hash.update(self.runs.to_be_bytes());
        hash.update(self.events.to_be_bytes());
        hash.update(self.root.0);
        hash.update(self.previous.0);
        Digest(hash.finalize().into())
    }

    /// Whether this is the seal of the day after `before`'s.
    pub fn follows(&self, before: &Self) -> bool {
        before.day.succ_opt() == Some(self.day) && self.previous == before.digest()
    }
}

impl Serialize for Seal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seal = serializer.serialize_struct("Seal", 7)?;
        seal.serialize_field("format", SEAL)?;
        seal.serialize_field("day", &self.day)?;
        seal.serialize_field("runs", &self.runs)?;
        seal.serialize_field("events", &self.events)?;
        seal.serialize_field("root", &self.root)?;
        seal.serialize_field("previous", &self.previous)?;
        seal.serialize_field("digest", &self.digest())?;
        seal.end()
    }
}

/// A seal as it was written down, with the digest that stands beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The seal.
    pub seal: Seal,
    /// Its digest, as written; that of the seal unless one of both was changed.
    pub digest: Digest,
}

impl Written {
    /// Whether the digest is the seal's.
    pub fn fits(&self) -> bool {
        self.digest == self.seal.digest()
    }

    fn read(object: &mut Object<'_>) -> Result<Self, Unreadable> {
        object.exactly("format", SEAL)?;
        let seal = Seal {
            day: object.day("day")?,
            runs: object.count("runs")?,
            events: object.count("events")?,
            root: object.digest("root")?,
            previous: object.digest("previous")?,
        };
        Ok(Self {
            seal,
            digest: object.digest("digest")?,
        })
    }
}

/// Reads seals that somebody kept: what `runlog audit seal -o json` and `runlog audit list -o json` write,
/// an array, or one seal. What stands beside the seals' own fields is ignored.
///
/// # Errors
/// Where the text is not that.
pub fn read_seals(text: &str) -> Result<Vec<Written>, Unreadable> {
    let value = reader::parse(text, 8)?;
    let kept: Vec<&serde_json::Value> = match &value {
        serde_json::Value::Array(seals) => seals.iter().collect(),
        one => vec![one],
    };
    let read = |(at, value)| Written::read(&mut Object::new(value, &format!("seal {at}"))?);
    (1_usize..).zip(kept).map(read).collect()
}
