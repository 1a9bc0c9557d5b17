//! After which events of a run a snapshot is taken, and which of them are kept. Pure: functions of the
//! events alone, so that every batch size and every rebuild leave the same rows. Called by
//! [`super::open_run`] and [`super::snapshots`].
//!
//! A snapshot holds all attempts of its run, so the distance between two grows with their number:
//! together they hold at most two attempts for each event of the run, however long it gets.

/// The shortest distance between two snapshots, in events.
const SHORTEST: i64 = 1_000;

/// How far behind the newest one a snapshot is kept, in its own widths ([`width`]). Each width has
/// two or three of them then, so a run of n events keeps about `2 * log2(n / 1000)`.
const KEPT_WIDTHS: i64 = 4;

/// The distance between two snapshots of a run with so many attempts: [`SHORTEST`], doubled until it
/// is not less than them.
fn interval(attempts: i64) -> i64 {
    let mut interval = SHORTEST;
    while interval < attempts {
        interval *= 2;
    }
    interval
}

/// Whether a snapshot is taken after this event; `attempts` = how many the run has then. Not due at one
/// number of attempts is not due at any higher one.
pub(super) fn is_due(run_seq: i64, attempts: i64) -> bool {
    run_seq % interval(attempts) == 0
}

/// Whether the snapshot of an event at which one [`is_due`] is kept while `newest` is the run's newest.
/// Once it is not, it never is again.
pub(super) fn is_kept(run_seq: i64, newest: i64) -> bool {
    newest - run_seq <= KEPT_WIDTHS * width(run_seq)
}

/// Whether a run with this newest snapshot may have any that are not kept.
pub(super) fn may_thin(newest: i64) -> bool {
    newest > (1 + KEPT_WIDTHS) * SHORTEST
}

/// The largest of [`SHORTEST`] and its doublings that divides the number: dense near the newest
/// snapshot, wider and wider apart before.
fn width(run_seq: i64) -> i64 {
    SHORTEST << (run_seq / SHORTEST).trailing_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The due points of a run that has `attempts(run_seq)` attempts, with their number.
    fn points(events: i64, attempts: impl Fn(i64) -> i64) -> Vec<(i64, i64)> {
        (1..=events)
            .map(|seq| (seq, attempts(seq)))
            .filter(|(seq, attempts)| is_due(*seq, *attempts))
            .collect()
    }

    #[test]
    fn a_run_of_few_attempts_has_one_every_thousand_events() {
        let points: Vec<i64> = points(5_500, |_| 1_000).iter().map(|(s, _)| *s).collect();
        assert_eq!(points, [1_000, 2_000, 3_000, 4_000, 5_000]);
    }

    #[test]
    fn the_distance_is_not_less_than_the_attempts() {
        for (attempts, distance) in [
            (0, 1_000),
            (1_001, 2_000),
            (2_000, 2_000),
            (2_001, 4_000),
            (50_000, 64_000),
        ] {
            assert_eq!(interval(attempts), distance, "{attempts} attempts");
        }
    }

    #[test]
    fn what_is_not_due_is_not_due_with_more_attempts() {
        for seq in (1..200_000).filter(|seq| !is_due(*seq, 0) || !is_due(*seq, 1_500)) {
            assert!(!is_due(seq, 1_600) && !is_due(seq, 70_000), "{seq}");
        }
    }

    #[test]
    fn together_they_hold_at_most_two_attempts_for_each_event_however_the_attempts_grow() {
        let growths: [fn(i64) -> i64; 5] = [
            |seq| seq,
            |seq| seq / 2,
            |seq| seq.min(5_000),
            |seq| (seq - 99_000).max(0),
            |seq| seq / 10_000 * 10_000,
        ];
        for (which, growth) in growths.iter().enumerate() {
            let mut held = 0;
            for (seq, attempts) in points(300_000, growth) {
                held += attempts;
                assert!(held <= 2 * seq, "growth {which}: {held} in {seq} events");
            }
        }
    }

    #[test]
    fn few_are_kept_and_the_newest_are_dense() {
        let mut kept: Vec<i64> = Vec::new();
        for newest in (1..=4_096).map(|n| n * 1_000) {
            kept.push(newest);
            kept.retain(|seq| is_kept(*seq, newest));
            let most = 3 * (newest / 1_000).ilog2() as usize + 4;
            assert!(kept.len() <= most, "{} at {newest}", kept.len());
            for back in 1..4.min(newest / 1_000) {
                assert!(kept.contains(&(newest - back * 1_000)), "{newest}");
            }
        }
    }

    #[test]
    fn before_any_event_one_is_kept_that_is_not_much_further_from_it_than_the_newest() {
        let newest = 1_000_000;
        let all = (1..=1_000).map(|n| n * 1_000);
        let kept: Vec<i64> = all.filter(|seq| is_kept(*seq, newest)).collect();
        for wanted in (kept[0]..newest).step_by(777) {
            let nearest = kept.iter().rev().find(|seq| **seq <= wanted);
            let events = wanted - nearest.copied().unwrap_or(0);
            let behind = newest - wanted;
            assert!(events <= behind.max(1_000), "{wanted}: {events} events");
        }
    }

    #[test]
    fn what_was_dropped_once_is_not_kept_later() {
        for seq in (1..300).map(|n| n * 1_000) {
            let kept = (seq..=2_000_000).step_by(500);
            assert!(
                kept.map(|newest| is_kept(seq, newest))
                    .is_sorted_by(|a, b| a >= b)
            );
        }
    }
}
