//! Durations and sizes, counted: one atomic addition each, where the thing happens.
//!
//! A histogram is written by whoever measures and read by who asks, without a lock between them: a
//! reading may lie a few counts apart from itself, which nobody can tell.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of a histogram: bucket `i` ends at `1.1^i` tenths of a millisecond, so a quantile is
/// known to about 10 %, and the last one holds what took more than four hours.
const BUCKETS: usize = 200;
const GROWTH: f64 = 1.1;
const UNIT_NS: f64 = 100_000.0;
/// Buckets that are one where they are shown to a monitor.
const SHOWN_TOGETHER: usize = 8;

/// Durations, counted in buckets that grow by 10 %.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| AtomicU64::new(0)), sum_us: AtomicU64::new(0) }
    }
}

/// What a monitor is told of a histogram.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// All together.
    pub sum: f64,
    /// How many.
    pub count: u64,
    /// Upper bounds, ascending, the last infinite, with how many lie below each and above the one before.
    pub buckets: Vec<(f64, u64)>,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, d: Duration) {
        let units = d.as_secs_f64() * 1e9 / UNIT_NS;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the buckets")]
        let bucket = if units <= 1.0 { 0 } else { (units.ln() / GROWTH.ln()).ceil() as usize };
        self.buckets[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(u64::try_from(d.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Forgets what was counted, so that a measurement can leave its warm-up out.
    pub fn clear(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Ordering::Relaxed);
        }
        self.sum_us.store(0, Ordering::Relaxed);
    }

    /// Durations counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|b| b.load(Ordering::Relaxed)).sum()
    }

    /// The duration that a share `q` (0..1) of those counted does not exceed; `None` if none was counted.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let counts: Vec<u64> = self.buckets.iter().map(|b| b.load(Ordering::Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rank within the count"
        )]
        let rank = ((total as f64 * q).ceil() as u64).clamp(1, total);
        let mut seen = 0;
        for (bucket, count) in counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Some(Duration::from_secs_f64(bound(bucket)));
            }
        }
        None
    }

    /// What a monitor is told, in seconds.
    #[must_use]
    pub fn shown(&self) -> Shown {
        let counts: Vec<u64> = self.buckets.iter().map(|b| b.load(Ordering::Relaxed)).collect();
        let groups = counts.chunks(SHOWN_TOGETHER).enumerate();
        let mut buckets: Vec<(f64, u64)> = groups
            .map(|(i, group)| (bound(i * SHOWN_TOGETHER + group.len() - 1), group.iter().sum()))
            .collect();
        if let Some(last) = buckets.last_mut() {
            last.0 = f64::INFINITY;
        }
        let sum = Duration::from_micros(self.sum_us.load(Ordering::Relaxed)).as_secs_f64();
        Shown { sum, count: counts.iter().sum(), buckets }
    }
}

/// Upper bound of a bucket, seconds.
fn bound(bucket: usize) -> f64 {
    UNIT_NS * GROWTH.powi(i32::try_from(bucket).unwrap_or(i32::MAX)) / 1e9
}

/// Sizes, counted in buckets that double: bucket `i` ends at `2^i`.
#[derive(Debug, Default)]
pub struct Sizes {
    buckets: [AtomicU64; 12],
    sum: AtomicU64,
}

impl Sizes {
    /// Counts one size.
    pub fn record(&self, size: usize) {
        let bucket = size.max(1).next_power_of_two().trailing_zeros() as usize;
        self.buckets[bucket.min(self.buckets.len() - 1)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(size as u64, Ordering::Relaxed);
    }

    /// What a monitor is told.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a monitor reads floating point")]
    pub fn shown(&self) -> Shown {
        let counts = self.buckets.iter().map(|b| b.load(Ordering::Relaxed));
        let mut buckets: Vec<(f64, u64)> =
            counts.enumerate().map(|(i, n)| ((1_u64 << i) as f64, n)).collect();
        if let Some(last) = buckets.last_mut() {
            last.0 = f64::INFINITY;
        }
        let count = buckets.iter().map(|(_, n)| n).sum();
        Shown { sum: self.sum.load(Ordering::Relaxed) as f64, count, buckets }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_a_bucket() {
        let h = Histogram::default();
        assert_eq!(h.quantile(0.5), None);
        for ms in 1..=100 {
            h.record(Duration::from_millis(ms));
        }
        let p50 = h.quantile(0.5).unwrap_or_default().as_secs_f64() * 1e3;
        let p99 = h.quantile(0.99).unwrap_or_default().as_secs_f64() * 1e3;
        assert!((50.0..=56.0).contains(&p50), "{p50}");
        assert!((99.0..=110.0).contains(&p99), "{p99}");
        assert_eq!(h.count(), 100);
    }

    #[test]
    fn what_is_shown_adds_up() {
        let h = Histogram::default();
        for d in [Duration::ZERO, Duration::from_millis(3), Duration::from_secs(60), Duration::from_hours(99)]
        {
            h.record(d);
        }
        let shown = h.shown();
        assert_eq!((shown.count, shown.buckets.iter().map(|b| b.1).sum::<u64>()), (4, 4));
        assert!(shown.buckets.windows(2).all(|w| w[0].0 < w[1].0), "ascending");
        assert!(shown.buckets.last().is_some_and(|b| b.0.is_infinite() && b.1 == 1));
        assert!((shown.sum - 356_460.003).abs() < 1e-6, "{}", shown.sum);
        for (bound, below) in &shown.buckets {
            assert!(*bound > 0.003 || *below <= 1, "3 ms stand in no bucket below them");
        }
        let sizes = Sizes::default();
        for n in [1, 2, 3, 4, 1024, 1 << 20] {
            sizes.record(n);
        }
        let shown = sizes.shown();
        assert_eq!(shown.buckets[..3], [(1.0, 1), (2.0, 1), (4.0, 2)]);
        assert_eq!(shown.count, 6);
    }
}
