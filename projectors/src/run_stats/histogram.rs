//! How long things took, as a sum and a histogram: counts by bucket, as `read_model.merge` and
//! `read_model.quantile` (migrations/0006_run_stats.sql) read them. Pure; used by [`super::sums`].
//!
//! Durations below 32 ms have a bucket each. From there on every doubling is cut into 16 buckets, so
//! that the middle of a bucket is at most 1/32 from any duration in it. Integers only: a duration has the
//! same bucket on every machine.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Buckets of each doubling, as a power of two.
const SUB_BUCKET_BITS: u32 = 4;

/// The bucket of a duration in milliseconds; one below 0 counts as 0.
pub(super) fn bucket(millis: i64) -> u32 {
    let millis = millis.max(0) as u64;
    let doublings = (millis | 1).ilog2().saturating_sub(SUB_BUCKET_BITS);
    // At most 31 after the shift.
    (doublings << SUB_BUCKET_BITS) + (millis >> doublings) as u32
}

/// Durations, added up.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Durations {
    /// Milliseconds. Wide enough for any number of durations of any length.
    pub(super) sum: u128,
    /// How many, by bucket.
    counts: BTreeMap<u32, u64>,
}

impl Durations {
    /// Adds them, in milliseconds; one below 0 counts as 0.
    pub(super) fn extend(&mut self, durations: impl IntoIterator<Item = i64>) {
        for millis in durations {
            self.sum += millis.max(0) as u128;
            *self.counts.entry(bucket(millis)).or_default() += 1;
        }
    }

    /// The histogram as the text of a `bigint[]`: the subscript is the bucket, from the lowest to the
    /// highest one in use; NULL = none.
    pub(super) fn to_sql(&self) -> String {
        let Some((&lowest, &highest)) = self.counts.keys().next().zip(self.counts.keys().last())
        else {
            return "{}".to_owned();
        };
        let mut text = format!("[{lowest}:{highest}]={{");
        for bucket in lowest..=highest {
            if bucket > lowest {
                text.push(',');
            }
            match self.counts.get(&bucket) {
                // Writing to a String cannot fail.
                Some(count) => drop(write!(text, "{count}")),
                None => text.push_str("NULL"),
            }
        }
        text.push('}');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lowest duration of a bucket, found by looking.
    fn start(of: u32) -> i64 {
        let (mut from, mut to) = (0, i64::MAX);
        while from < to {
            let middle = from + (to - from) / 2;
            if bucket(middle) >= of {
                to = middle;
            } else {
                from = middle + 1;
            }
        }
        from
    }

    #[test]
    fn buckets_begin_where_the_rule_says() {
        for (millis, expected) in [
            (i64::MIN, 0),
            (-1, 0),
            (0, 0),
            (1, 1),
            (15, 15),
            (16, 16),
            (31, 31),
            (32, 32),
            (33, 32),
            (34, 33),
            (63, 47),
            (64, 48),
            (67, 48),
            (68, 49),
            (1_000, 111),
            (3_600_000, 299),
            (i64::MAX, 959),
        ] {
            assert_eq!(bucket(millis), expected, "{millis} ms");
        }
    }

    #[test]
    fn no_bucket_is_empty_and_its_middle_is_at_most_a_32nd_off() {
        assert_eq!(start(0), 0);
        for number in 0..959 {
            let (from, to) = (start(number), start(number + 1) - 1);
            assert!(from <= to, "bucket {number} holds nothing");
            assert_eq!((bucket(from), bucket(to)), (number, number));
            let middle = i128::from(from) + i128::from(to - from) / 2;
            for millis in [from, to] {
                let off = (middle - i128::from(millis)).abs();
                assert!(off * 32 <= i128::from(millis), "{millis} ms: {middle}");
            }
        }
    }

    #[test]
    fn a_histogram_is_an_array_from_the_lowest_bucket_to_the_highest() {
        let mut durations = Durations::default();
        assert_eq!(durations.to_sql(), "{}");
        durations.extend([7]);
        assert_eq!(durations.to_sql(), "[7:7]={1}");
        durations.extend([-5, 7, 4]);
        assert_eq!(durations.to_sql(), "[0:7]={1,NULL,NULL,NULL,1,NULL,NULL,2}");
        assert_eq!(durations.sum, 18);
    }

    #[test]
    fn no_number_of_the_longest_durations_is_too_much() {
        let mut durations = Durations::default();
        durations.extend([i64::MAX; 3]);
        assert_eq!(durations.sum, 3 * i64::MAX as u128);
    }
}
