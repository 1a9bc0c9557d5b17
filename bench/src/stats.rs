//! Medians and spreads of what was measured in pairs. Pure; called by `report` and the measurements.

use serde::Serialize;

/// The middle of some numbers, and the least and the most of them.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The median; of an even number of values the mean of the middle two.
    pub(crate) median: f64,
    /// The least.
    pub(crate) least: f64,
    /// The most.
    pub(crate) most: f64,
}

impl Spread {
    /// Of these values; `None` of none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (*values.first()?, *values.last()?);
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            f64::midpoint(values[middle - 1], values[middle])
        } else {
            values[middle]
        };
        Some(Self {
            median,
            least,
            most,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn the_median_is_the_middle_value_or_the_mean_of_two() {
        let odd = Spread::of([3.0, 1.0, 10.0]);
        let expected = Spread {
            median: 3.0,
            least: 1.0,
            most: 10.0,
        };
        assert_eq!(odd, Some(expected));
        let even = Spread::of([4.0, 1.0, 2.0, 100.0]).map(|s| s.median);
        assert_eq!(even, Some(3.0));
        assert_eq!(Spread::of([]), None);
    }
}
