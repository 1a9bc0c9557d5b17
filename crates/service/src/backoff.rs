//! How long to wait before the next attempt: exponential, with full jitter, so that processes
//! that failed together do not come back together. Called by every retry loop.

use std::time::Duration;

/// The delays of one retry loop. Each is uniform between 0 and a ceiling that doubles from
/// `base` up to `cap`.
#[derive(Debug, Clone)]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    ceiling: Duration,
}

impl Backoff {
    /// Starts at a ceiling of `base` and never exceeds `cap` (the lower of the two counts).
    pub fn new(base: Duration, cap: Duration) -> Self {
        let base = base.min(cap);
        Backoff {
            base,
            cap,
            ceiling: base,
        }
    }

    /// The delay before the next attempt; the ceiling of the one after it doubles.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.ceiling.mul_f64(rand::random::<f64>());
        self.ceiling = self.ceiling.saturating_mul(2).min(self.cap);
        delay
    }

    /// To be called after a success: the next delay is drawn as the first one was.
    pub fn reset(&mut self) {
        self.ceiling = self.base;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Backoff;

    const BASE: Duration = Duration::from_millis(100);
    const CAP: Duration = Duration::from_secs(2);

    /// The largest of many draws at the given step (0 = the first delay).
    fn largest_at(step: usize) -> Duration {
        let draw = || {
            let mut backoff = Backoff::new(BASE, CAP);
            for _ in 0..step {
                let _ = backoff.next_delay();
            }
            backoff.next_delay()
        };
        (0..2000).map(|_| draw()).max().unwrap_or_default()
    }

    #[test]
    fn ceilings_double_up_to_the_cap() {
        for (step, ceiling) in [(0, 100), (1, 200), (2, 400), (5, 2000), (60, 2000)] {
            let (largest, ceiling) = (largest_at(step), Duration::from_millis(ceiling));
            assert!(
                largest <= ceiling,
                "step {step}: {largest:?} above {ceiling:?}"
            );
            // 2000 draws that all miss the upper tenth: 0.9^2000, which does not happen.
            assert!(
                largest > ceiling.mul_f64(0.9),
                "step {step}: {largest:?} of {ceiling:?}"
            );
        }
    }

    #[test]
    fn delays_use_the_whole_range_below_the_ceiling() {
        let small = (0..2000).any(|_| Backoff::new(BASE, CAP).next_delay() < BASE.mul_f64(0.1));
        assert!(small, "no delay in the lowest tenth");
    }

    #[test]
    fn reset_goes_back_to_the_base() {
        let mut backoff = Backoff::new(BASE, CAP);
        for _ in 0..50 {
            let _ = backoff.next_delay();
        }
        for _ in 0..200 {
            backoff.reset();
            assert!(backoff.next_delay() <= BASE);
        }
    }

    #[test]
    fn a_cap_below_the_base_counts() {
        let mut backoff = Backoff::new(CAP, BASE);
        assert!((0..200).all(|_| backoff.next_delay() <= BASE));
    }
}
