//! Tokens: how long to wait before the next record, so that a rate is kept. Pure; the caller has
//! the clock. Called by `simulate`.

use std::time::Duration;

/// What was missed is made up for at most this far: a stall is not followed by a flood.
const BURST: f64 = 0.2;
/// Shorter waits are not worth their system call; the next record makes up for it.
const WORTH: f64 = 0.002;

/// A rate and what was sent under it.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: f64,
    /// When the next record is due, in seconds since the start.
    due: f64,
}

impl Pace {
    /// A pace; 0 = as fast as it goes.
    pub(super) fn new(per_second: f64) -> Self {
        Self {
            per_second,
            due: 0.0,
        }
    }

    /// How long to wait before the next record, which takes a token. `elapsed` since the start.
    pub(super) fn wait(&mut self, elapsed: Duration) -> Duration {
        if self.per_second <= 0.0 {
            return Duration::ZERO;
        }
        let now = elapsed.as_secs_f64();
        self.due = self.due.max(now - BURST);
        let ahead = self.due - now;
        self.due += 1.0 / self.per_second;
        if ahead < WORTH {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(ahead)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Pace;

    /// Sends for `seconds` of a clock that only moves by waiting; gives what was sent.
    fn sent_in(pace: &mut Pace, from: f64, seconds: f64) -> u32 {
        let mut now = Duration::from_secs_f64(from);
        let end = now + Duration::from_secs_f64(seconds);
        let mut sent = 0;
        while now < end && sent < 1_000_000 {
            now += pace.wait(now);
            sent += 1;
        }
        sent
    }

    #[test]
    fn the_rate_is_kept_at_any_size() {
        for rate in [1.0, 50.0, 5_000.0, 100_000.0] {
            let sent = f64::from(sent_in(&mut Pace::new(rate), 0.0, 4.0));
            assert!(
                (sent - rate * 4.0).abs() <= rate * 0.02 + 2.0,
                "{rate}: {sent}"
            );
        }
    }

    #[test]
    fn a_stall_is_followed_by_a_short_burst_only() {
        let mut pace = Pace::new(1_000.0);
        sent_in(&mut pace, 0.0, 1.0);
        let sent = sent_in(&mut pace, 60.0, 1.0);
        assert!((1_150..=1_250).contains(&sent), "{sent}");
    }

    #[test]
    fn no_rate_is_no_waiting() {
        assert_eq!(Pace::new(0.0).wait(Duration::ZERO), Duration::ZERO);
    }
}
