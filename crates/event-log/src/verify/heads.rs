//! One digest of all runs' heads, for comparing two verifications of the same log. Pure.

use std::fmt;

use run_events::Digest;
use sha2::{Digest as _, Sha256};

/// The sum modulo 2^256 of one SHA-256 per run that has events: over the length of tenantId (8 bytes),
/// tenantId, the length of runId (8 bytes), runId, the last runSeq (8 bytes) and the last chain digest
/// (32 bytes); integers big-endian. A sum has no order, so runs may come in any. Its text form is 64
/// hexadecimal digits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Heads([u8; 32]);

impl Heads {
    /// Adds a run.
    pub(crate) fn add(&mut self, tenant_id: &str, run_id: &str, run_seq: i64, chain: Digest) {
        let mut hash = Sha256::new();
        for name in [tenant_id, run_id] {
            hash.update((name.len() as u64).to_be_bytes());
            hash.update(name);
        }
        hash.update(run_seq.to_be_bytes());
        hash.update(chain.0);
        self.plus(&hash.finalize().into());
    }

    /// Adds the runs of another sum.
    pub(crate) fn merge(&mut self, other: Self) {
        self.plus(&other.0);
    }

    fn plus(&mut self, other: &[u8; 32]) {
        let mut carry = 0;
        for (byte, more) in self.0.iter_mut().zip(other).rev() {
            let sum = u16::from(*byte) + u16::from(*more) + carry;
            *byte = sum.to_be_bytes()[1];
            carry = sum >> 8;
        }
    }
}

impl fmt::Display for Heads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Digest(self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(runs: &[(&str, &str, i64, u8)]) -> Heads {
        let mut heads = Heads::default();
        for (tenant, run, seq, chain) in runs {
            heads.add(tenant, run, *seq, Digest([*chain; 32]));
        }
        heads
    }

    #[test]
    fn the_order_and_the_batches_of_runs_do_not_matter_and_everything_else_does() {
        let (a, b, c) = (("t", "a", 1, 1), ("t", "b", 2, 2), ("u", "c", 3, 3));
        let whole = sum(&[a, b, c]);
        assert_eq!(sum(&[c, a, b]), whole);
        let mut parts = sum(&[b]);
        parts.merge(sum(&[c, a]));
        assert_eq!(parts, whole);
        for other in [
            sum(&[a, b]),
            sum(&[a, b, c, c]),
            sum(&[a, b, ("uc", "", 3, 3)]),
            sum(&[a, b, ("u", "c", 4, 3)]),
            sum(&[a, b, ("u", "c", 3, 4)]),
        ] {
            assert_ne!(other, whole);
        }
    }

    #[test]
    fn the_digest_is_the_documented_one() {
        // printf: 8 bytes of length 1, "t", 8 bytes of length 1, "a", runSeq 1, 32 bytes of 1.
        let mut bytes = vec![0, 0, 0, 0, 0, 0, 0, 1, b't', 0, 0, 0, 0, 0, 0, 0, 1, b'a'];
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 1]);
        bytes.extend([1; 32]);
        let expected = hex::encode(Sha256::digest(bytes));
        assert_eq!(sum(&[("t", "a", 1, 1)]).to_string(), expected);
    }

    #[test]
    fn sums_carry() {
        let mut heads = Heads([0xff; 32]);
        let mut one = [0; 32];
        one[31] = 1;
        heads.plus(&one);
        assert_eq!(heads, Heads::default());
        heads.plus(&[0xff; 32]);
        heads.plus(&[0xff; 32]);
        let mut expected = [0xff; 32];
        expected[31] = 0xfe;
        assert_eq!(heads, Heads(expected));
    }
}
