//! Seals and proofs against what an implementation that shares no code with them gives
//! (`reference.py`), and what becomes of a proof when anything in it is changed.
#![allow(clippy::unwrap_used, clippy::panic)]

mod changed;
mod kept;
mod merkle_tree;
mod reference;

use run_events::seal::Unreadable;
use run_events::seal::proof::{Checked, ProofCheck};

/// A proof of a run of four events, whose third content is withheld.
const PROOF: &str = include_str!("proof.jsonl");

/// Checks a proof's lines.
fn check<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Checked, Unreadable> {
    let mut lines = lines.into_iter();
    let mut check = ProofCheck::begin(lines.next().unwrap_or_default())?;
    for line in lines {
        check.event(line)?;
    }
    Ok(check.end())
}
