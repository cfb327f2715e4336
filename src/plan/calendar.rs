//! A compiled timing. Nominal instants are Unix milliseconds; those of a pattern are whole seconds.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::Error;
use crate::model::{Cron, Timing};
use crate::time::{from_ms, millis, zone};

/// The nominal instants of one timing. A clone shares the pattern and the zone.
#[derive(Debug, Clone)]
pub struct Calendar(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Cron { cron: Cron, tz: TimeZone },
    Every { period_ms: i64, phase_ms: i64 },
}

/// Consecutive slots of one timing, at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Nominal instant of the first, Unix milliseconds.
    pub first_ms: i64,
    /// Nominal instant of the last, Unix milliseconds.
    pub last_ms: i64,
    /// How many there are.
    pub count: u64,
}

impl Calendar {
    /// Shortest period of `every`.
    pub const MIN_PERIOD: Duration = Duration::from_secs(1);

    /// Compiles a timing: its zone is looked up once.
    ///
    /// # Errors
    /// [`Error`]; none for a timing that was read from a file on this machine.
    pub fn compile(timing: &Timing) -> Result<Self, Error> {
        match timing {
            Timing::Cron { cron, timezone } => {
                Ok(Self(Kind::Cron { cron: cron.clone(), tz: zone(timezone).map_err(Error::Zone)? }))
            }
            Timing::At { .. } | Timing::After { .. } | Timing::Startup => Err(Error::Period),
            Timing::Every { period, .. } if *period < Self::MIN_PERIOD => Err(Error::Period),
            Timing::Every { period, phase } => {
                Ok(Self(Kind::Every { period_ms: millis(*period), phase_ms: millis(*phase) }))
            }
        }
    }

    /// The first nominal instant strictly after `after_ms`; `None` where there is none.
    #[must_use]
    pub fn next_after(&self, after_ms: i64) -> Option<i64> {
        match &self.0 {
            Kind::Cron { cron, tz } => {
                cron.next_after(from_ms(after_ms), tz).map(jiff::Timestamp::as_millisecond)
            }
            Kind::Every { period_ms, phase_ms } => {
                let index = after_ms.checked_sub(*phase_ms)?.div_euclid(*period_ms);
                index.checked_add(1)?.checked_mul(*period_ms)?.checked_add(*phase_ms)
            }
        }
    }

    /// The last nominal instant in `(after_ms, at_ms]`; `None` where there is none.
    #[must_use]
    pub fn last_at_or_before(&self, after_ms: i64, at_ms: i64) -> Option<i64> {
        if at_ms <= after_ms {
            return None;
        }
        let last = match &self.0 {
            Kind::Cron { cron, tz } => cron.last_at_or_before(from_ms(at_ms), tz)?.as_millisecond(),
            Kind::Every { period_ms, phase_ms } => {
                let index = at_ms.checked_sub(*phase_ms)?.div_euclid(*period_ms);
                index.checked_mul(*period_ms)?.checked_add(*phase_ms)?
            }
        };
        (last > after_ms).then_some(last)
    }

    /// The nominal instants in `(after_ms, until_ms]`, counted by arithmetic; `None` where there is
    /// none.
    #[must_use]
    pub fn count(&self, after_ms: i64, until_ms: i64) -> Option<Stretch> {
        let first_ms = self.next_after(after_ms).filter(|first| *first <= until_ms)?;
        let last_ms = self.last_at_or_before(after_ms, until_ms)?;
        let count = match &self.0 {
            Kind::Cron { cron, tz } => cron.count(from_ms(after_ms), from_ms(last_ms), tz),
            Kind::Every { period_ms, .. } => (last_ms.abs_diff(first_ms) / period_ms.unsigned_abs()) + 1,
        };
        Some(Stretch { first_ms, last_ms, count })
    }
}

/// The first `n` nominal instants after `after_ms`; fewer where the timing ends.
#[must_use]
pub fn fires(calendar: &Calendar, after_ms: i64, n: usize) -> Vec<i64> {
    std::iter::successors(calendar.next_after(after_ms), |at| calendar.next_after(*at)).take(n).collect()
}
