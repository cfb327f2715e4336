//! The clock. `now()` and sleeping are reached only through [`Clock`], so a test moves time by hand
//! and a clock step is an ordinary input.
//!
//! Wall time decides what is due; the monotonic clock only measures. A sleep ends at a wall-clock
//! instant but is re-checked by its caller, which caps every wait at 30 s: a suspended machine or a
//! stepped clock therefore costs at most one cap.

mod histogram;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

pub use histogram::{Histogram, Shown, Sizes};

/// Longest wait of any loop before it looks at the wall clock again.
pub const WAKE_CAP: Duration = Duration::from_secs(30);

/// Where the time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The wall-clock time.
    fn now(&self) -> Timestamp;

    /// The wall-clock time in Unix milliseconds, as it is stored.
    fn now_ms(&self) -> i64 {
        self.now().as_millisecond()
    }

    /// Ends when the wall clock was seen at or after `at`; before that only where the clock was set back
    /// meanwhile, for then `at` is no longer what the caller meant. So a caller looks at the time again.
    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()>;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let clock = *self;
        Box::pin(async move {
            let mut seen = clock.now();
            while let Some(rest) = rest(seen, clock.now(), at) {
                seen = clock.now();
                tokio::time::sleep(rest).await;
            }
        })
    }
}

/// How long to sleep for `at` before the next look; `None` where it has come, or where `now` lies before
/// `seen`, the time of the look before.
fn rest(seen: Timestamp, now: Timestamp, at: Timestamp) -> Option<Duration> {
    let left = Duration::try_from(at.duration_since(now)).ok().filter(|left| !left.is_zero())?;
    (now >= seen).then(|| left.min(WAKE_CAP))
}

#[derive(Debug)]
struct TestTime {
    now: Timestamp,
    sleepers: Vec<(Timestamp, tokio::sync::oneshot::Sender<()>)>,
}

/// A clock that moves only when the test says so.
#[derive(Debug, Clone)]
pub struct TestClock(Arc<Mutex<TestTime>>);

impl TestClock {
    /// A clock that stands at `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(TestTime { now, sleepers: Vec::new() })))
    }

    /// Moves the clock forward and wakes every sleeper whose instant has come.
    pub fn advance(&self, by: Duration) {
        let mut time = self.lock();
        let by = jiff::SignedDuration::try_from(by).unwrap_or(jiff::SignedDuration::MAX);
        time.now = time.now.saturating_add(by).unwrap_or(Timestamp::MAX);
        Self::wake(&mut time);
    }

    /// Sets the clock, backward too: a step as an operator or NTP makes it.
    pub fn set(&self, now: Timestamp) {
        let mut time = self.lock();
        let back = now < time.now;
        time.now = now;
        if back {
            for (_, sleeper) in std::mem::take(&mut time.sleepers) {
                let _ = sleeper.send(());
            }
        }
        Self::wake(&mut time);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, TestTime> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn wake(time: &mut TestTime) {
        let now = time.now;
        for (at, sleeper) in std::mem::take(&mut time.sleepers) {
            if at <= now {
                // A sleeper that has gone away in the meantime needs no waking.
                let _ = sleeper.send(());
            } else {
                time.sleepers.push((at, sleeper));
            }
        }
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        self.lock().now
    }

    fn sleep_until(&self, at: Timestamp) -> BoxFuture<'static, ()> {
        let (wake, woken) = tokio::sync::oneshot::channel();
        {
            let mut time = self.lock();
            if at <= time.now {
                return Box::pin(std::future::ready(()));
            }
            time.sleepers.push((at, wake));
        }
        Box::pin(async move {
            // The sender lives in the clock: it is dropped only with the clock itself, and then
            // nobody moves time any more.
            if woken.await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

/// The instant of stored milliseconds; out-of-range values clamp to the ends of time.
#[must_use]
pub fn from_ms(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or(if ms < 0 { Timestamp::MIN } else { Timestamp::MAX })
}

/// `2026-11-22T09:00:00.000Z`: RFC 3339 with milliseconds, as every API prints times.
#[must_use]
pub fn rfc3339_ms(ms: i64) -> String {
    format!("{:.3}", from_ms(ms))
}

/// The time zone of an IANA name: the system's data first, a bundled copy as fall-back.
///
/// # Errors
/// A sentence that names the zone.
pub fn zone(name: &str) -> Result<jiff::tz::TimeZone, String> {
    jiff::tz::TimeZone::get(name)
        .map_err(|_| format!("unknown time zone {name:?}; write an IANA name such as Europe/Berlin"))
}

/// A duration in whole milliseconds, saturating.
#[must_use]
pub fn millis(d: Duration) -> i64 {
    i64::try_from(d.as_millis()).unwrap_or(i64::MAX)
}

/// The same, as a length that cannot be negative.
#[must_use]
pub fn millis_u64(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

/// Reads a duration as people write it: `90s`, `1h 30m`, `15m`, `250ms`. Years and months are
/// refused: they are no fixed length.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write e.g. 90s, 15m or 1h 30m");
    let span: jiff::Span = text.trim().parse().map_err(|_| wrong())?;
    // A day is 24 h here; months and years have no fixed length and are refused.
    let signed = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    Duration::try_from(signed).map_err(|_| format!("{text:?} is negative; a duration is not"))
}

/// Prints a duration the way [`parse_duration`] reads it: `1h 30m`, `90s` as `1m 30s`, `250ms`.
#[must_use]
pub fn human_duration(d: Duration) -> String {
    if d.is_zero() {
        return "0s".to_owned();
    }
    let (mut left, mut parts) = (d.as_secs(), Vec::new());
    for (unit, size) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if left >= size {
            parts.push(format!("{}{unit}", left / size));
            left %= size;
        }
    }
    if d.subsec_millis() > 0 && d.as_secs() < 60 {
        parts.push(format!("{}ms", d.subsec_millis()));
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_print_with_milliseconds() {
        assert_eq!(rfc3339_ms(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339_ms(1_735_722_000_123), "2025-01-01T09:00:00.123Z");
    }

    #[test]
    fn durations_read_and_print() {
        for (text, secs) in [("90s", 90), ("1h 30m", 5400), ("15m", 900), ("26h", 93_600), ("1d", 86_400)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(secs)), "{text}");
        }
        assert_eq!(human_duration(Duration::from_secs(5400)), "1h 30m");
        assert_eq!(human_duration(Duration::from_millis(1250)), "1s 250ms");
        for bad in ["", "5", "1 month", "-5s", "soon"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_test_clock_wakes_who_is_due() {
        let clock = TestClock::new(from_ms(0));
        let soon = clock.sleep_until(from_ms(1000));
        let later = clock.sleep_until(from_ms(2000));
        clock.advance(Duration::from_millis(1500));
        soon.await;
        let mut later = std::pin::pin!(later);
        assert!(futures_util::poll!(&mut later).is_pending());
        clock.set(from_ms(2000));
        later.await;
        let never = clock.sleep_until(from_ms(90_000));
        clock.set(from_ms(1000));
        never.await;
    }

    #[test]
    fn who_sleeps_looks_at_the_clock_and_sees_that_it_was_set_back() {
        let at = from_ms(100_000);
        assert_eq!(rest(from_ms(0), from_ms(99_000), at), Some(Duration::from_secs(1)));
        assert_eq!(rest(from_ms(0), from_ms(1), at), Some(WAKE_CAP));
        assert_eq!(rest(from_ms(0), from_ms(0), at), Some(WAKE_CAP));
        assert_eq!(rest(from_ms(0), at, at), None);
        assert_eq!(rest(from_ms(50_000), from_ms(1000), at), None);
    }
}
