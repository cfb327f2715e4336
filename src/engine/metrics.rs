//! Counters and histograms of the engine. Each is written where the thing happens, once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of a histogram: bucket `i` ends at `1.1^i` tenths of a millisecond, so a quantile is
/// known to about 10 %.
const BUCKETS: usize = 160;
const GROWTH: f64 = 1.1;
const UNIT_NS: f64 = 100_000.0;

/// Durations, counted in buckets that grow by 10 %.
#[derive(Debug)]
pub struct Histogram([AtomicU64; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&self, d: Duration) {
        let units = d.as_secs_f64() * 1e9 / UNIT_NS;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the buckets")]
        let bucket = if units <= 1.0 { 0 } else { (units.ln() / GROWTH.ln()).ceil() as usize };
        self.0[bucket.min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
    }

    /// Forgets what was counted, so that a measurement can leave its warm-up out.
    pub fn clear(&self) {
        for bucket in &self.0 {
            bucket.store(0, Ordering::Relaxed);
        }
    }

    /// Durations counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().map(|b| b.load(Ordering::Relaxed)).sum()
    }

    /// The duration that a share `q` (0..1) of those counted does not exceed; `None` if none was counted.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let counts: Vec<u64> = self.0.iter().map(|b| b.load(Ordering::Relaxed)).collect();
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
                let exponent = i32::try_from(bucket).unwrap_or(i32::MAX);
                return Some(Duration::from_secs_f64(UNIT_NS * GROWTH.powi(exponent) / 1e9));
            }
        }
        None
    }
}

/// What the engine counts.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Nominal instant to committed slot and run, of slots that ran in time.
    pub lateness: Histogram,
    /// Admission to claim.
    pub queue_wait: Histogram,
    /// Steps of the wall clock that were noticed.
    pub clock_steps: AtomicU64,
    /// Heap entries that had to be put back by the periodic check.
    pub repairs: AtomicU64,
    /// Reloads that put new files in force.
    pub reloads_done: AtomicU64,
    /// Reloads that were refused for errors in the files.
    pub reloads_refused: AtomicU64,
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
}
