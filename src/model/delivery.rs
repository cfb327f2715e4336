//! Deliveries: the states of an outbox row and the times of its attempts.

use std::time::Duration;

use super::words;

/// The state of one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeliveryState {
    /// Due now or later.
    Pending,
    /// The receiver answered 2xx.
    Delivered,
    /// Every attempt failed: a dead letter, kept and replayable.
    Exhausted,
}

words!(DeliveryState {
    Pending => "PENDING",
    Delivered => "DELIVERED",
    Exhausted => "EXHAUSTED",
});

/// Seconds before each attempt, counted from the one before; the first is immediate.
pub const RETRY_DELAYS_S: [u64; 8] = [0, 5, 300, 1_800, 7_200, 18_000, 36_000, 36_000];

/// How long to wait after `failed` failed attempts; `None`: no further attempt.
/// `unit` in `0.0..1.0` spreads the wait by +-20 % so that receivers are not hit in step;
/// a receiver's `retry_after` is honoured up to 24 h where it is longer.
#[must_use]
pub fn retry_delay(failed: usize, unit: f64, retry_after: Option<Duration>) -> Option<Duration> {
    const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);
    let base = Duration::from_secs(*RETRY_DELAYS_S.get(failed)?);
    let jittered = base.mul_f64(0.8 + 0.4 * unit.clamp(0.0, 1.0));
    Some(jittered.max(retry_after.unwrap_or_default().min(RETRY_AFTER_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_off_is_the_documented_one() {
        assert_eq!(retry_delay(0, 0.5, None), Some(Duration::ZERO));
        assert_eq!(retry_delay(1, 0.5, None), Some(Duration::from_secs(5)));
        assert_eq!(retry_delay(1, 0.0, None), Some(Duration::from_secs(4)));
        assert_eq!(retry_delay(7, 1.0, None), Some(Duration::from_secs(43_200)));
        assert_eq!(retry_delay(8, 0.5, None), None);
    }

    #[test]
    fn retry_after_lengthens_but_never_beyond_a_day() {
        let hour = Duration::from_hours(1);
        assert_eq!(retry_delay(1, 0.5, Some(hour)), Some(hour));
        assert_eq!(retry_delay(1, 0.5, Some(hour * 1000)), Some(Duration::from_hours(24)));
        assert_eq!(retry_delay(7, 0.5, Some(hour)), Some(Duration::from_hours(10)));
    }
}
